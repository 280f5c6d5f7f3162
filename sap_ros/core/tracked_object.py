"""One object's state: its prompt, what was found of it on this panorama, and where it was before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View
from sap_ros.core.fusion import NO_OBJECT, Fused, ViewMask
from sap_ros.core.instances import measure
from sap_ros.core.memory import ObjectMemory
from sap_ros.core.motion import (
    AT_REST,
    Following,
    angular_radius,
    disk_radius,
    main_part,
    rotation_between,
)
from sap_ros.core.panorama import NOWHERE, Region
from sap_ros.core.prompts import POSITIVE, Prompt

# Width of the reduced panorama on which an object's last mask is kept, about.
_LAST_MASK_WIDTH = 1024

# Share of the change in an object's size (by its logarithm) that is taken for usual with each panorama: an
# object that grows by half from image to image stays within a max_growth of 3.
_ADAPTATION = 0.4

# About so many directions sample a mask.
_SAMPLES = 300


@dataclass(frozen=True)
class Clicks:
    """An object's clicks, moved along with it.

    Attributes:
        directions: (P, 3) unit vectors.
        labels: (P,), positive or negative.
        centre: (3,) the mean of the mask's directions to which the clicks belong.
    """

    directions: np.ndarray
    labels: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Track:
    """Where an object was on the last panorama on which it was found.

    Attributes:
        directions: (P, 3) unit vectors that sample its mask evenly, strays left out.
        motion: (3,) difference of the means of the directions of its last two masks.
        solid_angle: of the mask, in sr.
        usual_solid_angle: the same, averaged over the last panoramas: a mask that leaks grows by a little
            in each, too.
        mask: (h, w) uint8, the mask on a reduced panorama.
        clicks: its clicks, as far as the mask agrees with them.
        prompted_iou: predicted IoU of the mask that was found where a person prompted it.
    """

    directions: np.ndarray
    motion: np.ndarray
    solid_angle: float
    usual_solid_angle: float
    mask: np.ndarray
    clicks: Clicks
    prompted_iou: float

    @property
    def expected(self) -> np.ndarray:
        """Where the mean of its directions (3,) is on the next panorama, if it moves on as before."""
        return self.directions.mean(0) + self.motion

    @property
    def radius(self) -> float:
        """About its angular radius in rad, in its longer direction."""
        return max(disk_radius(self.solid_angle), angular_radius(self.directions))


@dataclass
class TrackedObject:
    """An object that is looked for.

    Attributes:
        prompt: what was prompted last.
        memory: SAM 2's memory of it.
        prompted_here: the prompt is on the current panorama, and not on an earlier one.
        masks: what was found on the current panorama, by view; None: not looked for yet.
        fused: the same on the panorama.
        own_view: the view of the current panorama that was fitted to it.
        track: where it was on the panoramas before, or is on this one after :meth:`note`.
        lost_for: on how many panoramas it has not been found since it was seen last.
        noted: what was found on this panorama is in ``track``.
        feedback: logits (S / 4, S / 4) by view that a correction of the prompt corrects.
        appearance: how it looked where it was prompted, see :mod:`sap_ros.core.appearance`.
    """

    prompt: Prompt
    memory: ObjectMemory = field(default_factory=ObjectMemory)
    prompted_here: bool = True
    masks: dict[int, ViewMask] | None = None
    fused: Fused | None = None
    own_view: View | None = None
    track: Track | None = None
    lost_for: int = 0
    noted: bool = False
    feedback: dict[int, np.ndarray] = field(default_factory=dict)
    appearance: np.ndarray | None = None

    @property
    def usual_solid_angle(self) -> float:
        """Its solid angle in sr, averaged over the last panoramas; infinite where it was never found."""
        return math.inf if self.track is None else self.track.usual_solid_angle

    @property
    def looked_for(self) -> bool:
        """Whether it has been looked for on the current panorama."""
        return self.fused is not None

    @property
    def predicted_iou(self) -> float:
        """Predicted IoU of its masks, weighted by their area; 0 where nothing was found."""
        masks = self.masks or {}
        area = {i: float((mask.logits > 0).sum()) for i, mask in masks.items()}
        total = sum(area.values())
        return (
            sum(area[i] * mask.predicted_iou for i, mask in masks.items()) / total if total else 0.0
        )

    def corrected(self, prompt: Prompt) -> TrackedObject:
        """The object with a further prompt, to be looked for on the current panorama.

        On the panorama on which it was prompted, the prompts are taken together. On a later one, the
        new prompt says where the object is; points off the object alone are taken together with the
        object's clicks, which have moved along with it.
        """
        if self.prompted_here:
            feedback = self.feedback
            if self.masks is not None:
                feedback = {view: mask.logits for view, mask in self.masks.items()}
            if prompt.box is not None or prompt.mask is not None:  # it is drawn anew
                feedback = {}
            return TrackedObject(
                self.prompt.extended(prompt), own_view=self.own_view, feedback=feedback
            )
        if not prompt.complete:
            clicks = self.track.clicks if self.track is not None else self.prompt
            known = Prompt(prompt.object_id, clicks.directions, clicks.labels)
            prompt = known.extended(prompt)
        return TrackedObject(prompt, memory=self.memory.copy())

    def advance(self) -> None:
        """The next panorama is there. A prompt that was not looked for holds for it unchanged."""
        if self.masks is not None:
            self.prompted_here, self.noted = False, False
            self.masks = self.fused = None
        else:  # views have other numbers there, and show something else
            self.own_view, self.feedback = None, {}

    def give_up(self) -> None:
        """Takes it to be lost on this panorama."""
        self.masks = {}
        self.fused = Fused(NOWHERE, np.full((1, 1), NO_OBJECT, np.float32))

    def expected_clicks(self) -> Prompt | None:
        """Its clicks where it is expected on this panorama; None where it was never seen."""
        if self.track is None:
            return None
        track, clicks = self.track, self.track.clicks
        resting = np.linalg.norm(track.motion) < AT_REST * disk_radius(track.solid_angle)
        motion = np.zeros(3) if resting else track.motion
        rotation = rotation_between(clicks.centre, clicks.centre + motion)
        return Prompt(self.prompt.object_id, rotation.apply(clicks.directions), clicks.labels)

    def credible(self, mask: ViewMask, view_solid_angle: float, limits: Following) -> bool:
        """Whether a mask in a view of that solid angle may be the object, by predicted IoU and size."""
        track = self.track
        # A mask that was poor where a person prompted it may be poor later, too.
        first = track.prompted_iou if track is not None else 1.0
        if mask.predicted_iou < min(limits.min_score, first / 2):
            return False
        if mask.predicted_iou > limits.sure_score or track is None:
            return True
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        return solid_angle <= limits.max_growth * track.usual_solid_angle

    def of_usual_size(self, mask: ViewMask, view_solid_angle: float, limits: Following) -> bool:
        """Whether a mask in a view of that solid angle is as large as the object was, within max_growth."""
        assert self.track is not None
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        ratio = solid_angle / self.track.usual_solid_angle
        return 1 / limits.max_growth <= ratio <= limits.max_growth

    def plausible(
        self, region: Region, mask: np.ndarray, size: tuple[int, int], limits: Following
    ) -> bool:
        """Whether it may have moved from its last mask to this one.

        Args:
            region: the part of the panorama that the mask is of.
            mask: (rows, columns) bool.
            size: the panorama's (width, height).
            limits: how far it may move, and by how much it may grow.
        """
        track = self.track
        if track is None or self.lost_for or not mask.any():
            return True
        now = measure(mask, self.prompt.object_id, 1.0, region, size)
        radius = max(disk_radius(now.solid_angle), track.radius)
        if sphere.angle_between(now.direction, track.expected) > limits.reach + radius:
            return False
        masks = (self.masks or {}).values()
        if max((mask.predicted_iou for mask in masks), default=0.0) > limits.sure_score:
            return True
        return now.solid_angle <= limits.max_growth * track.usual_solid_angle

    def note(self, region: Region, mask: np.ndarray, size: tuple[int, int]) -> None:
        """Keeps where it is for the next panorama; see :meth:`plausible` for the arguments."""
        self.noted = True
        if not mask.any():
            self.lost_for += 1
            return
        was_lost, self.lost_for = self.lost_for > 0, 0
        weights = sphere.row_solid_angles(size)[region.top : region.top + region.rows]
        solid_angle = float(weights @ mask.sum(1))
        directions = main_part(sample_mask(region, mask, size), solid_angle)
        centre = directions.mean(0)
        before = self.track
        if before is None or self.prompted_here:
            clicks = Clicks(self.prompt.directions, self.prompt.labels, centre)
            motion, prompted_iou, usual = np.zeros(3), self.predicted_iou, solid_angle
        else:
            clicks, prompted_iou = before.clicks, before.prompted_iou
            usual = before.usual_solid_angle
            usual *= (solid_angle / usual) ** _ADAPTATION
            # Found again, it has moved over several panoramas, or the robot has turned.
            motion = np.zeros(3) if was_lost else centre - before.directions.mean(0)
            # Not where it rests: the clicks would drift.
            if np.linalg.norm(centre - clicks.centre) > AT_REST * disk_radius(solid_angle):
                moved = rotation_between(clicks.centre, centre).apply(clicks.directions)
                clicks = replace(clicks, directions=moved, centre=centre)
        clicks = _agreeing(clicks, region, mask, size, directions)
        small = _reduced(region, mask, size)
        self.track = Track(directions, motion, solid_angle, usual, small, clicks, prompted_iou)


def sample_mask(region: Region, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """About 300 directions (P, 3) that sample a mask evenly by solid angle, near the poles, too.

    Args:
        region: the part of the panorama that the mask is of.
        mask: (rows, columns) bool, with at least one pixel.
        size: the panorama's (width, height).
    """
    elevation = (0.5 - (np.arange(len(mask)) + region.top + 0.5) / size[1]) * np.pi
    area = np.cos(elevation)  # of a pixel, relative to one at the horizon
    step = max(1, math.isqrt(int(area @ mask.sum(1)) // _SAMPLES))
    v, u = np.nonzero(mask[::step])
    v *= step
    # Of every step-th row, every step-th pixel at the horizon, and fewer where rows are shorter.
    taken = np.floor(np.cumsum(area[v] / step)).astype(int)
    chosen = np.flatnonzero(np.diff(taken, prepend=0) > 0)
    if not len(chosen):  # it is small, or lies between the sampled rows
        v, u = np.nonzero(mask)
        chosen = np.arange(0, len(v), max(1, len(v) // _SAMPLES))
    pixels = np.stack([u[chosen] + region.left, v[chosen] + region.top], -1) + 0.5
    return sphere.pixel_to_direction(pixels, size)


def _agreeing(
    clicks: Clicks,
    region: Region,
    mask: np.ndarray,
    size: tuple[int, int],
    directions: np.ndarray,
) -> Clicks:
    """The clicks with which a mask agrees; where no positive one is left, one in its middle."""
    pixels = sphere.direction_to_pixel(clicks.directions, size).astype(int)
    u, v = region.locate(pixels, size[0]).T
    inside = (u < region.columns) & (v >= 0) & (v < region.rows)
    on_mask = mask[v.clip(0, region.rows - 1), u.clip(0, region.columns - 1)] & inside
    kept = on_mask == (clicks.labels == POSITIVE)
    if not (kept & (clicks.labels == POSITIVE)).any():
        middle = directions[(directions @ directions.mean(0)).argmax()]
        return replace(clicks, directions=middle[None], labels=np.array([POSITIVE]))
    return replace(clicks, directions=clicks.directions[kept], labels=clicks.labels[kept])


def _reduced(region: Region, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask on a panorama reduced to a width of 1024 to 2047 (or its own, if less), as uint8."""
    width, height = size
    step = max(1, width // _LAST_MASK_WIDTH)
    small = np.zeros((height // step, width // step), np.uint8)
    rows = (np.arange(len(small)) + 0.5) * step - region.top
    columns = np.mod((np.arange(small.shape[1]) + 0.5) * step - region.left, width)
    down = (rows >= 0) & (rows < region.rows)
    along = columns < region.columns
    small[np.ix_(down, along)] = mask[np.ix_(rows[down].astype(int), columns[along].astype(int))]
    return small
