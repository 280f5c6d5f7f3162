"""Training samples: single views of labelled panoramas and of photographs, and windows of a scan.

Data sets are folders: labelled panoramas as ``images/NAME.jpg`` with ``instances/NAME.png`` (uint16
ids, what ``sap_ros.synthesis`` writes), photographs in SA-1B's format (``NAME.jpg`` with
``NAME.json``, COCO run-length masks).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import IterableDataset

from sap_ros.core import sphere
from sap_ros.core.projection import ViewRenderer
from sap_ros.core.trajectory import (
    Trajectory,
    View,
    direction_to_view,
    sees,
    view_to_direction,
)

#: Objects of a view smaller than this share of it are not asked for.
MIN_AREA = 0.002


@cache
def _panorama(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    instances = cv2.imread(
        str(path.parent.parent / "instances" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED
    )
    if instances is None or instances.shape != image.shape[:2]:
        raise ValueError(f"{path} has no instance image of its own size beside it")
    return image, instances


@cache
def _photograph(path: Path) -> tuple[np.ndarray, list[dict]]:
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return image, json.loads(path.with_suffix(".json").read_text())["annotations"]


def draw_view(
    panorama: Path, size: int, rng: Generator, jitter: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """A view of a labelled panorama near a view of the scan: image and instance ids."""
    image, instances = _panorama(panorama)
    pitch = rng.choice([-np.pi / 4, 0, np.pi / 4]) + round(rng.uniform(-jitter, jitter), 2)
    view = View(-2 * np.pi * rng.integers(64) / 64, round(pitch, 2))
    return (
        ViewRenderer(image, size, 90.0).render(view),
        ViewRenderer(instances, size, 90.0, labels=True).render(view),
    )


def draw_crop(photograph: Path, size: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A square crop of a photograph: image (size, size, 3) and masks (objects, size, size) bool."""
    image, annotations = _photograph(photograph)
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.5, 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    window = (slice(top, top + side), slice(left, left + side))
    crop = cv2.resize(image[window], (size, size), interpolation=cv2.INTER_AREA)
    masks = np.zeros((0, size, size), bool)
    if annotations:
        decoded = coco_mask.decode([a["segmentation"] for a in annotations])[window]
        few = decoded[:, :, rng.permutation(decoded.shape[2])[:24]]
        masks = np.stack(
            [
                cv2.resize(few[:, :, i], (size, size), interpolation=cv2.INTER_NEAREST) > 0
                for i in range(few.shape[2])
            ]
        )
    if rng.random() < 0.5:
        crop, masks = np.ascontiguousarray(crop[:, ::-1]), masks[:, :, ::-1]
    return crop, masks


