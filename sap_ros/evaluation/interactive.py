"""Interactive segmentation of photographs with simulated clicks, or with a box.

A photograph is resized to the square input of the model. The first click is on the object's pixel farthest
from its boundary, each further one on the wrong pixel farthest from the boundary of its error region.
Reported are the mean IoU after 1, 3 and 5 clicks, that of the best candidate mask after the first click (the
oracle), that of a box prompt, and the number of clicks to an IoU of 0.85, at most 10 (NoC; K. Sofiiuk et al.,
"Reviving Iterative Training with Mask Guidance for Interactive Segmentation", arXiv 2102.06583).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sap_ros.core.model import Model
from sap_ros.core.network import Decoded, Features
from sap_ros.evaluation.metrics import iou

#: Clicks after which the IoU is reported.
SCORED = (1, 3, 5)
#: The IoU to reach, and the maximum number of clicks.
GOAL, MOST_CLICKS = 0.85, 10
#: Objects that cover less than this share of the view are left out.
LEAST_AREA = 0.002

_POSITIVE, _NEGATIVE = 1, 0
_BOX = (2, 3)  # SAM 2's labels of a box's corners


@dataclass(frozen=True)
class Answer:
    """The IoUs of one object.

    Attributes:
        photograph: name of its picture.
        iou: IoU after each click, the first click at index 0.
        best: IoU of the best candidate mask after the first click.
        box: IoU with a box prompt.
    """

    photograph: str
    iou: tuple[float, ...]
    best: float
    box: float

    def after(self, clicks: int) -> float:
        """IoU after a number of clicks, or after the last click if there were fewer."""
        return self.iou[min(clicks, len(self.iou)) - 1]

    @property
    def clicks_to_goal(self) -> int:
        """Number of clicks to reach ``GOAL``; ``MOST_CLICKS`` if it was not reached."""
        reached = [i for i, value in enumerate(self.iou, 1) if value >= GOAL]
        return reached[0] if reached else MOST_CLICKS


def find_photographs(folder: Path, index: Path | None, split: str) -> list[Path]:
    """Finds photographs NAME.jpg with NAME.json (COCO run-length masks), of one split of an index csv.

    Args:
        folder: their folder.
        index: csv with columns ``name`` and ``split``; None means ``folder/index.csv``. Without such a
            file all photographs are used.
        split: the split to use.

    Raises:
        ValueError: there are none.
    """
    found = sorted(path for path in folder.glob("*.jpg") if path.with_suffix(".json").exists())
    index = index or folder / "index.csv"
    if index.exists():
        with index.open(newline="") as file:
            chosen = {row["name"] for row in csv.DictReader(file) if row["split"] == split}
        found = [path for path in found if path.stem in chosen]
    if not found:
        raise ValueError(f"{folder} has no NAME.jpg with a NAME.json of the split {split!r}")
    return found


def read_photograph(path: Path, size: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, resized to a square, and masks of some of its objects.

    Args:
        path: the picture; its masks are in a JSON file of the same name.
        size: side S of the square, in pixels.
        most: maximum number of objects, chosen at even intervals from those that are large enough.

    Returns:
        (S, S, 3) uint8 RGB, and (N, S, S) bool.
    """
    from pycocotools import mask as coco_mask

    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} cannot be read as an image")
    picture = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    masks = []
    for annotation in json.loads(path.with_suffix(".json").read_text())["annotations"]:
        mask = coco_mask.decode(annotation["segmentation"]).astype(np.float32)
        small = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) > 0.5
        if small.mean() >= LEAST_AREA:
            masks.append(small)
    chosen = np.unique(np.linspace(0, len(masks) - 1, min(most, len(masks))).round().astype(int))
    kept = [masks[i] for i in chosen]
    return np.asarray(picture), np.stack(kept) if kept else np.zeros((0, size, size), bool)


def next_click(true: np.ndarray, found: np.ndarray) -> tuple[tuple[float, float], int]:
    """A click on the wrong pixel farthest from the boundary of its error region.

    It is positive on a missed part of the object, negative outside the object.

    Args:
        true, found: (S, S) bool; if they are equal, the click is in the middle of the object.

    Returns:
        (u, v) in view pixels, and the label 1 or 0.
    """
    missed, excess = true & ~found, found & ~true
    if not (missed.any() or excess.any()):
        missed = true
    depths = [
        cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        for part in (missed, excess)
    ]
    label = _POSITIVE if depths[0].max() >= depths[1].max() else _NEGATIVE
    depth = depths[0] if label == _POSITIVE else depths[1]
    v, u = np.unravel_index(depth.argmax(), depth.shape)
    return (float(u) + 0.5, float(v) + 0.5), label


