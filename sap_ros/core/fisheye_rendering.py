"""Renders views, and the panorama, straight from a picture with two fisheye lenses.

As in :mod:`sap_ros.core.rendering`, a view is one cv2.remap by a look-up table that is kept for further
pictures; on a torch device it is a ``grid_sample``. A view on the border between the lenses is put together from
both, and where they meet both are blended. A table covers only the part of the view that its lens is needed for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sap_ros.core import sphere
from sap_ros.core.camera import View, focal_length
from sap_ros.core.fisheye import DualFisheye, Lens
from sap_ros.core.rendering import arctan2, halvings

#: Rays of a grid of pixels by components, each (rows, columns) float32, multiplied by a matrix (3, 3); and
#: their lengths, which the matrix does not change.
Rays = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

# So that the ray along the optical axis can be divided by its length across it.
_LEAST_LENGTH = 1e-12

# Narrowest band in which both lenses are blended, in rad, so that its weights are defined.
_LEAST_BLEND = 1e-6

# Rows of an image that have one table for each lens: the border between the lenses is a curve, and the fewer
# the rows, the less of a view is rendered from both.
_BAND = 64


@dataclass(frozen=True)
class _Part:
    """What one lens contributes to a band.

    Attributes:
        columns: the columns that it is needed for.
        coarse, fine: cv2.remap's tables for them, of the whole picture.
    """

    columns: slice
    coarse: np.ndarray
    fine: np.ndarray


@dataclass(frozen=True)
class _Band:
    """Some rows of an image.

    Attributes:
        rows: these rows.
        parts: of one lens, or of both.
        both: the columns that both contribute to.
        weights: of both lenses in these columns, (rows, columns) float32.
    """

    rows: slice
    parts: tuple[_Part, ...]
    both: slice | None = None
    weights: tuple[np.ndarray, ...] = ()

    def render(self, picture: np.ndarray, image: np.ndarray) -> None:
        """Renders its rows of an image."""
        shown: list[np.ndarray] = []
        for part in self.parts:
            target = image[self.rows, part.columns]
            # Where both contribute, the second one must not overwrite the first one.
            into = target if not shown or self.both is None else None
            shown.append(
                cv2.remap(
                    picture, part.coarse, part.fine, cv2.INTER_LINEAR, into, cv2.BORDER_REPLICATE
                )
            )
        if self.both is None:
            return
        one, other = (
            pixels[:, self.both.start - part.columns.start : self.both.stop - part.columns.start]
            for part, pixels in zip(self.parts, shown, strict=True)
        )
        mixed = cv2.blendLinear(one, other, *self.weights)
        image[self.rows, self.parts[1].columns] = shown[1]
        image[self.rows, self.both] = mixed


@dataclass(frozen=True)
class Table:
    """How an image is rendered from a picture with two lenses.

    Attributes:
        size: (rows, columns) of the image.
        bands: all of its rows.
        blind: (rows, columns) bool, what no lens sees; None: everything is seen.
    """

    size: tuple[int, int]
    bands: tuple[_Band, ...]
    blind: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""
        kept = [a for band in self.bands for part in band.parts for a in (part.coarse, part.fine)]
        kept += [a for band in self.bands for a in band.weights]
        return sum(a.nbytes for a in kept)

    def render(self, picture: np.ndarray) -> np.ndarray:
        """The image (rows, columns, 3) from a picture (H, W, 3) uint8; black where no lens sees."""
        image = np.zeros((*self.size, picture.shape[2]), picture.dtype)
        for band in self.bands:
            band.render(picture, image)
        if self.blind is not None:
            image[self.blind] = 0
        return image


class FisheyeRenderer:
    """Renders views, and the panorama, from one picture.

    Args:
        picture: (H, W, 3) uint8.
        camera: the camera of a picture of this size.

    A picture with at least twice the resolution of what is rendered is first reduced by a power of two, by
    area averaging, against aliasing.
    """

    def __init__(self, picture: np.ndarray, camera: DualFisheye) -> None:
        self._camera = camera
        self._levels = [picture]

    def render(self, view: View, size: int, keep: bool = True) -> np.ndarray:
        """A view, (size, size, 3).

        Args:
            view: the view.
            size: its side, in pixels.
            keep: keep the look-up table; for the views of a scan.
        """
        camera, level = self._reduced(size / view.fov)
        return view_table(camera, view, size, keep).render(level)

    def panorama(self, width: int) -> np.ndarray:
        """The panorama, (width / 2, width, 3)."""
        camera, level = self._reduced(width / (2 * math.pi))
        return _panorama_table(camera, width).render(level)

    def _reduced(self, resolution: float) -> tuple[DualFisheye, np.ndarray]:
        """The picture, reduced for a resolution in pixels per rad, and the camera of that picture."""
        times = halvings(self._camera.resolution, resolution)
        while len(self._levels) <= times:
            last = self._levels[-1]
            half = last.shape[1] // 2, last.shape[0] // 2
            self._levels.append(cv2.resize(last, half, interpolation=cv2.INTER_AREA))
        level = self._levels[times]
        size = level.shape[1], level.shape[0]
        return (self._camera if not times else self._camera.resized(size)), level


def view_table(camera: DualFisheye, view: View, size: int, keep: bool = True) -> Table:
    """The table of a view of ``size`` pixels; ``keep`` as in :class:`FisheyeRenderer`."""
    return (_kept_table if keep else _single_table)(camera, view, size)


def _view_table(camera: DualFisheye, view: View, size: int) -> Table:
    offset = (np.arange(size) + 0.5 - size / 2) / focal_length(size, view.fov)
    across, down = offset.astype(np.float32)[None], offset.astype(np.float32)[:, None]

    def rays(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        right, below, forward = (matrix @ view.rotation).T.astype(np.float32)
        x, y, z = (right[i] * across + (below[i] * down + forward[i]) for i in range(3))
        return x, y, z

    lengths = np.sqrt(across * across + (down * down + 1)) if _has_parallax(camera) else None
    return _table(camera, rays, lengths, (size, size), _alone(camera, view))


# Those of a scan of 24 views are kept, for two sizes; a view that is fitted to an object is rendered once.
_kept_table = lru_cache(maxsize=48)(_view_table)
_single_table = lru_cache(maxsize=2)(_view_table)


@lru_cache(maxsize=2)
def _panorama_table(camera: DualFisheye, width: int) -> Table:
    size = width, width // 2

    def rays(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = sphere.grid_dot((0, size[1]), (0, size[0]), size, matrix)
        return x, y, z

    lengths = np.ones((1, 1), np.float32) if _has_parallax(camera) else None
    return _table(camera, rays, lengths, (size[1], size[0]), None)


def _has_parallax(camera: DualFisheye) -> bool:
    return math.isfinite(camera.distance) and any(any(lens.translation) for lens in camera.lenses)


def _shift(camera: DualFisheye, lens: Lens) -> list[float]:
    """The lens's position in its own frame, as a share of the distance."""
    shift = lens.rotation.T @ np.array(lens.translation) / camera.distance
    return [float(value) for value in shift]


