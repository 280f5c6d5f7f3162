"""An object that is looked for, and what is known of it from panorama to panorama."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View
from sap_ros.core.instances import measure
from sap_ros.core.memory import ObjectMemory
from sap_ros.core.motion import Following, main_part, smallest_rotation
from sap_ros.core.panorama import Region
from sap_ros.core.prompts import POSITIVE, Prompt
from sap_ros.core.tracker import ViewMask
from sap_ros.core.views import Fused

_LAST_WIDTH = 1024  # of the panorama of an object's last mask, which is kept


@dataclass
class TrackedObject:
    """An object that is looked for, and what is known of it."""

    prompt: Prompt
    fresh: bool = True  # the prompt is on this panorama, and not on an earlier one
    masks: dict[int, ViewMask] | None = None  # by frame; None until looked for
    fused: Fused | None = None  # of these
    view: View | None = None  # its own view of this panorama
    memory: ObjectMemory = field(default_factory=ObjectMemory)
    where: np.ndarray | None = None  # directions (P, 3) all over its last mask
    moved: np.ndarray = field(default_factory=lambda: np.zeros(3))  # between its last two masks
    solid_angle: float = 0.0  # of its last mask
    last: np.ndarray | None = None  # that mask, small
    score: float = 1.0  # of the mask that was found where a person pointed
    # Its clicks, carried along with it: those that its masks agree with.
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    centre: np.ndarray = field(default_factory=lambda: np.zeros(3))  # of its mask, by those
    certain: np.ndarray | None = None  # directions (P, 3) that are the object's, or may be
    lost_for: int = 0  # panoramas since it was last seen

    @property
    def predicted(self) -> float:
        """Predicted predicted_iou of its masks, weighted by their area."""
        masks = self.masks or {}
        area = {i: float((mask.logits > 0).sum()) for i, mask in masks.items()}
        total = sum(area.values())
        return (
            sum(area[i] * mask.predicted_iou for i, mask in masks.items()) / total if total else 0.0
        )

    def clicks(self) -> Prompt:
        """Its clicks, where it is expected now."""
        still = np.linalg.norm(self.moved) < 0.2 * math.sqrt(self.solid_angle / math.pi)
        moved = np.zeros(3) if still else self.moved
        points = self.points @ smallest_rotation(self.centre, self.centre + moved).T
        return Prompt(1, points, self.labels)

    def credible(self, mask: ViewMask, seen: float, limits: Following) -> bool:
        """Whether a mask may be the object's, in a frame that sees so many sr."""
        # A mask that was poor when a person pointed at it is taken at his word later, too.
        if mask.predicted_iou < min(limits.min_score, self.score / 2):
            return False
        if mask.predicted_iou > limits.sure_score or not self.solid_angle:
            return True
        solid_angle = float((mask.logits > 0).mean()) * seen
        return solid_angle <= limits.max_growth * self.solid_angle

    def plausible(
        self, region: Region, mask: np.ndarray, size: tuple[int, int], limits: Following
    ) -> bool:
        """Whether it may have got from its last mask to this one, (rows, columns) of a region."""
        if self.where is None or self.lost_for or not mask.any():
            return True
        now = measure(mask, 1, 1.0, region, size)
        expected = self.where.mean(0) + self.moved
        cosine = float(now.direction @ expected) / max(float(np.linalg.norm(expected)), 1e-9)
        radius = math.sqrt(max(now.solid_angle, self.solid_angle) / math.pi)
        if math.acos(min(1.0, max(-1.0, cosine))) > math.radians(limits.margin) + radius:
            return False
        masks = (self.masks or {}).values()
        if max((mask.predicted_iou for mask in masks), default=0.0) > limits.sure_score:
            return True
        return now.solid_angle <= limits.max_growth * self.solid_angle

    def note(self, region: Region, mask: np.ndarray, size: tuple[int, int]) -> None:
        """Keeps where it is, by its mask (rows, columns) in a region, for the next panorama."""
        rows = mask.sum(1)
        if not rows.any():
            self.lost_for += 1
            return
        self.lost_for = 0
        width = size[0]
        weights = sphere.row_solid_angles(size)[region.top : region.top + region.rows]
        self.solid_angle = float(weights @ rows)
        step = max(1, math.isqrt(int(rows.sum()) // 300))
        v, u = np.nonzero(mask[::step, ::step])
        if not len(v):  # it is thin
            step = 1
            v, u = (index[:: max(1, len(index) // 300)] for index in np.nonzero(mask))
        pixels = np.stack([u * step + region.left, v * step + region.top], -1) + 0.5
        where = main_part(sphere.pixel_to_direction(pixels, size), self.solid_angle)
        self.last = _small(region, mask, size)
        centre = where.mean(0)
        if self.where is None or self.fresh:
            points, labels, self.centre = self.prompt.directions, self.prompt.labels, centre
            self.score = self.predicted
        else:
            self.moved = centre - self.where.mean(0)
            points, labels = self.points, self.labels
            # The centres of two masks of a thing at rest differ, too: clicks are not to drift.
            if np.linalg.norm(centre - self.centre) > 0.2 * math.sqrt(self.solid_angle / math.pi):
                points = points @ smallest_rotation(self.centre, centre).T
                self.centre = centre
        self.where = where
        u, v = sphere.direction_to_pixel(points, size).astype(int).T
        u, v = np.mod(u - region.left, width), v - region.top
        inside = (u < region.columns) & (v >= 0) & (v < region.rows)
        on = mask[v.clip(0, region.rows - 1), u.clip(0, region.columns - 1)] & inside
        kept = on == (labels == POSITIVE)
        if not (kept & (labels == POSITIVE)).any():
            points = where[(where @ where.mean(0)).argmax()][None]
            labels, kept = np.array([POSITIVE]), np.array([True])
        self.points, self.labels = points[kept], labels[kept]


def _small(region: Region, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An object's mask on a panorama reduced to 1024x512 or a little more, as uint8."""
    width, height = size
    step = max(1, width // _LAST_WIDTH)
    small = np.zeros((height // step, width // step), np.uint8)
    rows = (np.arange(len(small)) + 0.5) * step - region.top
    columns = np.mod((np.arange(small.shape[1]) + 0.5) * step - region.left, width)
    down = (rows >= 0) & (rows < region.rows)
    along = columns < region.columns
    small[np.ix_(down, along)] = mask[np.ix_(rows[down].astype(int), columns[along].astype(int))]
    return small
