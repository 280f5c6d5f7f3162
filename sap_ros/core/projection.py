"""Renders views from a panorama, and fuses what was found in the views back onto it.

A yaw is a horizontal shift of the panorama, so one look-up table a pitch row serves all columns.
Tables depend on sizes alone and are kept: nothing is rebuilt for a new image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Literal

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.trajectory import View, direction_to_view, sees, view_to_direction

Fusion = Literal["max", "weighted"]

#: Mask logit of a direction that no view has seen, and of an object that is not in a view (SAM 2's).
NO_OBJECT = -1024.0

# Logits beyond this are certain either way; the weighted mean must not be ruled by one -1024.
_CERTAIN = 10.0


def check_panorama(image: np.ndarray) -> None:
    """Raises ValueError unless ``image`` is (H, 2H, 3) uint8 with H from 256 to 4096."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the panorama is {image.dtype} of shape {image.shape}; it must be uint8, (H, 2H, 3)"
        )
    height, width = image.shape[:2]
    if width != 2 * height:
        raise ValueError(
            f"the panorama is {width}x{height}; an equirectangular panorama is twice as wide as high"
        )
    if not 256 <= height <= 4096:
        raise ValueError(f"the panorama is {width}x{height}; 512x256 to 8192x4096 can be used")


class ViewRenderer:
    """Renders views of one panorama.

    Args:
        image: panorama, (H, 2H, channels) or (H, 2H), of a type that cv2.remap takes.
        size: side of a view, in pixels.
        fov: field of view of a view, in degrees.
        labels: the image holds labels: they are picked, not mixed.

    A panorama at least twice as fine as the views is first reduced by area, so that views do not
    alias.
    """

    def __init__(self, image: np.ndarray, size: int, fov: float, labels: bool = False) -> None:
        self.size, self.fov = size, fov
        self._interpolation = cv2.INTER_NEAREST if labels else cv2.INTER_LINEAR
        fitting = 8 * round(size * 360 / fov / 8)
        if not labels and image.shape[1] >= 2 * fitting:
            image = cv2.resize(image, (fitting, fitting // 2), interpolation=cv2.INTER_AREA)
        self.width, self.height = image.shape[1], image.shape[0]
        # Written twice side by side, every yaw is a window of it; a row beyond each pole continues
        # the image on the opposite meridian.
        beyond = np.roll(image[[0, -1]], self.width // 2, axis=1)
        image = np.concatenate([beyond[:1], image, beyond[1:]])
        self._twice = np.concatenate([image, image, image[:, :2]], axis=1)

    def render(self, view: View) -> np.ndarray:
        """The view, (size, size, channels) or (size, size)."""
        shift, fraction = _yaw_shift(view.yaw, self.width)
        panorama = (self.width, self.height)
        x, y = _render_table(view.pitch, fraction, self.size, self.fov, panorama)
        window = self._twice[:, shift : shift + self.width + 2]
        return cv2.remap(window, x, y, self._interpolation, borderMode=cv2.BORDER_REPLICATE)


def _yaw_shift(yaw: float, width: int) -> tuple[int, float]:
    """A yaw as a shift of the panorama to the right: whole pixels in [0, width), and the rest."""
    shift = round(-yaw / (2 * np.pi) * width, 6) % width
    return int(shift) % width, shift - int(shift)


@lru_cache(maxsize=64)
def _render_table(
    pitch: float, fraction: float, size: int, fov: float, panorama: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """cv2.remap tables of a view at yaw 0 into a panorama with one more row above it.

    The panorama is read from the column that the yaw's whole shift moved to 0.
    """
    v, u = np.mgrid[:size, :size] + 0.5
    directions = view_to_direction(np.stack([u, v], -1), View(0.0, pitch), size, fov)
    pixels = sphere.direction_to_pixel(directions, panorama)
    # A cv2.remap coordinate is an index: that of a pixel's centre, less 0.5.
    x = pixels[..., 0] + fraction - 0.5
    x = np.where(x < 0, x + panorama[0], x)
    y = pixels[..., 1] - 0.5 + 1
    return x.astype(np.float32), y.astype(np.float32)


class Canvas:
    """Collects one object's mask logits from many views, or crops, on the panorama.

    Args:
        size: the panorama's (width, height).
        fusion: ``max`` (the method) or ``weighted``: the mean, weighted by nearness to the centre
            of each view, so that one view's error at its rim does not rule.

    Raises:
        ValueError: an unknown ``fusion``.
    """

    def __init__(self, size: tuple[int, int], fusion: Fusion = "max") -> None:
        if fusion not in ("max", "weighted"):
            raise ValueError(f"fusion is {fusion!r}; it must be 'max' or 'weighted'")
        self.size = size
        shape = size[1], size[0]
        self._sum = np.full(shape, 0 if fusion == "weighted" else NO_OBJECT, np.float32)
        self._weights = np.zeros(shape, np.float32) if fusion == "weighted" else None

    def add(
        self, logits: np.ndarray, top: int, left: int, nearness: Callable[[], np.ndarray]
    ) -> None:
        """Adds a rectangle of logits.

        Args:
            logits: (rows, columns) float32.
            top: its first row.
            left: its first column, of any turn: it may lie across the seam.
            nearness: gives (rows, columns), 0 where the view does not look, up to 1 at its centre;
                asked for only where the fusion is weighted.
        """
        rows = slice(top, top + len(logits))
        for here, there in _wrapped(left, logits.shape[1], self.size[0]):
            target, values = self._sum[rows, there], logits[:, here]
            if self._weights is None:
                np.maximum(target, values, out=target)
            else:
                near = nearness()[:, here]
                target += near * np.clip(values, -_CERTAIN, _CERTAIN)
                self._weights[rows, there] += near

    def add_view(self, view: View, mask: np.ndarray, view_size: int, fov: float) -> None:
        """Adds a view's mask logits.

        Args:
            view: where the camera looked.
            mask: (n, n) float32, n the view's size or a coarser grid over the same square (SAM 2's
                low-resolution masks have a quarter of its size).
            view_size: side of the view, in pixels.
            fov: its field of view, in degrees.
        """
        if self._weights is None and mask.max() <= NO_OBJECT:
            return
        shift, fraction = _yaw_shift(view.yaw, self.size[0])
        footprint = _footprint(view.pitch, fraction, view_size, fov, self.size)
        seen = footprint.look_up(cv2.resize(mask, (view_size, view_size)))
        self.add(seen, footprint.top, footprint.left + shift, lambda: footprint.nearness)

    def logits(self) -> np.ndarray:
        """(H, W) float32; ``NO_OBJECT`` where no view looked."""
        if self._weights is None:
            return self._sum
        mean = np.full_like(self._sum, NO_OBJECT)
        return np.divide(self._sum, self._weights, out=mean, where=self._weights > 0)


def _wrapped(start: int, length: int, width: int) -> list[tuple[slice, slice]]:
    """Where ``length`` columns from ``start`` on lie in a panorama: (columns, panorama columns)."""
    start %= width
    first = min(length, width - start)
    parts = [(slice(0, first), slice(start, start + first))]
    if first < length:
        parts.append((slice(first, length), slice(0, length - first)))
    return parts


class _Footprint:
    """Where a view at yaw 0 lies on the panorama, and what of the view each panorama pixel shows.

    ``top``, ``left``: first row and column of its bounding rectangle.
    """

    def __init__(
        self, pitch: float, fraction: float, view_size: int, fov: float, size: tuple[int, int]
    ) -> None:
        width, height = size
        view = View(0.0, pitch)
        self.top, bottom = _row_span(view, view_size, fov, height)
        # Offsets from the view's centre, as a share of half its side: (rows, W) each.
        offsets = np.empty((2, bottom - self.top, width), np.float32)
        u = np.arange(width) + 0.5 - fraction
        for row in range(self.top, bottom):
            pixel = np.stack([u, np.full(width, row + 0.5)], axis=-1)
            in_view = direction_to_view(
                sphere.pixel_to_direction(pixel, size), view, view_size, fov
            )
            offsets[:, row - self.top] = (in_view / (view_size / 2) - 1).T
        # Half a pixel beyond the centres of the outermost pixels is still theirs.
        reached = np.flatnonzero((np.abs(offsets).max(0) <= 1).any(0))
        self.left = int(reached[0])
        offsets = offsets[:, :, self.left : int(reached[-1]) + 1]
        self._off_centre = np.abs(offsets).max(0)
        index = np.clip((offsets + 1) * (view_size / 2) - 0.5, 0, view_size - 1)
        index[:, self._off_centre > 1] = -1000  # far from the image: the border's value
        self._coarse, self._fine = cv2.convertMaps(index[0], index[1], cv2.CV_16SC2)

    def look_up(self, image: np.ndarray) -> np.ndarray:
        """A view's (size, size) logits at the rectangle's pixels; ``NO_OBJECT`` outside the view."""
        return cv2.remap(
            image,
            self._coarse,
            self._fine,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=NO_OBJECT,
        )

    @cached_property
    def nearness(self) -> np.ndarray:
        """1 at the view's centre, falling to almost 0 at its border, 0 outside."""
        near = np.maximum(1 - self._off_centre, 1e-3)
        return np.where(self._off_centre <= 1, near, 0).astype(np.float32)


_footprint = lru_cache(maxsize=16)(_Footprint)


def _row_span(view: View, view_size: int, fov: float, height: int) -> tuple[int, int]:
    """First row of the panorama that a view reaches, and the row after the last."""
    edge = np.linspace(0, view_size, 101)
    near, far = np.zeros_like(edge), np.full_like(edge, view_size)
    border = np.stack(
        [np.concatenate([edge, edge, near, far]), np.concatenate([near, far, edge, edge])], axis=-1
    )
    _, elevation = sphere.direction_to_angles(view_to_direction(border, view, view_size, fov))
    up, down = sees(view, np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), fov, slack=1e-6)
    top = np.pi / 2 if up else elevation.max()
    low = -np.pi / 2 if down else elevation.min()
    return (
        max(0, math.floor((0.5 - top / np.pi) * height) - 1),
        min(height, math.ceil((0.5 - low / np.pi) * height) + 1),
    )
