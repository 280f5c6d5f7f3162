"""Fuses the mask logits of views, or crops, on the panorama.

Only the part of the panorama in which masks are positive is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sap_ros.core import sphere
from sap_ros.core.camera import View, column_span, focal_length, row_span, view_to_direction
from sap_ros.core.panorama import Region, wrapped_columns

Fusion = Literal["max", "weighted"]

#: Mask logit outside of all views, and of an object that is absent from a view (SAM 2's value).
NO_OBJECT = -1024.0

# Pixels of the panorama that are processed at a time; temporary arrays are a few times as large.
_BLOCK = 1 << 20

#: Logits are clipped to +-this for the weighted mean; otherwise one value of -1024 would outweigh all others.
CERTAIN = 10.0

# A cell of a mask and those around it.
_AROUND = np.ones((3, 3), np.uint8)

# Weight of a view's border in the weighted mean; its centre has 1.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class ViewMask:
    """An object's mask in a view.

    Attributes:
        logits: (S / 4, S / 4) float32; all -1024 if the object is regarded as absent.
        predicted_iou: IoU of the mask as predicted by SAM 2's decoder, 0 to 1.
        object_score: SAM 2's logit that the object is in the view; absent at or below 0.
    """

    logits: np.ndarray
    predicted_iou: float
    object_score: float

    def absent(self) -> ViewMask:
        """The same scores with the logits of an absent object."""
        return replace(self, logits=np.full_like(self.logits, NO_OBJECT))


@dataclass(frozen=True)
class Fused:
    """An object's logits on the panorama.

    Attributes:
        region: the part of the panorama that they cover; elsewhere the mask is empty.
        logits: (rows, columns) float32.
    """

    region: Region
    logits: np.ndarray


class Canvas:
    """Collects one object's mask logits from many views, or crops, on the panorama.

    Args:
        size: the panorama's (width, height).
        fusion: ``max`` (the maximum over the views, as in the paper, arXiv 2603.12759) or ``weighted``
            (the mean, weighted by the nearness to each view's centre, so that an error near the border of
            one view does not decide).
        region: the part of the panorama that is computed; None: all of it.

    Raises:
        ValueError: ``fusion`` is unknown.
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
            top: its first row, relative to the region.
            left: its first column, relative to the region; for a region of full width any integer,
                taken modulo the width.
            nearness: returns weights (rows, columns), 0 outside of the view, up to 1 at its centre;
                called only by the weighted fusion.
        """
        rows = slice(top, top + len(logits))
        for source, columns in wrapped_columns(left, logits.shape[1], self.region.columns):
            target, values = self._sum[rows, columns], logits[:, source]
            if self._weights is None:
                np.maximum(target, values, out=target)
            else:
                near = nearness()[:, source]
                target += near * np.clip(values, -CERTAIN, CERTAIN)
                self._weights[rows, columns] += near

    def add_view(self, view: View, mask: np.ndarray, view_size: int) -> None:
        """Adds a view's mask logits.

        Args:
            view: the view.
            mask: (n, n) float32; n is the view's size, or smaller for a coarser grid over the same square
                (a quarter of it for SAM 2's low-resolution masks).
            view_size: side of the view, in pixels.
        """
        if self._weights is None and mask.max() <= NO_OBJECT:
            return
        width, height = self.size
        first, last = row_span(view, view_size, height)
        top, bottom = (
            min(max(row - self.region.top, 0), self.region.rows) for row in (first, last)
        )
        left, right = 0, self.region.columns
        if self.region.columns == width:
            left, right = column_span(view, view_size, width)
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
        """Adds a view's logits, padded by one pixel, to some rows and columns of the region."""
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
        # Offsets from the view's centre, in pixels. The view ends half a pixel beyond the centres of its outermost
        # pixels.
        np.divide(focal_length(size, view.fov), z, out=z)
        x *= z
        y *= z
        half = size / 2
        outside = behind
        if max(x.max(), -x.min(), y.max(), -y.min()) > half:
            outside = behind | (np.abs(x) > half) | (np.abs(y) > half)
        x += half + 0.5  # its index in the mask
        y += half + 0.5
        x[outside] = -1000.0  # outside of the mask: gives borderValue
        inside = cv2.remap(
            mask,
            x,
            y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=NO_OBJECT,
        )

        def nearness() -> np.ndarray:
            off_centre = np.maximum(np.abs(x - (half + 0.5)), np.abs(y - (half + 0.5)))
            near = np.maximum(1 - off_centre / half, np.float32(_LEAST_WEIGHT))
            near[outside] = 0
            return near

        self.add(inside, rows[0], left, nearness)

    def logits(self) -> np.ndarray:
        """(rows, columns) of the region, float32; ``NO_OBJECT`` outside of all views."""
        if self._weights is None:
            return self._sum
        mean = np.full_like(self._sum, NO_OBJECT)
        return np.divide(self._sum, self._weights, out=mean, where=self._weights > 0)


def reached(
    masks: Sequence[tuple[View, np.ndarray]], view_size: int, size: tuple[int, int]
) -> Region | None:
    """The part of a panorama in which masks are positive.

    Args:
        masks: views with their mask logits (n, n).
        view_size: side of a view, in pixels.
        size: the panorama's (width, height).

    Returns:
        A rectangle that contains it with a margin of one mask cell; None if nothing is positive.
    """
    width, height = size
    first, last = height, 0
    hit = np.zeros(width, bool)
    for view, mask in masks:
        grid = len(mask)
        cells = cv2.dilate((mask > 0).astype(np.uint8), _AROUND)
        # The outline spans the mask's extent, unless there is a pole inside; of the cells inside, those of every third
        # row and column are kept, so that one is near any pole.
        inner = cv2.erode(cells, _AROUND, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        inner[1::3, 1::3] = 0
        v, u = np.nonzero(cells > inner)
        if not len(v):
            continue
        pixels = (np.stack([u, v], -1) + 0.5) * (view_size / grid)
        directions = view_to_direction(pixels, view, view_size)
        cell = view.fov / grid * 2  # twice the mean width of a mask cell, in rad
        pixels = sphere.direction_to_pixel(directions, size)
        beside = cell / (2 * np.pi) * width
        above = math.ceil(cell / np.pi * height) + 1
        first = min(first, int(pixels[:, 1].min()) - above)
        last = max(last, int(pixels[:, 1].max()) + above + 1)
        level = np.hypot(directions[:, 0], directions[:, 1])
        if level.min() < 3 * cell:  # near a pole: all columns, and all rows up to it
            hit[:] = True
            if directions[level.argmin(), 2] > 0:
                first = 0
            else:
                last = height
            continue
        reach = (beside / level + 1).astype(int)
        columns = pixels[:, 0].astype(int)
        # The columns around each cell: +1 at the first, -1 after the last, then the cumulative sum.
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


def connected(mask: np.ndarray, pixels: np.ndarray, closed: bool = True) -> np.ndarray:
    """The parts of a mask, connected on the sphere, that contain at least one of the given pixels.

    Args:
        mask: (H, W) bool, of a panorama or of a region of it.
        pixels: (P, 2) as (u, v). Pixels outside of the region are ignored; with ``closed`` they are
            clipped to the panorama.
        closed: the mask has the panorama's full width: parts are connected across the seam, and across
            a pole if they contain pixels of the first or the last row.

    Returns:
        (H, W) bool.
    """
    height, width = mask.shape
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    group = np.arange(count)  # by part; the parts of a group are connected on the sphere
    if closed:
        last = parts[:, -1]
        pairs = [(parts[:, 0], np.roll(last, rows)) for rows in (-1, 0, 1)]
        pairs += [(parts[row], np.full(width, parts[row].max())) for row in (0, -1)]
        one, other = np.concatenate(pairs, axis=1)
        both = (one > 0) & (other > 0)
        links = coo_array((np.ones(both.sum()), (one[both], other[both])), shape=(count, count))
        _, group = connected_components(links, directed=False)
        pixels = np.minimum(np.maximum(pixels, 0), np.array([width, height]) - 0.5)
    u, v = np.floor(pixels).astype(int).T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    hit = parts[v[inside], u[inside]]
    kept = np.isin(group, group[hit[hit > 0]])
    if kept[1:].all():
        return mask.copy()
    kept[0] = False  # the background
    return np.asarray(kept[parts])
