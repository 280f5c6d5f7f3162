"""Renders views from a panorama, and fuses what was found in the views back onto it.

A yaw is a horizontal shift of the panorama, so one look-up table a pitch row serves all columns.
The tables of a scan depend on sizes alone and are kept: nothing is rebuilt for a new image. Fusion
touches the part of the panorama alone in which a view may have found the object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.trajectory import View, focal_length, sees, view_to_direction

Fusion = Literal["max", "weighted"]

#: Mask logit of a direction that no view has seen, and of an object that is not in a view (SAM 2's).
NO_OBJECT = -1024.0

# Pixels of the panorama that are worked on at a time: what is held meanwhile is some times as large.
_BLOCK = 1 << 20

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
        labels: the image holds labels: they are picked, not mixed.

    A panorama at least twice as fine as a view is first reduced by area, by a power of two, so that
    views do not alias; a view with a narrow field of view is taken from a finer one.
    """

    def __init__(self, image: np.ndarray, size: int, labels: bool = False) -> None:
        self.size, self._labels = size, labels
        self._image = image
        self._levels: dict[int, _Level] = {}

    def render(self, view: View, keep: bool = True) -> np.ndarray:
        """The view, (size, size, channels) or (size, size).

        Args:
            view: which.
            keep: keeps its look-up table, which serves all views of its pitch: for those of a scan.
        """
        level = self._level(view.fov)
        region, (coarse, fine) = self.table(view, keep)
        how = cv2.INTER_NEAREST if self._labels else cv2.INTER_LINEAR
        return cv2.remap(level.cut(region), coarse, fine, how, borderMode=cv2.BORDER_REPLICATE)

    def table(self, view: View, keep: bool = True) -> tuple[Region, tuple[np.ndarray, np.ndarray]]:
        """The part of the panorama that a view shows, and cv2.remap's tables from there."""
        height, width = self._level(view.fov).image.shape[:2]
        table = _render_table if keep else _own_table
        shift, fraction = _yaw_shift(view.yaw, width)
        here = View(-2 * np.pi * fraction / width, view.pitch, view.fov)
        region = _surroundings(here, self.size, width, height)
        moved = Region(region.top, region.left + shift, region.rows, region.columns)
        return moved, table(here, self.size, region, (width, height))

    def _level(self, fov: float) -> _Level:
        fitting = self.size * 360 / fov
        halvings = max(0, math.floor(math.log2(self._image.shape[1] / fitting) + 1e-6))
        if self._labels:
            halvings = 0
        if halvings not in self._levels:
            height = self._image.shape[0] >> halvings
            image = self._image
            if halvings:
                image = cv2.resize(image, (2 * height, height), interpolation=cv2.INTER_AREA)
            self._levels[halvings] = _Level(image)
        return self._levels[halvings]


class _Level:
    """A panorama of which any part can be cut out, across the seam and the poles."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def cut(self, region: Region) -> np.ndarray:
        """A region that may reach a row beyond the poles, if it does over the whole width."""
        width = self.image.shape[1]
        left = region.left % width
        if region.columns > width:
            return self._twice[:, left : left + region.columns]
        rows = self.image[region.top : region.top + region.rows]
        if left + region.columns <= width:
            return rows[:, left : left + region.columns]
        return np.concatenate([rows[:, left:], rows[:, : left + region.columns - width]], axis=1)

    @cached_property
    def _twice(self) -> np.ndarray:
        # Written twice side by side, every yaw is a window of it; a row beyond each pole continues
        # the image on the opposite meridian.
        height, width = self.image.shape[:2]
        twice = np.empty((height + 2, 2 * width + 2, *self.image.shape[2:]), self.image.dtype)
        for left in (0, width):
            twice[1:-1, left : left + width] = self.image
            for row in (0, -1):
                twice[row, left : left + width] = np.roll(self.image[row], width // 2, axis=0)
        twice[:, 2 * width :] = twice[:, :2]
        return twice


def _yaw_shift(yaw: float, width: int) -> tuple[int, float]:
    """A yaw as a shift of the panorama to the right: whole pixels in [0, width), and the rest."""
    shift = round(-yaw / (2 * np.pi) * width, 6) % width
    return int(shift) % width, shift - int(shift)


@dataclass(frozen=True)
class Region:
    """A rectangle of the panorama. ``left`` may be of any turn: it may lie across the seam."""

    top: int
    left: int
    rows: int
    columns: int

    def parts(self, width: int) -> list[tuple[slice, slice]]:
        """Its columns as one or two runs: (columns of the rectangle, columns of the panorama)."""
        return _wrapped(self.left, self.columns, width)

    def read(self, image: np.ndarray) -> np.ndarray:
        """That part of a panorama (H, W), (rows, columns)."""
        rows = image[self.top : self.top + self.rows]
        return np.concatenate([rows[:, there] for _, there in self.parts(image.shape[1])], axis=1)


@lru_cache(maxsize=64)
def _surroundings(view: View, size: int, width: int, height: int) -> Region:
    """The part of a panorama that a view of ``size`` pixels is rendered from.

    Where that is all round, it is two columns wider than the panorama and a row higher at each end.
    """
    left, right = _column_span(view, size, width)
    if right - left > width // 2:
        return Region(-1, 0, height + 2, width + 2)
    top, bottom = _row_span(view, size, height)
    return Region(top, left, bottom - top, right - left)


@lru_cache(maxsize=16)
def _render_table(
    view: View, size: int, region: Region, panorama: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """cv2.remap's fixed-point tables of a view into a region of a panorama."""
    # Rays of any length, in float32: exact to a thousandth of a pixel, and three times as fast.
    offset = (np.arange(size) + 0.5 - size / 2) / focal_length(size, view.fov)
    right, down, forward = view.rotation.T.astype(np.float32)
    across = offset.astype(np.float32)[None, :, None] * right
    rays = across + (offset.astype(np.float32)[:, None, None] * down + forward)
    pixels = sphere.direction_to_pixel(rays, panorama)
    # A cv2.remap coordinate is an index: that of a pixel's centre, less 0.5.
    x = np.mod(pixels[..., 0] - 0.5 - region.left, panorama[0])
    y = pixels[..., 1] - 0.5 - region.top
    return cv2.convertMaps(x.astype(np.float32), y.astype(np.float32), cv2.CV_16SC2)


