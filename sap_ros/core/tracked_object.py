"""State of one object: its prompt, its masks on this panorama, and where it was on earlier ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.appearance import Appearances
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
    turned,
)
from sap_ros.core.panorama import NOWHERE, Region
from sap_ros.core.prompts import POSITIVE, Prompt

# Smallest width of the reduced panorama that stores an object's last mask.
_LAST_MASK_WIDTH = 1024

# Weight of the newest panorama in the moving average of the logarithm of an object's solid angle. With it,
# an object that grows by half from image to image stays within a max_growth of 3.
_ADAPTATION = 0.4

# A mask that is larger than the object was by more than this factor is in doubt.
_SUDDEN_GROWTH = 1.7

# After so many panoramas on which it was found, an object's distractors are forgotten.
_SETTLED = 3

# The largest solid angle of an object is forgotten by this factor on each panorama.
_WHOLE_FADES = 0.95

# An appearance is remembered on one of so many panoramas, where the size differs from the usual one by less
# than this share: DAM4SAM's intervals.
_APPEARANCE_EVERY = 5
_USUAL = 0.2

# Rotations by less than this are not worth turning an object's last mask, in rad.
_TURNS_MASK = math.radians(1)

# Approximate number of directions that sample a mask.
_SAMPLES = 300


@dataclass(frozen=True)
class Clicks:
    """An object's clicks, which move with the object.

    Attributes:
        directions: (P, 3) unit vectors.
        labels: (P,), positive or negative.
        centre: (3,) mean of the mask's directions when the clicks were set or moved last.
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
        solid_angle: solid angle of the mask, in sr.
        usual_solid_angle: the same, averaged over the last panoramas, because a leaking mask can grow by
            only a little on each.
        whole_solid_angle: the largest of the last panoramas, because an object is hidden bit by bit.
        mask: (h, w) uint8, the mask on a reduced panorama.
        clicks: its clicks that agree with the mask.
        prompted_iou: predicted IoU of its mask on the panorama on which it was prompted.
    """

    directions: np.ndarray
    motion: np.ndarray
    solid_angle: float
    usual_solid_angle: float
    whole_solid_angle: float
    mask: np.ndarray
    clicks: Clicks
    prompted_iou: float

    @cached_property
    def expected(self) -> np.ndarray:
        """Expected mean of its directions (3,) on the next panorama, if it moves on as before."""
        return self.directions.mean(0) + self.motion

    @cached_property
    def moved(self) -> np.ndarray:
        """Its directions (P, 3) on the next panorama, if it moves on as before."""
        return rotation_between(self.directions.mean(0), self.expected).apply(self.directions)

    @cached_property
    def radius(self) -> float:
        """Approximate angular radius in rad, along the longer axis of an elongated object."""
        return max(disk_radius(self.solid_angle), angular_radius(self.directions))


@dataclass(frozen=True)
class Distractor:
    """What looks like a lost object, and is something else.

    Attributes:
        direction: (3,) unit vector to it, where it was seen last.
        likeness: its highest similarity to the object so far.
        unseen: number of panoramas since then.
    """

    direction: np.ndarray
    likeness: float
    unseen: int = 0


@dataclass
class TrackedObject:
    """An object to segment.

    Attributes:
        prompt: its prompt, with all corrections on the same panorama.
        memory: SAM 2's memory of it.
        prompted_here: the prompt is on the current panorama, not on an earlier one.
        masks: its masks on the current panorama, by view; None: it was not looked for yet.
        fused: the masks fused on the panorama.
        own_view: the view that was fitted to it where it was prompted.
        track: where it was on the earlier panoramas; after :meth:`note`, where it is on this one.
        lost_for: number of panoramas on which it was not found since it was found last.
        found_for: number of panoramas on which it was found without a break.
        noted: whether :meth:`note` was called with the mask on this panorama.
        feedback: mask logits (S / 4, S / 4) by view that the last points of the prompt correct.
        appearances: what it looked like, see :mod:`sap_ros.core.appearance`.
        distractors: what looked like it, while it was lost, where it could not be.
        turned: how everything has turned since the last panorama because the camera turned, less what was taken
            off for its tilt; None: it was taken off, or is not known.
    """

    prompt: Prompt
    memory: ObjectMemory = field(default_factory=ObjectMemory)
    prompted_here: bool = True
    masks: dict[int, ViewMask] | None = None
    fused: Fused | None = None
    own_view: View | None = None
    track: Track | None = None
    lost_for: int = 0
    found_for: int = 0
    noted: bool = False
    feedback: dict[int, np.ndarray] = field(default_factory=dict)
    appearances: Appearances = field(default_factory=Appearances)
    distractors: list[Distractor] = field(default_factory=list)
    turned: Callable[[], Rotation] | None = None

    @property
    def usual_solid_angle(self) -> float:
        """Its solid angle in sr, averaged over the last panoramas; infinite if it was never found."""
        return math.inf if self.track is None else self.track.usual_solid_angle

    @property
    def looked_for(self) -> bool:
        """Whether it has been looked for on the current panorama."""
        return self.fused is not None

    @property
    def predicted_iou(self) -> float:
        """Predicted IoU of its masks, weighted by their area; 0 if all are empty."""
        masks = self.masks or {}
        area = {i: float((mask.logits > 0).sum()) for i, mask in masks.items()}
        total = sum(area.values())
        return (
            sum(area[i] * mask.predicted_iou for i, mask in masks.items()) / total if total else 0.0
        )

    def corrected(self, prompt: Prompt) -> TrackedObject:
        """The object with a further prompt, to be looked for on the current panorama.

        On the panorama on which the object was prompted, the prompt is extended. On a later one, the new
        prompt replaces it, and the memory is kept; if it has only negative points, it extends the object's
        clicks, which have moved with the object.
        """
        if self.prompted_here:
            feedback = self.feedback
            if self.masks is not None:
                feedback = {view: mask.logits for view, mask in self.masks.items()}
            if prompt.box is not None or prompt.mask is not None:  # it replaces the masks so far
                feedback = {}
            return TrackedObject(
                self.prompt.extended(prompt), own_view=self.own_view, feedback=feedback
            )
        if not prompt.complete:
            clicks = self.track.clicks if self.track is not None else self.prompt
            known = Prompt(prompt.object_id, clicks.directions, clicks.labels)
            prompt = known.extended(prompt)
        return TrackedObject(prompt, memory=self.memory.copy())

    def advance(
        self, turned: Callable[[], Rotation] | None = None, tilted: Rotation | None = None
    ) -> None:
        """Moves on to the next panorama. A prompt that was not looked for applies to it unchanged.

        Args:
            turned: how everything has turned since the last panorama, because the camera turned.
            tilted: the part of it that is known from the camera's tilt, and is taken off from tracked objects, too.
        """
        self.turned = turned
        if self.lost_for:
            self.take_off_turn()
        elif tilted is not None:
            self._rotate(tilted)
            if turned is not None:
                self.turned = lambda: turned() * tilted.inv()
        if self.masks is not None:
            self.prompted_here, self.noted = False, False
            self.masks = self.fused = None
        else:  # a view's index and content differ on the next panorama
            self.own_view, self.feedback = None, {}

    def give_up(self) -> None:
        """Marks it as lost on this panorama."""
        self.masks = {}
        self.fused = Fused(NOWHERE, np.full((1, 1), NO_OBJECT, np.float32))

    def take_off_turn(self) -> None:
        """Turns where it was, and its distractors, with the camera; once on each panorama.

        An object that is tracked is expected where it was, moved on as before; one that is lost, where it was in
        the room.
        """
        if self.turned is None:
            return
        rotation, self.turned = self.turned(), None
        self._rotate(rotation)

    def _rotate(self, rotation: Rotation) -> None:
        """Rotates where it was, and its distractors, as things in a panorama do when the camera turns."""
        self.distractors = [
            replace(each, direction=rotation.apply(each.direction)) for each in self.distractors
        ]
        if self.track is None:
            return
        clicks, mask = self.track.clicks, self.track.mask
        if not self.lost_for and rotation.magnitude() > _TURNS_MASK:  # a lost object's is not used
            mask = turned(mask, rotation, labels=True)
        self.track = replace(
            self.track,
            mask=mask,
            directions=rotation.apply(self.track.directions),
            motion=rotation.apply(self.track.motion),
            clicks=replace(
                clicks,
                directions=rotation.apply(clicks.directions),
                centre=rotation.apply(clicks.centre),
            ),
        )

    def expected_clicks(self) -> Prompt | None:
        """Its clicks, moved to its expected position on this panorama; None if it was never found."""
        if self.track is None:
            return None
        track, clicks = self.track, self.track.clicks
        resting = np.linalg.norm(track.motion) < AT_REST * disk_radius(track.solid_angle)
        motion = np.zeros(3) if resting else track.motion
        rotation = rotation_between(clicks.centre, clicks.centre + motion)
        return Prompt(self.prompt.object_id, rotation.apply(clicks.directions), clicks.labels)

    def credible(self, mask: ViewMask, view_solid_angle: float, limits: Following) -> bool:
        """Whether a mask may be the object, by predicted IoU and size, given the view's solid angle in sr."""
        track = self.track
        # An object with a poor prompted mask may also have poor masks later.
        first = track.prompted_iou if track is not None else 1.0
        if mask.predicted_iou < min(limits.min_score, first / 2):
            return False
        if mask.predicted_iou > limits.sure_score or track is None:
            return True
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        return solid_angle <= limits.max_growth * track.usual_solid_angle

    def of_usual_size(self, mask: ViewMask, view_solid_angle: float, limits: Following) -> bool:
        """Whether a mask is at most max_growth times as large as the whole object, or as small as its last masks."""
        assert self.track is not None
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        least = self.track.usual_solid_angle / limits.max_growth
        return least <= solid_angle <= limits.max_growth * self.track.whole_solid_angle

    def grew(self, mask: ViewMask, view_solid_angle: float) -> bool:
        """Whether a mask is so much larger than the object was that it may show something else, too."""
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        return (
            self.track is not None and solid_angle > _SUDDEN_GROWTH * self.track.usual_solid_angle
        )

    def typical(self, mask: ViewMask, view_solid_angle: float, limits: Following) -> bool:
        """Whether to remember its appearance in a mask: it is sure, and of its usual size; now and then."""
        if self.track is None or self.found_for % _APPEARANCE_EVERY:
            return False
        solid_angle = float((mask.logits > 0).mean()) * view_solid_angle
        ratio = solid_angle / self.track.usual_solid_angle
        return mask.predicted_iou > limits.sure_score and abs(ratio - 1) < _USUAL

    def plausible(
        self, region: Region, mask: np.ndarray, size: tuple[int, int], limits: Following
    ) -> bool:
        """Whether it may have moved from its last mask to this one.

        Args:
            region: the part of the panorama that the mask covers.
            mask: (rows, columns) bool.
            size: the panorama's (width, height).
            limits: limits of its motion and growth.
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
        """Updates ``track`` with its mask; see :meth:`plausible` for the arguments."""
        self.noted = True
        if not mask.any():
            self.take_off_turn()
            self.lost_for, self.found_for = self.lost_for + 1, 0
            return
        self.turned = None
        self.found_for += 1
        was_lost, self.lost_for = self.lost_for > 0, 0
        if self.found_for >= _SETTLED:
            self.distractors = []
        weights = sphere.row_solid_angles(size)[region.top : region.top + region.rows]
        solid_angle = float(weights @ mask.sum(1))
        directions = main_part(sample_mask(region, mask, size), solid_angle)
        centre = directions.mean(0)
        before = self.track
        if before is None or self.prompted_here:
            clicks = Clicks(self.prompt.directions, self.prompt.labels, centre)
            motion, prompted_iou = np.zeros(3), self.predicted_iou
            usual = whole = solid_angle
        else:
            clicks, prompted_iou = before.clicks, before.prompted_iou
            usual = before.usual_solid_angle
            usual *= (solid_angle / usual) ** _ADAPTATION
            whole = max(usual, before.whole_solid_angle * _WHOLE_FADES)
            # The motion of several panoramas, or a turn of the robot, does not predict the next motion.
            motion = np.zeros(3) if was_lost else centre - before.directions.mean(0)
            # The clicks stay if it is at rest, because they would drift.
            if np.linalg.norm(centre - clicks.centre) > AT_REST * disk_radius(solid_angle):
                moved = rotation_between(clicks.centre, centre).apply(clicks.directions)
                clicks = replace(clicks, directions=moved, centre=centre)
        clicks = _agreeing(clicks, region, mask, size, directions)
        small = _reduced(region, mask, size)
        self.track = Track(
            directions, motion, solid_angle, usual, whole, small, clicks, prompted_iou
        )


def sample_mask(region: Region, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """About 300 directions (P, 3) that sample a mask evenly by solid angle, also near the poles.

    Args:
        region: the part of the panorama that the mask covers.
        mask: (rows, columns) bool, with at least one pixel.
        size: the panorama's (width, height).
    """
    elevation = (0.5 - (np.arange(len(mask)) + region.top + 0.5) / size[1]) * np.pi
    area = np.cos(elevation)  # of a pixel, relative to one at the horizon
    step = max(1, math.isqrt(int(area @ mask.sum(1)) // _SAMPLES))
    v, u = np.nonzero(mask[::step])
    v *= step
    # In every step-th row, every step-th pixel at the horizon, and fewer pixels near the poles.
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
    """The clicks that agree with a mask; if none of them is positive, one click in the mask's middle."""
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
    """A mask on a panorama reduced to a width of 1024 to 2047 (or its own width, if smaller), as uint8."""
    width, height = size
    step = max(1, width // _LAST_MASK_WIDTH)
    small = np.zeros((height // step, width // step), np.uint8)
    rows = (np.arange(len(small)) + 0.5) * step - region.top
    columns = np.mod((np.arange(small.shape[1]) + 0.5) * step - region.left, width)
    down = (rows >= 0) & (rows < region.rows)
    along = columns < region.columns
    small[np.ix_(down, along)] = mask[np.ix_(rows[down].astype(int), columns[along].astype(int))]
    return small