def _alone(camera: DualFisheye, view: View) -> int | None:
    """The lens that a view shows without the other one, if that is clear from its axis and half diagonal."""
    corner = math.atan(math.sqrt(2) * math.tan(view.fov / 2))
    reach = corner + camera.parallax
    off = [float(sphere.angle_between(lens.axis, view.axis)) for lens in camera.lenses]
    for i, lens in enumerate(camera.lenses):
        other = camera.lenses[1 - i]
        margin = lens.fov / 2 - off[i] - reach
        others = other.fov / 2 - off[1 - i] + reach
        if margin > 0 and margin - others > camera.blend:
            return i
    return None


def _table(
    camera: DualFisheye,
    rays: Rays,
    lengths: np.ndarray | None,
    size: tuple[int, int],
    alone: int | None,
) -> Table:
    """The table of an image.

    Args:
        camera: the camera.
        rays: the rays of its pixels.
        lengths: of these rays, broadcast to the image; needed only if there is parallax.
        size: (rows, columns).
        alone: the lens that shows the whole image; None: it is not known.
    """
    lenses = camera.lenses if alone is None else (camera.lenses[alone],)
    maps, margins = [], []
    for lens in lenses:
        x, y, z = rays(lens.rotation.T)
        if lengths is not None:
            x, y, z = (
                a - s * lengths for a, s in zip((x, y, z), _shift(camera, lens), strict=True)
            )
        u, v, margin = _lens_pixels(lens, x, y, z)
        maps.append((u, v))
        margins.append(margin)
    if alone is not None:
        part = _part(*maps[0], slice(0, size[0]), slice(0, size[1]))
        return Table(size, (_Band(slice(0, size[0]), (part,)),))
    weights = _weights(margins[0], margins[1], camera.blend)
    bands = [
        _band(maps, weights, slice(first, min(first + _BAND, size[0])))
        for first in range(0, size[0], _BAND)
    ]
    blind = (margins[0] <= 0) & (margins[1] <= 0)
    return Table(size, tuple(bands), blind if blind.any() else None)


def _band(
    maps: list[tuple[np.ndarray, np.ndarray]], weights: tuple[np.ndarray, np.ndarray], rows: slice
) -> _Band:
    """Some rows of a table; of each lens only the columns in which it has a weight."""
    parts = []
    for (u, v), weight in zip(maps, weights, strict=True):
        used = np.flatnonzero((weight[rows] > 0).any(0))
        if len(used):
            parts.append(_part(u, v, rows, slice(int(used[0]), int(used[-1]) + 1)))
    if len(parts) < 2:
        return _Band(rows, tuple(parts))
    one, other = (part.columns for part in parts)
    both = slice(max(one.start, other.start), min(one.stop, other.stop))
    if both.start >= both.stop:
        return _Band(rows, tuple(parts))
    cut = tuple(np.ascontiguousarray(weight[rows, both]) for weight in weights)
    return _Band(rows, tuple(parts), both, cut)


