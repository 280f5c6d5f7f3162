"""Renders views from a panorama: with cv2.remap on the CPU, with ``grid_sample`` on a torch device.

A yaw is a horizontal shift of the panorama, so all columns of a scan share one look-up table per pitch; in a
tilted panorama each view has its own.
The tables depend only on sizes and are kept for further images.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sap_ros.core import sphere
from sap_ros.core.camera import View, column_span, focal_length, row_span
from sap_ros.core.panorama import Region

# Side of the tiles that a panorama is reduced in, in pixels.
_TILE = 128


class ViewRenderer:
    """Renders views of one panorama.

    Args:
        image: panorama, (H, 2H, channels) or (H, 2H), of a type that cv2.remap takes.
        size: side of a view, in pixels.
        labels: the image holds labels: each pixel takes the nearest label, without interpolation.

    A panorama with at least twice the resolution of a view is first reduced by a power of two, by area
    averaging, against aliasing; a narrower view is rendered from a less reduced panorama.
    """

    def __init__(self, image: np.ndarray, size: int, labels: bool = False) -> None:
        self.size, self._labels = size, labels
        self._image = image
        self._levels: dict[int, _Level] = {}

    def render(self, view: View, keep: bool = True) -> np.ndarray:
        """The view, (size, size, channels) or (size, size).

        Args:
            view: the view.
            keep: keep the look-up table, which all views with the same pitch, roll and field of view share;
                for the views of a scan.
        """
        level = self._level(view.fov)
        region, (coarse, fine) = self.table(view, keep)
        how = cv2.INTER_NEAREST if self._labels else cv2.INTER_LINEAR
        shown = level.cut(region, keep)
        return cv2.remap(shown, coarse, fine, how, borderMode=cv2.BORDER_REPLICATE)

    def table(self, view: View, keep: bool = True) -> tuple[Region, tuple[np.ndarray, np.ndarray]]:
        """The part of the panorama that a view shows, and the view's cv2.remap tables for that part."""
        height, width = self._level(view.fov).image.shape[:2]
        table = _render_table if keep else _single_table
        shift, fraction = _yaw_shift(view.yaw, width)
        at_zero = View(-2 * np.pi * fraction / width, view.pitch, view.fov, view.roll)
        region = _surroundings(at_zero, self.size, width, height)
        moved = Region(region.top, region.left + shift, region.rows, region.columns)
        return moved, table(at_zero, self.size, region, (width, height))

    def _level(self, fov: float) -> _Level:
        return self._halved(0 if self._labels else _halvings(self._image.shape[1], self.size, fov))

    def _halved(self, times: int) -> _Level:
        # Repeated halving takes a third of the time of reducing to a quarter at once; rounding differs by
        # one at most.
        if times not in self._levels:
            self._levels[times] = _Half(self._halved(times - 1)) if times else _Level(self._image)
        return self._levels[times]