def draw_prompt(mask: np.ndarray, kind: str, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prompt for one object of a view.

    Args:
        mask: (S, S) bool, not empty.
        kind: ``click`` (one, at the centre or anywhere on the object), ``clicks`` (four, of which
            some may be negative) or ``box`` (jittered).

    Returns:
        Points (P, 2) in view pixels and SAM 2's labels (P,), always of the same P for a kind.
    """
    size = len(mask)
    ys, xs = np.nonzero(mask)
    if kind == "box":
        corners = np.array([[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]], np.float32)
        reach = corners[1] - corners[0]
        corners += rng.uniform(-0.08, 0.08, (2, 2)) * reach
        return np.clip(corners, 0, size).astype(np.float32), np.array([2, 3], np.int32)
    if rng.random() < 0.5:
        distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[
            1:-1, 1:-1
        ]
        v, u = np.unravel_index(distance.argmax(), distance.shape)
    else:
        i = rng.integers(len(xs))
        u, v = xs[i], ys[i]
    points, labels = [(u, v)], [1]
    if kind == "clicks":
        for _ in range(3):
            near = cv2.dilate(mask.astype(np.uint8), np.ones((size // 8 + 1,) * 2)) > 0
            outside = np.argwhere(near & ~mask)
            if rng.random() < 0.4 and len(outside):
                v, u = outside[rng.integers(len(outside))]
                labels.append(0)
            else:
                i = rng.integers(len(xs))
                u, v = xs[i], ys[i]
                labels.append(1)
            points.append((u, v))
    return np.array(points, np.float32) + 0.5, np.array(labels, np.int32)


def _large_enough(masks: np.ndarray) -> np.ndarray:
    return masks[masks.reshape(len(masks), -1).mean(1) >= MIN_AREA] if len(masks) else masks


class SingleViews(IterableDataset):
    """Batches of single views, endless.

    Each is a dict: ``images`` (B, S, S, 3) uint8; and for N objects of them ``image_index`` (N,),
    ``masks`` (N, S, S) bool, ``points`` (N, P, 2), ``labels`` (N, P). One kind of prompt a batch.
    """

    def __init__(
        self,
        panoramas: Sequence[Path],
        photographs: Sequence[Path],
        size: int,
        batch: int,
        objects: int,
        kinds: dict[str, float],
        seed: int,
    ) -> None:
        self.panoramas, self.photographs = panoramas, photographs
        self.size, self.batch, self.objects = size, batch, objects
        self.kinds, self.seed = kinds, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        cv2.setNumThreads(1)
        while True:
            yield self.draw(rng)

    def draw(self, rng: Generator) -> dict[str, Tensor]:
        kind = str(rng.choice(list(self.kinds), p=list(self.kinds.values())))
        images: list[np.ndarray] = []
        index, masks, points, labels = [], [], [], []
        while len(images) < self.batch:
            if not self.photographs or (self.panoramas and rng.random() < 0.5):
                panorama = self.panoramas[rng.integers(len(self.panoramas))]
                image, instances = draw_view(panorama, self.size, rng)
                ids = np.unique(instances)
                found = instances == ids[ids > 0][:, None, None]
            else:
                photograph = self.photographs[rng.integers(len(self.photographs))]
                image, found = draw_crop(photograph, self.size, rng)
            found = _large_enough(found)
            if not len(found):
                continue
            for i in rng.permutation(len(found))[: self.objects]:
                at, label = draw_prompt(found[i], kind, rng)
                index.append(len(images))
                masks.append(found[i])
                points.append(at)
                labels.append(label)
            images.append(image)
        return {
            "images": torch.from_numpy(np.stack(images)),
            "image_index": torch.tensor(index),
            "masks": torch.from_numpy(np.stack(masks)),
            "points": torch.from_numpy(np.stack(points)),
            "labels": torch.from_numpy(np.stack(labels)),
        }


class ScanWindows(IterableDataset):
    """Windows of consecutive views of a scan, endless.

    Each is a dict: ``images`` (V, S, S, 3) uint8; for N objects seen in the first view ``masks``
    (V, N, S, S) bool, ``points`` (V, N, 1, 2) where the click falls in each view, and ``labels``
    (V, N, 1): 1 where the view sees the click, -1 elsewhere.

    The first view is the one nearest an object, as in a scan. The others follow it, or are a run of
    consecutive views from anywhere else on the loop: an object that comes back late must still be
    known.
    """

    def __init__(
        self, panoramas: Sequence[Path], size: int, views: int, objects: int, seed: int
    ) -> None:
        self.panoramas, self.size, self.views, self.objects = panoramas, size, views, objects
        self.seed = seed
        self.trajectory = Trajectory()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        cv2.setNumThreads(1)
        while True:
            window = self.draw(rng)
            if window is not None:
                yield window

    def draw(self, rng: Generator) -> dict[str, Tensor] | None:
        image, instances = _panorama(self.panoramas[rng.integers(len(self.panoramas))])
        # The panorama is turned at random: the scan has no preferred heading.
        turn = int(rng.integers(image.shape[1]))
        image, instances = np.roll(image, turn, axis=1), np.roll(instances, turn, axis=1)
        fov, trajectory = self.trajectory.fov, self.trajectory
        ids = np.unique(instances)[1:]
        target = rng.choice(ids)
        v, u = np.argwhere(instances == target).T
        size = (image.shape[1], image.shape[0])
        pixels = np.stack([u, v], -1) + 0.5
        start = trajectory.nearest(sphere.pixel_to_direction(pixels, size).mean(0))
        offset = 1 if rng.random() < 0.5 else int(rng.integers(1, len(trajectory) - self.views + 2))
        order = (start, *trajectory.window(start + offset, self.views - 1))
        of_image = ViewRenderer(image, self.size, fov)
        of_labels = ViewRenderer(instances, self.size, fov, labels=True)
        views = [trajectory.views[i] for i in order]
        labels = np.stack([of_labels.render(view) for view in views])
        ids = np.array([i for i in ids if (labels[0] == i).mean() >= MIN_AREA])
        ids = rng.permutation(ids)[: self.objects]
        if not len(ids):
            return None
        points, point_labels = [], []
        for i in ids:
            at, _ = draw_prompt(labels[0] == i, "click", rng)
            rays = view_to_direction(at[0], views[0], self.size, fov)
            points.append([direction_to_view(rays, view, self.size, fov) for view in views])
            point_labels.append([1 if sees(view, rays, fov) else -1 for view in views])
        at = np.nan_to_num(np.array(points, np.float32).transpose(1, 0, 2))[:, :, None]
        return {
            "images": torch.from_numpy(np.stack([of_image.render(view) for view in views])),
            "masks": torch.from_numpy(labels[:, None] == ids[None, :, None, None]),
            "points": torch.from_numpy(at),
            "labels": torch.from_numpy(np.array(point_labels, np.int32).T[:, :, None].copy()),
        }