def _lens_pixels(lens: Lens, x: Any, y: Any, z: Any, module: Any = np) -> tuple[Any, Any, Any]:
    """Pixels (u, v) of rays, and their angle to the border of the lens's circle, in rad.

    The rays are float32 arrays of ``module``, numpy or torch, and so are the results.
    """
    across = module.sqrt(x * x + y * y)
    theta = arctan2(across, z) if module is np else module.arctan2(across, z)
    scale = lens.radius(theta) / (across + _LEAST_LENGTH)
    u = x * scale * lens.focal_length[0] + lens.centre[0]
    v = y * scale * lens.focal_length[1] + lens.centre[1]
    return u, v, lens.fov / 2 - theta


def _weights(margin: Any, other: Any, blend: float, module: Any = np) -> tuple[Any, Any]:
    """Weights of two lenses, 0 to 1, by the angles to the borders of their circles.

    The step from one to the other is where both borders are equally far, and as wide as ``blend``, or as
    the overlap where that is narrower.
    """
    width = module.clip(margin + other, _LEAST_BLEND, max(blend, _LEAST_BLEND))
    share = module.clip(0.5 + (margin - other) / (2 * width), 0, 1)
    return share * (margin > 0), (1 - share) * (other > 0)


def _part(u: np.ndarray, v: np.ndarray, rows: slice, columns: slice) -> _Part:
    # cv2.remap's coordinates have pixel centres at integers, ours at +0.5.
    x, y = (np.ascontiguousarray(a[rows, columns] - np.float32(0.5)) for a in (u, v))
    return _Part(columns, *cv2.convertMaps(x, y, cv2.CV_16SC2))


class TorchFisheyeRenderer:
    """Renders views of one picture on a torch device, where the picture stays.

    The views equal those of :class:`FisheyeRenderer` up to rounding.

    Args:
        picture: (H, W, 3) uint8.
        camera: the camera of a picture of this size.
        device: where the picture is kept; the copy to a GPU is asynchronous.
    """

    def __init__(self, picture: np.ndarray, camera: DualFisheye, device: torch.device) -> None:
        self._camera, self._device = camera, device
        pixels = torch.from_numpy(np.ascontiguousarray(picture))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        self._pixels = pixels.to(device, non_blocking=True)
        self._levels: dict[int, Tensor] = {}

    def render(self, view: View, size: int) -> Tensor:
        """The view, (size, size, 3) float32, 0 to 255, on the device.

        Its table is made anew each time: that takes a GPU less than its memory is worth.
        """
        times = halvings(self._camera.resolution, size / view.fov)
        level = self._level(times)
        height, width = level.shape[-2:]
        camera = self._camera if not times else self._camera.resized((width, height))
        shown = torch.zeros(3, size, size, device=self._device)
        for grid, weight in _device_table(camera, view, size, self._device):
            sampled = F.grid_sample(level, grid, padding_mode="border", align_corners=False)
            shown += sampled[0] * weight
        return shown.permute(1, 2, 0)

    def _level(self, times: int) -> Tensor:
        """The picture (1, 3, H, W), halved some times."""
        if times not in self._levels:
            image = self._pixels.permute(2, 0, 1)[None].float()
            height, width = (side >> times for side in image.shape[-2:])
            if times:
                image = F.interpolate(image, size=(height, width), mode="area")
            self._levels[times] = image
        return self._levels[times]


def _device_table(
    camera: DualFisheye, view: View, size: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """By lens, ``grid_sample``'s coordinates (1, S, S, 2) of a view, and the lens's weight (S, S)."""
    offset = (torch.arange(size, device=device) + 0.5 - size / 2) / focal_length(size, view.fov)
    across, down = offset[None], offset[:, None]
    lengths = torch.sqrt(across * across + down * down + 1)
    alone = _alone(camera, view)
    grids, margins = [], []
    for lens in camera.lenses if alone is None else (camera.lenses[alone],):
        right, below, forward = (lens.rotation.T @ view.rotation).T.tolist()
        x, y, z = (
            right[i] * across + below[i] * down + forward[i] - shift * lengths
            for i, shift in enumerate(_shift(camera, lens))
        )
        u, v, margin = _lens_pixels(lens, x, y, z, torch)
        width, height = camera.picture_size
        grids.append(torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], -1)[None])
        margins.append(margin)
    if alone is not None:
        return [(grids[0], torch.ones(1, 1, device=device))]
    return list(zip(grids, _weights(margins[0], margins[1], camera.blend, torch), strict=True))