# A view of an object's own is rendered once, or once more from a mask.
_own_table = lru_cache(maxsize=2)(_render_table.__wrapped__)


class Canvas:
    """Collects one object's mask logits from many views, or crops, on the panorama.

    Args:
        size: the panorama's (width, height).
        fusion: ``max`` (the method) or ``weighted``: the mean, weighted by nearness to the centre
            of each view, so that one view's error at its rim does not rule.
        region: the part of the panorama that is collected; None: all.

    Raises:
        ValueError: an unknown ``fusion``.
    """

    def __init__(
        self, size: tuple[int, int], fusion: Fusion = "max", region: Region | None = None
    ) -> None:
        if fusion not in ("max", "weighted"):
            raise ValueError(f"fusion is {fusion!r}; it must be 'max' or 'weighted'")
        self.size = size
        self.region = region or Region(0, 0, size[1], size[0])
        shape = self.region.rows, self.region.columns
        self._sum = np.full(shape, 0 if fusion == "weighted" else NO_OBJECT, np.float32)
        self._weights = np.zeros(shape, np.float32) if fusion == "weighted" else None

    def add(
        self, logits: np.ndarray, top: int, left: int, nearness: Callable[[], np.ndarray]
    ) -> None:
        """Adds a rectangle of logits.

        Args:
            logits: (rows, columns) float32.
            top: its first row, of the region.
            left: its first column, of the region; where that is all round, of any turn.
            nearness: gives (rows, columns), 0 where the view does not look, up to 1 at its centre;
                asked for only where the fusion is weighted.
        """
        rows = slice(top, top + len(logits))
        for here, there in _wrapped(left, logits.shape[1], self.region.columns):
            target, values = self._sum[rows, there], logits[:, here]
            if self._weights is None:
                np.maximum(target, values, out=target)
            else:
                near = nearness()[:, here]
                target += near * np.clip(values, -_CERTAIN, _CERTAIN)
                self._weights[rows, there] += near

    def add_view(self, view: View, mask: np.ndarray, view_size: int) -> None:
        """Adds a view's mask logits.

        Args:
            view: where the camera looked.
            mask: (n, n) float32, n the view's size or a coarser grid over the same square (SAM 2's
                low-resolution masks have a quarter of its size).
            view_size: side of the view, in pixels.
        """
        if self._weights is None and mask.max() <= NO_OBJECT:
            return
        width, height = self.size
        first, last = _row_span(view, view_size, height)
        top, bottom = (
            min(max(row - self.region.top, 0), self.region.rows) for row in (first, last)
        )
        left, right = 0, self.region.columns
        if self.region.columns == width:
            left, right = _column_span(view, view_size, width)
            left, right = left - self.region.left, right - self.region.left
        block = max(1, _BLOCK // (right - left))
        mask = cv2.resize(mask, (view_size, view_size))
        mask = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        for first in range(top, bottom, block):
            self._add_rows(view, mask, (first, min(first + block, bottom)), left, right)

    def _add_rows(
        self,
        view: View,
        mask: np.ndarray,
        rows: tuple[int, int],
        left: int,
        right: int,
    ) -> None:
        """Adds a view's logits, with a border of one, on some rows and columns of the region."""
        size = len(mask) - 2
        above, beside = self.region.top, self.region.left
        x, y, z = sphere.grid_dot(
            (rows[0] + above, rows[1] + above),
            (left + beside, right + beside),
            self.size,
            view.rotation.T,
        )
        behind = z < 1e-6
        z[behind] = 1
        # Offsets from the view's centre, as a share of half its side.
        np.divide(focal_length(size, view.fov) / (size / 2), z, out=z)
        x *= z
        y *= z
        off_centre = np.maximum(np.abs(x), np.abs(y))
        # Half a pixel beyond the centres of the outermost pixels is still theirs.
        outside = behind | (off_centre > 1)
        for offset in (x, y):  # to the index in the mask
            offset += 1
            offset *= size / 2
            offset += 0.5
        x[outside] = -1000.0  # far from the image: the border's value
        inside = cv2.remap(
            mask,
            x,
            y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=NO_OBJECT,
        )

        def nearness() -> np.ndarray:
            near = np.maximum(1 - off_centre, np.float32(1e-3))
            near[outside] = 0
            return near

        self.add(inside, rows[0], left, nearness)

    def logits(self) -> np.ndarray:
        """(rows, columns) of the region, float32; ``NO_OBJECT`` where no view looked."""
        if self._weights is None:
            return self._sum
        mean = np.full_like(self._sum, NO_OBJECT)
        return np.divide(self._sum, self._weights, out=mean, where=self._weights > 0)


def reached(
    masks: Sequence[tuple[View, np.ndarray]], view_size: int, size: tuple[int, int]
) -> Region | None:
    """The part of a panorama in which masks (n, n) of views are positive; None: nowhere."""
    width, height = size
    first, last = height, 0
    hit = np.zeros(width, bool)
    for view, mask in masks:
        grid = len(mask)
        v, u = np.nonzero(cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8)))
        if not len(v):
            continue
        pixels = (np.stack([u, v], -1) + 0.5) * (view_size / grid)
        directions = view_to_direction(pixels, view, view_size)
        cell = math.radians(view.fov) / grid * 2  # with a margin
        pixels = sphere.direction_to_pixel(directions, size)
        beside = cell / (2 * np.pi) * width
        above = math.ceil(cell / np.pi * height) + 1
        first = min(first, int(pixels[:, 1].min()) - above)
        last = max(last, int(pixels[:, 1].max()) + above + 1)
        level = np.hypot(directions[:, 0], directions[:, 1])
        if level.min() < 3 * cell:  # a pole is near: all round
            hit[:] = True
            continue
        reach = (beside / level + 1).astype(int)
        columns = pixels[:, 0].astype(int)
        # A run about each cell: +1 where it begins, -1 behind its end, summed up.
        steps = np.zeros(3 * width + 1, np.int64)
        np.add.at(steps, columns - reach + width, 1)
        np.add.at(steps, columns + reach + 1 + width, -1)
        hit |= steps.cumsum()[:-1].reshape(3, width).any(0)
    if not hit.any():
        return None
    top, bottom = max(first, 0), min(last, height)
    columns = np.flatnonzero(hit)
    gaps = np.diff(columns, append=columns[0] + width)
    widest = int(gaps.argmax())
    if gaps[widest] <= width // 8:
        return Region(top, 0, bottom - top, width)
    left = int(columns[(widest + 1) % len(columns)])
    return Region(top, left, bottom - top, width - int(gaps[widest]) + 1)


