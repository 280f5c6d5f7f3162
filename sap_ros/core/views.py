"""Sets of views: a panorama as square images for SAM 2, by perspective, as a whole or in crops.

All sets have the same methods (:class:`Views`), so that the tracker, the fusion and everything after
are shared. A *view* is one of these images, given by its index in the set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view, sees
from sap_ros.core.fusion import Canvas, Fused, Fusion, reached
from sap_ros.core.panorama import NOWHERE, Region
from sap_ros.core.rendering import TorchRenderer, ViewRenderer
from sap_ros.core.scan import Scan

# Nearer the border than this share of half a view's side, a direction is better seen by another view.
_RIM = 0.04

# A further view must see this share of the directions that no view so far sees well.
_LEAST_GAIN = 0.02

# Seeing a direction inside the rim at all counts as much as twice the greatest nearness.
_SEEN_WEIGHT = 2

# Directions on a border between two views are still seen, whatever the rounding.
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
        """The view, (S, S, 3) uint8 RGB; of labels (S, S)."""

    def upload(self, index: int) -> np.ndarray | Tensor:
        """The view for a model: as :meth:`render` gives it, or on the model's device."""

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        """View pixels (P, 2) of directions (P, 3); NaN for a direction outside of the view."""

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        """All views, in the order to visit them for an object whose anchor is a direction (3,)."""

    def solid_angle(self, index: int) -> float:
        """About how much of the sphere a view covers, in sr."""

    def of_labels(self, labels: np.ndarray) -> Views:
        """The same views of a label image (H, 2H); each pixel takes the nearest label."""

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        """An object's logits on the panorama, from its mask logits in views."""


def nearness(views: Views, directions: np.ndarray) -> np.ndarray:
    """How near its centre each view sees directions (P, 3).

    Returns:
        (V, P): 1 at a view's centre, 0 at its border and outside of it.
    """
    near = np.zeros((len(views), len(directions)))
    for i in range(len(views)):
        off_centre = np.abs(views.locate(i, directions) / (views.size / 2) - 1).max(1)
        near[i] = np.nan_to_num(1 - off_centre, nan=0.0).clip(min=0)
    return near


def cover(views: Views, directions: np.ndarray) -> list[int]:
    """A few views that together see directions (P, 3), the one that sees most of them first.

    Greedy: at each step the view is taken that sees most of what is left, and that near its centre.
    Directions that every view sees at its rim alone may be left out.
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
        image: (H, 2H, 3) uint8, or labels (H, 2H).
        size: side of a view, in pixels.
        scan: its views have the indices 0 to ``len(scan) - 1``; see :meth:`add` for further ones.
        labels: the image holds labels.
        device: of the model; on a GPU, views are rendered there.
    """

    def __init__(
        self,
        image: np.ndarray,
        size: int,
        scan: Scan,
        labels: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.panorama_size = image.shape[1], image.shape[0]
        self.size, self.scan = size, scan
        on_device = device is not None and device.type != "cpu"
        self._remote = TorchRenderer(image, size, device) if on_device and device else None
        self.views = list(scan.views)
        self._renderer = ViewRenderer(image, size, labels)

    def __len__(self) -> int:
        return len(self.scan)

    def add(self, view: View) -> int:
        """The index of a view beside those of the scan; the same view has the same index."""
        added = self.views[len(self) :]
        if view not in added:
            self.views.append(view)
            return len(self.views) - 1
        return len(self) + added.index(view)

    def render(self, index: int) -> np.ndarray:
        return self._renderer.render(self.views[index], keep=index < len(self))

    def upload(self, index: int) -> np.ndarray | Tensor:
        renderer = self._remote or self._renderer
        return renderer.render(self.views[index], keep=index < len(self))

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        view = self.views[index]
        pixels = direction_to_view(directions, view, self.size)
        inside = sees(view, directions, slack=_BORDER_SLACK)[:, None]
        return np.where(inside, pixels, np.nan)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        return self.scan.window(self.scan.nearest(direction))

    def solid_angle(self, index: int) -> float:
        return self.views[index].solid_angle

    def of_labels(self, labels: np.ndarray) -> Views:
        other = PerspectiveViews(labels, self.size, self.scan, labels=True)
        other.views = self.views
        return other

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        seen = [(self.views[index], mask) for index, mask in masks]
        region = reached(seen, self.size, self.panorama_size) or NOWHERE
        canvas = Canvas(self.panorama_size, fusion, region)
        for view, mask in seen:
            canvas.add_view(view, mask, self.size)
        return Fused(region, canvas.logits())


class WholePanorama:
    """One view: the whole panorama, resized to a square as SAM 2 does with any image.

    The paper's baseline of SAM 2 without a scan.
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

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        return (0,)

    def solid_angle(self, index: int) -> float:
        return 4 * math.pi

    def of_labels(self, labels: np.ndarray) -> Views:
        return WholePanorama(labels, self.size, labels=True)

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        ((_, mask),) = masks
        logits = cv2.resize(mask, self.panorama_size, interpolation=cv2.INTER_LINEAR)
        return Fused(Region(0, 0, *logits.shape), logits)


class Crops:
    """Square crops of the panorama, a quarter of its width; each shares half with the next one.

    They are in eight columns and three rows and are visited in the scan's column-first zigzag. A crop
    may lie across the seam, none reaches over a pole. The paper's ablation of the perspective views.
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
        rows = range(self._ROWS - 1, -1, -1)  # as the scan: up the first column, down the next
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
        """The unit vector (3,) that a crop's pixel (u, v) shows."""
        top, left = self._corners[index]
        u, v = np.asarray(pixel) * self._crop / self.size + (left, top)
        return sphere.pixel_to_direction((u % self.panorama_size[0], v), self.panorama_size)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        middle = np.array(self._corners)[:, ::-1] + self._crop / 2
        offset = sphere.direction_to_pixel(direction, self.panorama_size) - middle
        width = self.panorama_size[0]
        offset[:, 0] = np.mod(offset[:, 0] + width / 2, width) - width / 2
        # Where two crops are equally near, the one to the right, wherever the seam is.
        distance = np.abs(offset).max(1).round(6)
        start = int(np.lexsort((offset[:, 1].round(6), offset[:, 0].round(6), distance))[0])
        return tuple((start + i) % len(self) for i in range(len(self)))

    def solid_angle(self, index: int) -> float:
        return math.pi

    def of_labels(self, labels: np.ndarray) -> Views:
        return Crops(labels, self.size, labels=True)

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