def evaluate_photographs(
    model: Model,
    photographs: Iterable[Path],
    most: int = 8,
    mask_before: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Segments the objects of photographs and scores the masks.

    Args:
        model: the model.
        photographs: the pictures, see :func:`find_photographs`.
        most: maximum number of objects per photograph.
        mask_before: whether each correction gets the logits of the previous mask, as in SAM 2's video
            predictor; if false, it is decoded from the clicks alone.
        progress: called after every photograph.
    """
    answers = []
    for path in photographs:
        image, masks = read_photograph(path, model.image_size, most)
        if len(masks):
            answers += _answers(model, path.stem, image, masks, mask_before)
        progress()
    return answers


@torch.inference_mode()
def _answers(
    model: Model, name: str, image: np.ndarray, masks: np.ndarray, mask_before: bool
) -> list[Answer]:
    features = model.encode(image)
    boxed = _decode(model, features, *_boxes(masks), None)
    box = [iou(f, t) for f, t in zip(_shown(boxed.best, masks)[:, 0], masks, strict=True)]
    found = np.zeros_like(masks)
    best = [0.0] * len(masks)
    history: list[list[float]] = [[] for _ in masks]
    points = np.zeros((len(masks), 0, 2), np.float32)
    labels = np.zeros((len(masks), 0), np.int32)
    before: Tensor | None = None
    active = np.arange(len(masks))  # from the last scored click on: those below the goal
    for click in range(1, MOST_CLICKS + 1):
        clicks = [next_click(masks[i], found[i]) for i in active]
        points = np.concatenate([points, np.array([[at] for at, _ in clicks], np.float32)], 1)
        labels = np.concatenate([labels, np.array([[label] for _, label in clicks], np.int32)], 1)
        decoded = _decode(model, features, points, labels, before if mask_before else None)
        found[active] = _shown(decoded.best, masks)[:, 0]
        for i in active:
            history[i].append(iou(found[i], masks[i]))
        if click == 1:
            candidates = _shown(decoded.masks, masks)
            best = [
                max(iou(one, mask) for one in some)
                for some, mask in zip(candidates, masks, strict=True)
            ]
        going = np.array([click < max(SCORED) or max(history[i]) < GOAL for i in active])
        active, points, labels = active[going], points[going], labels[going]
        before = decoded.best[torch.from_numpy(going).to(decoded.best.device)]
        if not len(active):
            break
    return [Answer(name, tuple(values), best[i], box[i]) for i, values in enumerate(history)]


def _decode(
    model: Model,
    features: Features,
    points: np.ndarray,
    labels: np.ndarray,
    before: Tensor | None,
) -> Decoded:
    """Decodes a view for N objects with their points (N, P, 2) and labels (N, P)."""
    prompts = {
        "point_coords": torch.from_numpy(points).to(model.device),
        "point_labels": torch.from_numpy(labels).to(model.device),
    }
    return model.decode(features, points=prompts, previous=before)


def _boxes(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes around masks (N, S, S) as points (N, 2, 2) and labels (N, 2)."""
    corners = []
    for mask in masks:
        v, u = np.nonzero(mask)
        corners.append([[u.min(), v.min()], [u.max() + 1, v.max() + 1]])
    return np.array(corners, np.float32), np.array([_BOX] * len(masks), np.int32)


def _shown(logits: Tensor, masks: np.ndarray) -> np.ndarray:
    """Logits (N, M, h, w) as masks (N, M, S, S) bool."""
    return (F.interpolate(logits.float(), size=masks.shape[-2:], mode="bilinear") > 0).cpu().numpy()


def table_row(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """A row of the table: means over the objects of a set."""

    def mean(values: Iterable[float]) -> float:
        return round(float(np.mean(list(values))), 4)

    return {
        "set": name,
        "objects": len(answers),
        **{f"{n} click{'s' * (n > 1)}": mean(a.after(n) for a in answers) for n in SCORED},
        "best of 3": mean(a.best for a in answers),
        "box": mean(a.box for a in answers),
        f"NoC {GOAL:g}": mean(a.clicks_to_goal for a in answers),
        "missed": mean(max(a.iou) < GOAL for a in answers),
    }
