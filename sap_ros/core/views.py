"""Sets of views, which show a panorama as square images for SAM 2: perspective views, the whole, or crops.

All sets have the same methods (:class:`Views`), so that they share the tracker, the fusion and everything
after it. A *view* is one of these images, identified by its index in the set. Objects may be searched for in one
set side by side, by several threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view, sees, view_to_direction
from sap_ros.core.fusion import CERTAIN, Canvas, Fused, Fusion, reached
from sap_ros.core.panorama import NOWHERE, Region
from sap_ros.core.projection import Panorama, Picture
from sap_ros.core.scan import Scan

# Width of a view's rim, as a share of half its side; a view does not see directions in its rim well.
_RIM = 0.04

# A further view is added only if it sees more than this share of all directions for the first time.
_LEAST_GAIN = 0.02

# A direction inside the rim scores this, plus its nearness (at most 1).
_SEEN_WEIGHT = 2

_CPU = torch.device("cpu")

# A direction on the border between two views is inside both in spite of rounding errors.
_BORDER_SLACK = 1e-9

#: Indices of views with their mask logits, (n, n) float32 each.
Masks = Iterable[tuple[int, np.ndarray]]


class Views(Protocol):
    """A panorama as a set of square images."""

    #: Side of a view, in pixels.
    size: int
    #: The panorama's (width, height).
    panorama_size: tuple[int, int]

    def __len__(self) -> int: ...

    def render(self, index: int) -> np.ndarray:
        """The view, (S, S, 3) uint8 RGB; for a label image (S, S)."""

    def upload(self, index: int) -> np.ndarray | Tensor:
        """The view as input for a model: the result of :meth:`render`, or a tensor on the model's device."""

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        """Directions (P, 3) to view pixels (P, 2); NaN outside of the view."""

    def direction(self, index: int, pixel: np.ndarray) -> np.ndarray:
        """A view's pixel (u, v) to a unit vector (3,)."""

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        """All views in the order of their visits, for an object with its anchor at a direction (3,)."""

    def solid_angle(self, index: int) -> float:
        """Approximate solid angle of a view, in sr."""

    def of_labels(self, labels: np.ndarray, size: int) -> Views:
        """The same views of a label image (H, 2H), of ``size`` pixels; each pixel takes the nearest label."""

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        """An object's logits on the panorama, from its mask logits in views."""


def nearness(views: Views, directions: np.ndarray) -> np.ndarray:
    """Nearness of directions (P, 3) to the centre of each view.

    Returns:
        (V, P): 1 at a view's centre, 0 at its border and outside of it.
    """
    return np.stack([nearness_in(views, i, directions) for i in range(len(views))])


def nearness_in(views: Views, index: int, directions: np.ndarray) -> np.ndarray:
    """The same for one view: (P,)."""
    off_centre = np.abs(views.locate(index, directions) / (views.size / 2) - 1).max(1)
    return np.nan_to_num(1 - off_centre, nan=0.0).clip(min=0)


def cover(views: Views, directions: np.ndarray) -> list[int]:
    """A few views that together see directions (P, 3), starting with the view that sees most of them.

    Greedy: each step takes the view that sees most of the remaining directions, preferably near its centre.
    Directions that are in no view, or only in rims, may be left out.
    """
    near = nearness(views, directions)
    chosen: list[int] = []
    left = np.ones(len(directions), bool)
    while left.any():
        worth = near[:, left].sum(1) + _SEEN_WEIGHT * (near[:, left] > _RIM).sum(1)
        best = int(worth.argmax())
        fresh = left & (near[best] > _RIM)
        if fresh.sum() <= _LEAST_GAIN * len(directions) and chosen:
            break
        chosen.append(best)
        if not fresh.any():
            break
        left &= ~fresh
    return chosen


class PerspectiveViews:
    """Perspective views: those of a scan, and further ones of any direction and field of view.

    Args:
        picture: what they are rendered from.
        size: side of a view, in pixels.
        scan: its views have the indices 0 to ``len(scan) - 1``; see :meth:`add` for further ones.
        device: device of the model.
    """

    def __init__(
        self,
        picture: Picture,
        size: int,
        scan: Scan,
        device: torch.device = _CPU,
    ) -> None:
        self.panorama_size = picture.size
        self.size, self.scan = size, scan
        self.views = list(scan.views)
        self._picture, self._device = picture, device
        # A picture is reduced for wider views when they are first rendered.
        self._adding, self._rendering = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        return len(self.scan)

    def add(self, view: View) -> int:
        """Adds a view to those of the scan, unless it was added before; returns its index."""
        with self._adding:
            added = self.views[len(self) :]
            if view not in added:
                self.views.append(view)
                return len(self.views) - 1
            return len(self) + added.index(view)

    def render(self, index: int) -> np.ndarray:
        with self._rendering:
            return self._picture.render(self.views[index], self.size, keep=index < len(self))

    def upload(self, index: int) -> np.ndarray | Tensor:
        keep = index < len(self)
        with self._rendering:
            return self._picture.upload(self.views[index], self.size, keep, self._device)

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        view = self.views[index]
        pixels = direction_to_view(directions, view, self.size)
        inside = sees(view, directions, slack=_BORDER_SLACK)[:, None]
        return np.where(inside, pixels, np.nan)

    def direction(self, index: int, pixel: np.ndarray) -> np.ndarray:
        return view_to_direction(pixel, self.views[index], self.size)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        return self.scan.window(self.scan.nearest(direction))

    def solid_angle(self, index: int) -> float:
        return self.views[index].solid_angle

    def of_labels(self, labels: np.ndarray, size: int) -> Views:
        other = PerspectiveViews(Panorama(labels, labels=True), size, self.scan)
        other.views = self.views
        return other

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        seen = [(self.views[index], mask) for index, mask in masks]
        region = reached(seen, self.size, self.panorama_size) or NOWHERE
        # The weighted mean of a single view needs no weights.
        canvas = Canvas(self.panorama_size, fusion if len(seen) > 1 else "max", region)
        for view, mask in seen:
            canvas.add_view(view, mask, self.size)
        logits = canvas.logits()
        if fusion == "weighted":
            np.minimum(logits, CERTAIN, out=logits)
        return Fused(region, logits)


