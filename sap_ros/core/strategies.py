"""How a panorama is cut into square images for SAM 2: views, the whole of it, or crops.

All have the same methods, so the tracker, the fusion and everything after are shared:

- ``scan``: perspective views, all of the trajectory's, in its order: the method.
- ``frontier``: of these, only those into which the object's mask runs.
- ``gimbal``: views that are turned towards the object and zoomed to its extent.
- ``auto``: a view of the scan first, then as ``gimbal``.
- ``direct``: the panorama itself, resized to the model's input (the paper's SAM 2 baseline).
- ``patches``: overlapping square crops of the panorama, in the scan's order (its ablation).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from sap_ros.core import sphere
from sap_ros.core.projection import Canvas, Fusion, Region, ViewRenderer, reached
from sap_ros.core.torch_rendering import TorchRenderer
from sap_ros.core.trajectory import Trajectory, View, direction_to_view, sees

Strategy = Literal["auto", "gimbal", "frontier", "scan", "direct", "patches"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# Nearer the border than this share of a frame's half side, an object is better seen by another frame.
_RIM = 0.04

#: Indices of images with their mask logits, (n, n) float32 each.
Masks = Iterable[tuple[int, np.ndarray]]


class Frames(Protocol):
    """A panorama cut into square images; a *frame* is one of them, by index."""

    #: Side of a frame, in pixels.
    size: int

    def __len__(self) -> int: ...

    def render(self, index: int) -> np.ndarray:
        """The frame, (S, S, 3) uint8 RGB."""

    def upload(self, index: int) -> np.ndarray | Tensor:
        """The frame for a model: as it is rendered, or on the model's device."""

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        """Where directions (P, 3) fall in the frame, (P, 2) pixels; NaN where it sees them not."""

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        """The order of frames for an object, its first positive point being at a direction (3,)."""

    def over(self, labels: np.ndarray) -> Frames:
        """The same frames of a panorama of labels (H, 2H): they are picked, not mixed."""

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        """The panorama's logits, from those of frames."""


@dataclass(frozen=True)
class Fused:
    """An object's logits on the panorama: in a region, (rows, columns) float32; below 0 elsewhere."""

    region: Region
    logits: np.ndarray


def make_frames(
    image: np.ndarray,
    strategy: Strategy,
    size: int,
    trajectory: Trajectory,
    device: torch.device | None = None,
) -> Frames:
    """A panorama as frames.

    Args:
        image: (H, 2H, 3) uint8.
        strategy: how it is cut.
        size: side of a frame, in pixels.
        trajectory: of the scan.
        device: of the model; on a GPU, views are rendered there.
    """
    if strategy == "direct":
        return DirectFrames(image, size)
    return (
        PatchFrames(image, size)
        if strategy == "patches"
        else ViewFrames(image, size, trajectory, device=device)
    )


def nearness(frames: Frames, directions: np.ndarray) -> np.ndarray:
    """How near each frame's centre it sees directions (P, 3): (F, P), 1 there, 0 at its border."""
    near = np.zeros((len(frames), len(directions)))
    for i in range(len(frames)):
        off_centre = np.abs(frames.locate(i, directions) / (frames.size / 2) - 1).max(1)
        near[i] = np.nan_to_num(1 - off_centre, nan=0.0).clip(min=0)
    return near


def cover(frames: Frames, directions: np.ndarray) -> list[int]:
    """A few frames that together see directions (P, 3), the one that sees most of them first.

    Greedy, as the best first: each frame counts for a direction the more, the nearer its centre it
    is seen there. What lies at the rim of all frames is left out.
    """
    near = nearness(frames, directions)
    chosen: list[int] = []
    left = np.ones(len(directions), bool)
    while left.any():
        worth = near[:, left].sum(1) + 2 * (near[:, left] > _RIM).sum(1)
        best = int(worth.argmax())
        fresh = left & (near[best] > _RIM)
        if fresh.sum() <= 0.02 * len(directions) and chosen:
            break
        chosen.append(best)
        if not fresh.any():
            break
        left &= ~fresh
    return chosen


class ViewFrames:
    """Perspective views: those of a trajectory, and others that are asked for."""

    def __init__(
        self,
        image: np.ndarray,
        size: int,
        trajectory: Trajectory,
        labels: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.panorama_size = image.shape[1], image.shape[0]
        self.size, self.trajectory = size, trajectory
        there = device is not None and device.type != "cpu"
        self._remote = TorchRenderer(image, size, device) if there and device else None
        self.views = list(trajectory.views)
        self._renderer = ViewRenderer(image, size, labels)

    def __len__(self) -> int:
        return len(self.trajectory)

    def turned(self, view: View) -> int:
        """The frame, beside those of the trajectory, that is a view."""
        own = self.views[len(self) :]
        if view not in own:
            self.views.append(view)
            return len(self.views) - 1
        return len(self) + own.index(view)

    def render(self, index: int) -> np.ndarray:
        return self._renderer.render(self.views[index], keep=index < len(self))

    def upload(self, index: int) -> np.ndarray | Tensor:
        renderer = self._remote or self._renderer
        return renderer.render(self.views[index], keep=index < len(self))

    def locate(self, index: int, directions: np.ndarray) -> np.ndarray:
        view = self.views[index]
        pixels = direction_to_view(directions, view, self.size)
        return np.where(sees(view, directions, slack=1e-9)[:, None], pixels, np.nan)

    def order(self, direction: np.ndarray) -> tuple[int, ...]:
        return self.trajectory.window(self.trajectory.nearest(direction))

    def over(self, labels: np.ndarray) -> Frames:
        other = ViewFrames(labels, self.size, self.trajectory, labels=True)
        other.views = self.views
        return other

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        seen = [(self.views[index], mask) for index, mask in masks]
        region = reached(seen, self.size, self.panorama_size) or Region(0, 0, 1, 1)
        canvas = Canvas(self.panorama_size, fusion, region)
        for view, mask in seen:
            canvas.add_view(view, mask, self.size)
        return Fused(region, canvas.logits())


class DirectFrames:
    """One frame: the whole panorama, resized to a square as SAM 2 does with any image."""

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

    def over(self, labels: np.ndarray) -> Frames:
        return DirectFrames(labels, self.size, labels=True)

    def fuse(self, masks: Masks, fusion: Fusion) -> Fused:
        ((_, mask),) = masks
        logits = cv2.resize(mask, self.panorama_size, interpolation=cv2.INTER_LINEAR)
        return Fused(Region(0, 0, *logits.shape), logits)


class PatchFrames:
    """Square crops of the panorama, a quarter of its width, half of it shared with the next one.

    They stand in eight columns and three rows and are taken in the scan's column-first zigzag; a
    crop may lie across the seam, none reaches over a pole.
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
        rows = range(self._ROWS - 1, -1, -1)  # as the scan: up the first column, down the second
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
        away = sphere.direction_to_pixel(direction, self.panorama_size) - middle
        width = self.panorama_size[0]
        away[:, 0] = np.mod(away[:, 0] + width / 2, width) - width / 2
        start = int(np.abs(away).max(1).argmin())
        return tuple((start + i) % len(self) for i in range(len(self)))

    def over(self, labels: np.ndarray) -> Frames:
        return PatchFrames(labels, self.size, labels=True)

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