class _Level:
    """A panorama, possibly reduced, from which any region can be cut out, across seam and poles too."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self._kept: dict[tuple[int, int], np.ndarray] = {}

    def cut(self, region: Region, keep: bool) -> np.ndarray:
        """The pixels of a region; one of full width may extend one row beyond each pole.

        Args:
            region: the region.
            keep: one of full width is cut from two copies of its rows side by side, which are kept: the views of a
                scan, which differ in yaw, are windows of them.
        """
        width = self.image.shape[1]
        left, rows = region.left % width, (region.top, region.top + region.rows)
        right = left + region.columns
        if region.columns > width and keep:
            if rows not in self._kept:
                self._kept[rows] = self._all_round(rows, 0, width + region.columns)
            return self._kept[rows][:, left:right]
        if region.columns > width:
            return self._all_round(rows, left, region.columns)
        if right <= width:
            return self.pixels(rows, (left, right))
        parts = [self.pixels(rows, columns) for columns in ((left, width), (0, right - width))]
        return np.concatenate(parts, axis=1)

    def pixels(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """A rectangle that does not cross the seam, from the first row and column to before the second."""
        return self.image[slice(*rows), slice(*columns)]

    def _all_round(self, rows: tuple[int, int], left: int, columns: int) -> np.ndarray:
        # More columns than the panorama has, from any one on. A row beyond a pole continues the image on the
        # opposite meridian.
        height, width = self.image.shape[:2]
        image = self.pixels((max(rows[0], 0), min(rows[1], height)), (0, width))
        cut = np.empty((rows[1] - rows[0], columns, *image.shape[2:]), image.dtype)
        inside = cut[max(-rows[0], 0) :][: len(image)]
        inside[:, : width - left] = image[:, left:]
        inside[:, width - left : width] = image[:, :left]
        if rows[0] < 0:
            cut[0, :width] = np.roll(cut[1, :width], width // 2, axis=0)
        if rows[1] > height:
            cut[-1, :width] = np.roll(cut[-2, :width], width // 2, axis=0)
        for start in range(width, columns, width):
            cut[:, start : start + width] = cut[:, : min(width, columns - start)]
        return cut


class _Half(_Level):
    """A level of half the size of another one, made in tiles when they are first needed.

    A view needs a small part of the panorama; all of a 4K panorama takes a tenth of the time of an answer.
    """

    def __init__(self, whole: _Level) -> None:
        height = whole.image.shape[0] // 2
        super().__init__(np.empty((height, 2 * height, *whole.image.shape[2:]), whole.image.dtype))
        self._whole = whole
        # From an odd number of rows, a pixel is made of more than the four in its place: in one piece then.
        self._tile = 2 * height if whole.image.shape[0] % 2 else _TILE
        counts = (-(-side // self._tile) for side in self.image.shape[:2])
        self._missing = np.ones(tuple(counts), bool)

    def pixels(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """See :meth:`_Level.pixels`."""
        first = np.array([rows[0], columns[0]]) // self._tile
        last = -(-np.array([rows[1], columns[1]]) // self._tile)
        missing = np.argwhere(self._missing[first[0] : last[0], first[1] : last[1]])
        if len(missing):
            self._make(first + missing.min(0), first + missing.max(0) + 1)
        return super().pixels(rows, columns)

    def _make(self, first: np.ndarray, last: np.ndarray) -> None:
        """Makes the tiles from the first row and column to before the last."""
        self._missing[first[0] : last[0], first[1] : last[1]] = False
        top, left = (int(side) for side in first * self._tile)
        bottom, right = (int(side) for side in last * self._tile)
        tiles = super().pixels((top, bottom), (left, right))
        height, width = self.image.shape[:2]
        end = self._whole.image.shape
        rows = 2 * top, 2 * bottom if bottom < height else end[0]
        columns = 2 * left, 2 * right if right < width else end[1]
        source = self._whole.pixels(rows, columns)
        cv2.resize(source, tiles.shape[1::-1], dst=tiles, interpolation=cv2.INTER_AREA)


def arctan2(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """numpy's arctan2 of float32 arrays, by torch: in a tenth of the time."""
    return torch.atan2(torch.from_numpy(y), torch.from_numpy(x)).numpy()


def halvings(resolution: float, wanted: float) -> int:
    """How many times an image is halved before it is sampled at another resolution, both in pixels per rad."""
    return max(0, math.floor(math.log2(resolution / wanted) + 1e-6))


def _halvings(width: int, size: int, fov: float) -> int:
    """How many times a panorama is halved before a view of ``size`` pixels and ``fov`` rad is rendered."""
    return halvings(width / (2 * math.pi), size / fov)


def _yaw_shift(yaw: float, width: int) -> tuple[int, float]:
    """A yaw as a shift of the panorama to the right: whole pixels in [0, width), and the fraction."""
    shift = round(-yaw / (2 * np.pi) * width, 6) % width
    return int(shift) % width, shift - int(shift)


@lru_cache(maxsize=64)
def _surroundings(view: View, size: int, width: int, height: int) -> Region:
    """The part of a panorama that a view of ``size`` pixels is rendered from.

    A part of full width has two more columns than the panorama, and one more row at a pole that it reaches,
    for interpolation.
    """
    left, right = column_span(view, size, width)
    top, bottom = row_span(view, size, height)
    if right - left > width // 2:
        top, bottom = top - (top == 0), bottom + (bottom == height)
        left, right = 0, width + 2
    return Region(top, left, bottom - top, right - left)