class WholePanorama:
    """One view: the whole panorama, resized to a square as SAM 2 resizes any image.

    This is the paper's baseline, SAM 2 without a scan.
    """

    def __init__(self, image: np.ndarray, size: int, labels: bool = False) -> None:
        self.panorama_size = image.shape[1], image.shape[0]
        self.size, self._image = size, image
        self._interpolation = cv2.INTER_NEAREST if labels else cv2.INTER_AREA

    def __len__(self) -> int:
        return 1

    def render(self, index: int) -> np.ndarray:
        return cv2.resize(self._image, (self.size, self.size), interpolation=self._interpolation)

    def upload(self, index: int) -> np.ndarray | Tensor:
        return self.render(index)

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        pixels = sphere.direction_to_pixel(directions, self.panorama_size)
        return np.asarray(pixels * self.size / np.array(self.panorama_size))

    def direction(self, index: int, pixel: np.ndarray) -> np.ndarray:
        scaled = np.asarray(pixel) * np.array(self.panorama_size) / self.size
        return sphere.pixel_to_direction(scaled, self.panorama_size)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        return (0,)

    def solid_angle(self, index: int) -> float:
        return 4 * math.pi

    def of_labels(self, labels: np.ndarray, size: int) -> Views:
        return WholePanorama(labels, size, labels=True)

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        for _, mask in masks:  # there is one view
            logits = cv2.resize(mask, self.panorama_size, interpolation=cv2.INTER_LINEAR)
            return Fused(Region(0, 0, *logits.shape), logits)
        return Fused(NOWHERE, np.zeros((NOWHERE.rows, NOWHERE.columns), np.float32))


class Crops:
    """Square crops of the panorama with a quarter of its width and half overlap, in 8 columns and 3 rows.

    They are visited in the scan's column-first zigzag. A crop may cross the seam, but no pole. This is the
    paper's ablation of the perspective views.
    """

    _COLUMNS, _ROWS = 8, 3

    def __init__(self, image: np.ndarray, size: int, labels: bool = False) -> None:
        self.panorama_size = image.shape[1], image.shape[0]
        self.size = size
        self._crop = image.shape[1] // 4
        self._interpolation = cv2.INTER_AREA if self._crop > size else cv2.INTER_LINEAR
        if labels:
            self._interpolation = cv2.INTER_NEAREST
        self._twice = np.concatenate([image, image[:, : self._crop]], axis=1)
        rows = range(self._ROWS - 1, -1, -1)  # as in the scan: up the first column, down the next
        self._corners = [
            (row * image.shape[0] // 4, column * image.shape[1] // self._COLUMNS)
            for column in range(self._COLUMNS)
            for row in (rows if column % 2 == 0 else reversed(rows))
        ]

    def __len__(self) -> int:
        return len(self._corners)

    def render(self, index: int) -> np.ndarray:
        top, left = self._corners[index]
        crop = self._twice[top : top + self._crop, left : left + self._crop]
        return cv2.resize(crop, (self.size, self.size), interpolation=self._interpolation)

    def upload(self, index: int) -> np.ndarray | Tensor:
        return self.render(index)

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        top, left = self._corners[index]
        pixels = sphere.direction_to_pixel(directions, self.panorama_size)
        offset = np.stack(
            [np.mod(pixels[:, 0] - left, self.panorama_size[0]), pixels[:, 1] - top], axis=-1
        )
        inside = ((offset >= 0) & (offset <= self._crop)).all(1, keepdims=True)
        return np.where(inside, offset * self.size / self._crop, np.nan)

    def direction(self, index: int, pixel: np.ndarray) -> np.ndarray:
        top, left = self._corners[index]
        u, v = np.asarray(pixel) * self._crop / self.size + (left, top)
        return sphere.pixel_to_direction((u % self.panorama_size[0], v), self.panorama_size)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        middle = np.array(self._corners)[:, ::-1] + self._crop / 2
        offset = sphere.direction_to_pixel(direction, self.panorama_size) - middle
        width = self.panorama_size[0]
        offset[:, 0] = np.mod(offset[:, 0] + width / 2, width) - width / 2
        # Of two equally near crops, the one to the right is taken, wherever the seam is.
        distance = np.abs(offset).max(1).round(6)
        start = int(np.lexsort((offset[:, 1].round(6), offset[:, 0].round(6), distance))[0])
        return tuple((start + i) % len(self) for i in range(len(self)))

    def solid_angle(self, index: int) -> float:
        return math.pi

    def of_labels(self, labels: np.ndarray, size: int) -> Views:
        return Crops(labels, size, labels=True)

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        canvas = Canvas(self.panorama_size, fusion)
        for index, mask in masks:
            crop = cv2.resize(mask, (self._crop, self._crop), interpolation=cv2.INTER_LINEAR)
            canvas.add(crop, *self._corners[index], lambda: _crop_nearness(self._crop))
        return Fused(canvas.region, canvas.logits())


@lru_cache(maxsize=4)
def _crop_nearness(side: int) -> np.ndarray:
    """(side, side): 1 at the centre, falling to almost 0 at the border."""
    offset = np.abs((np.arange(side) + 0.5) / (side / 2) - 1)
    near = np.maximum(1 - np.maximum(offset[:, None], offset[None]), 1e-3)
    return np.asarray(near, np.float32)