def _wrapped(start: int, length: int, width: int) -> list[tuple[slice, slice]]:
    """Where ``length`` columns from ``start`` on lie in a panorama: (columns, panorama columns)."""
    start %= width
    first = min(length, width - start)
    parts = [(slice(0, first), slice(start, start + first))]
    if first < length:
        parts.append((slice(first, length), slice(0, length - first)))
    return parts


def _border(view: View, size: int) -> np.ndarray:
    """Directions (404, 3) along a view's border."""
    edge = np.linspace(0, size, 101)
    near, far = np.zeros_like(edge), np.full_like(edge, size)
    border = np.stack(
        [np.concatenate([edge, edge, near, far]), np.concatenate([near, far, edge, edge])], axis=-1
    )
    return view_to_direction(border, view, size)


def _poles(view: View) -> np.ndarray:
    """Whether the upper and the lower pole are in a view, (2,)."""
    return sees(view, np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), slack=1e-6)


def _row_span(view: View, size: int, height: int) -> tuple[int, int]:
    """First row of the panorama that a view of ``size`` pixels reaches, and the row after the last."""
    _, elevation = sphere.direction_to_angles(_border(view, size))
    up, down = _poles(view)
    top = np.pi / 2 if up else elevation.max()
    low = -np.pi / 2 if down else elevation.min()
    return (
        max(0, math.floor((0.5 - top / np.pi) * height) - 1),
        min(height, math.ceil((0.5 - low / np.pi) * height) + 1),
    )


def _column_span(view: View, size: int, width: int) -> tuple[int, int]:
    """First column, of any turn, that a view of ``size`` pixels reaches, and the one after the last."""
    if _poles(view).any():
        return 0, width
    azimuth, _ = sphere.direction_to_angles(_border(view, size))
    off = np.mod(azimuth - view.yaw + np.pi, 2 * np.pi) - np.pi
    left = math.floor((0.5 - (view.yaw + off.max()) / (2 * np.pi)) * width) - 1
    right = math.ceil((0.5 - (view.yaw + off.min()) / (2 * np.pi)) * width) + 1
    return (left, right) if right - left < width else (0, width)