# Those of a tilted scan of 24 views are kept.
@lru_cache(maxsize=32)
def _render_table(
    view: View, size: int, region: Region, panorama: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed-point tables for cv2.remap, from the pixels of a view to those of a panorama's region."""
    # Rays are not normalised, and float32: exact to a thousandth of a pixel, and three times as fast.
    offset = (np.arange(size) + 0.5 - size / 2) / focal_length(size, view.fov)
    offset = offset.astype(np.float32)
    right, down, forward = view.rotation.T.astype(np.float32)[..., None]
    x, y, z = (right[i] * offset + (down[i] * offset + forward[i])[:, None] for i in range(3))
    u, v = sphere.components_to_pixel(x, y, z, panorama, arctan2)
    # cv2.remap's coordinates have pixel centres at integers, ours at +0.5.
    u -= np.float32(0.5 + region.left)
    turns = np.floor(u / np.float32(panorama[0]))
    turns *= panorama[0]
    u -= turns
    v -= np.float32(0.5 + region.top)
    return cv2.convertMaps(u, v, cv2.CV_16SC2)


# A view that is fitted to an object is rendered once, or twice (image and mask), so few tables are kept.
_single_table = lru_cache(maxsize=2)(_render_table.__wrapped__)


class TorchRenderer:
    """Renders views of one panorama on a torch device, where the panorama stays.

    The views equal those of :class:`ViewRenderer` up to rounding. The host never waits for the device.

    Args:
        image: panorama, (H, 2H, 3) uint8.
        size: side of a view, in pixels.
        device: where the panorama is kept; the copy to a GPU is asynchronous.
    """

    def __init__(self, image: np.ndarray, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        self._pixels = pixels.to(device, non_blocking=True)
        self._levels: dict[int, Tensor] = {}

    def render(self, view: View, keep: bool = True) -> Tensor:
        """The view, (S, S, 3) float32, 0 to 255, on the device; ``keep`` as in ViewRenderer."""
        level = self._level(view.fov)
        height, width = level.shape[-2] - 2, level.shape[-1] - 2
        table = _grid if keep else _grid.__wrapped__
        x, y = table(view.pitch, view.roll, self.size, view.fov, (width, height), self.device)
        x = torch.remainder(x - view.yaw / (2 * math.pi) * width, width)
        # grid_sample's coordinates: -1 to 1 between the outermost pixel centres; the level has a border of
        # one pixel.
        grid = torch.stack([(x + 0.5) / (width + 1), (y + 0.5) / (height + 1)], -1) * 2 - 1
        shown = F.grid_sample(level, grid[None], align_corners=True)
        return shown[0].permute(1, 2, 0)

    def _level(self, fov: float) -> Tensor:
        """The panorama (1, 3, H + 2, W + 2), reduced for a field of view in rad."""
        width = self._pixels.shape[1]
        times = _halvings(width, self.size, fov)
        if times not in self._levels:
            image = self._pixels.permute(2, 0, 1)[None].float()
            height = image.shape[-2] >> times
            if times:
                image = F.interpolate(image, size=(height, 2 * height), mode="area")
            # Beyond a pole the image continues on the opposite meridian, beyond a side at the other side.
            poles = [torch.roll(image[..., row, :], height, -1)[..., None, :] for row in (0, -1)]
            image = torch.cat([poles[0], image, poles[1]], dim=-2)
            self._levels[times] = F.pad(image, (1, 1, 0, 0), mode="circular")
        return self._levels[times]


@lru_cache(maxsize=32)
def _grid(
    pitch: float,
    roll: float,
    size: int,
    fov: float,
    panorama: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Panorama pixels (x, y), (S, S) each, of a view at yaw 0."""
    offset = (torch.arange(size, device=device) + 0.5 - size / 2) / focal_length(size, fov)
    right, down = offset[None], offset[:, None]
    if roll:
        sine, cosine = math.sin(roll), math.cos(roll)
        right, down = cosine * right - sine * down, sine * right + cosine * down
    sine, cosine = math.sin(pitch), math.cos(pitch)
    # Rays are not normalised; the formulas are those of sphere.direction_to_pixel, on the device.
    forward, up = cosine + sine * down, sine - cosine * down
    x = 0.5 + torch.atan2(right, forward) / (2 * math.pi)
    y = 0.5 - torch.atan2(up, torch.hypot(forward, right)) / math.pi
    return x * panorama[0], y * panorama[1]
