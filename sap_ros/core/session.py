"""The public face of the core: panoramas in, prompts in, instances out.

session = PanoramaSession(load_model())
session.set_image(image)                       # (H, 2H, 3) uint8 RGB
session.add_prompt(from_pixels(1, [(2100, 1180)], session.size))
instances = session.segment()
instances.labels, instances.objects[0].azimuth

session.next_frame(image)                      # the stream goes on: objects are followed
instances = session.segment()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.following import Following, grown, main_part, smallest_rotation
from sap_ros.core.instances import Instance, Instances, connected, measure
from sap_ros.core.model import Features, Model
from sap_ros.core.projection import NO_OBJECT, Fusion, check_panorama
from sap_ros.core.prompts import POSITIVE, Prompt, box_outline
from sap_ros.core.strategies import Frames, Strategy, cover, make_frames
from sap_ros.core.tracker import FrameMask, FramePrompt, ObjectMemory, follow, track
from sap_ros.core.trajectory import Trajectory

FusionChoice = Literal["auto", "max", "weighted"]
ClickFrames = Literal["all", "first"]

_LAST_SIZE = (1024, 512)  # of an object's last mask, which is kept

#: Called with (frames done, frames in all, object id).
Progress = Callable[[int, int, int], None]


@dataclass
class _Object:
    prompt: Prompt
    fresh: bool = True  # the prompt is on this panorama, and not on an earlier one
    masks: dict[int, FrameMask] | None = None  # by frame; None until looked for
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


class PanoramaSession:
    """Segments prompted objects in panoramas, and keeps what can be used again.

    Args:
        model: the model; several sessions may share one.
        strategy: how the panorama is shown to it, see :mod:`sap_ros.core.strategies`.
        trajectory: the scan's path; the default is the method's.
        fusion: how views are fused, see :class:`sap_ros.core.projection.Canvas`; ``auto`` takes the
            model's own: ``max`` (the method) but for sap-nano.
        click_frames: a click is given to ``all`` frames that see it (the method), or to the
            ``first`` of the object's order alone.
        following: how objects are followed in a stream.

    Features of a frame are computed when first needed and kept until the image changes: a second
    prompt on the same image encodes nothing. Of earlier panoramas only each object's memory is kept,
    which is bounded.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy = "scan",
        trajectory: Trajectory | None = None,
        fusion: FusionChoice = "auto",
        click_frames: ClickFrames = "all",
        following: Following | None = None,
    ) -> None:
        for name, value, known in (
            ("strategy", strategy, ("scan", "direct", "patches")),
            ("fusion", fusion, ("auto", "max", "weighted")),
            ("click_frames", click_frames, ("all", "first")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        self.model, self.strategy = model, strategy
        self.fusion: Fusion = model.fusion if fusion == "auto" else fusion
        self.click_frames = click_frames
        self.trajectory = trajectory or Trajectory()
        self.following = following or Following()
        self._frames: Frames | None = None
        self._features: dict[int, Features] = {}
        self._objects: dict[int, _Object] = {}
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the panorama."""
        if self._size is None:
            raise ValueError("there is no panorama yet; call set_image first")
        return self._size

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the prompted objects, ascending."""
        return tuple(sorted(self._objects))

    @property
    def encoded(self) -> int:
        """How many frames of this panorama have been encoded."""
        return len(self._features)

    def set_image(self, image: np.ndarray) -> None:
        """Takes a panorama, (H, 2H, 3) uint8 RGB, 512x256 to 8192x4096, that has to do with none before.

        Prompts stay where they are on the sphere; nothing is remembered.

        Raises:
            ValueError: it is no such image.
        """
        self._take(image)
        for object_id, thing in self._objects.items():
            self._objects[object_id] = _Object(thing.prompt)

    def next_frame(self, image: np.ndarray) -> None:
        """Takes the next panorama of a stream, as :meth:`set_image` does.

        Objects that have been looked for are followed into it by :meth:`segment`, from memory;
        prompts added after this call are on this panorama.
        """
        self._take(image)
        for thing in self._objects.values():
            if thing.masks is not None:
                thing.fresh, thing.masks = False, None

    def _take(self, image: np.ndarray) -> None:
        check_panorama(image)
        self._frames = make_frames(image, self.strategy, self.model.image_size, self.trajectory)
        self._size = image.shape[1], image.shape[0]
        self._features.clear()

    def add_prompt(self, prompt: Prompt) -> None:
        """Adds an object; or corrects the one that has the prompt's id.

        On the panorama on which the object was pointed at, the prompts are taken together; on a
        later one, the new prompt is where the object is now, and points off it alone are taken with
        the object's clicks, which have moved along with it.

        Raises:
            ValueError: there are only points off the object, and there is none of the prompt's id.
        """
        there = self._objects.get(prompt.object_id)
        if there is None:
            prompt.check_complete()
            self._objects[prompt.object_id] = _Object(prompt)
        elif there.fresh:
            self._objects[prompt.object_id] = _Object(there.prompt.extended(prompt))
        else:
            if not prompt.complete:
                known = there.prompt.directions, there.prompt.labels
                points, labels = (there.points, there.labels) if len(there.points) else known
                prompt = Prompt(prompt.object_id, points, labels).extended(prompt)
            self._objects[prompt.object_id] = _Object(prompt, memory=there.memory)

    def sibling(self) -> PanoramaSession:
        """A session that works in the same way, with nothing in it: for another panorama."""
        return PanoramaSession(
            self.model,
            self.strategy,
            self.trajectory,
            self.fusion,
            self.click_frames,
            self.following,
        )

    def adopt(self, other: PanoramaSession, object_id: int) -> None:
        """Takes over an object that another session found, on a panorama before this one."""
        thing = other._objects.pop(object_id)
        thing.fresh, thing.masks = False, None
        self._objects[object_id] = thing

    def remove_object(self, object_id: int) -> None:
        """Forgets an object; ValueError when there is none of that id."""
        if object_id not in self._objects:
            raise ValueError(f"no object has the id {object_id}; there are {list(self.object_ids)}")
        del self._objects[object_id]

    def reset(self) -> None:
        """Forgets all objects; the panorama and its features stay."""
        self._objects.clear()

    def segment(self, progress: Progress = lambda done, count, object_id: None) -> Instances:
        """Looks for the objects that have not been looked for since their prompt or the image.

        Args:
            progress: told of every frame.

        Raises:
            ValueError: there is no panorama.
        """
        width, height = self.size
        best = np.zeros((height, width), np.float32)
        highest = max(self._objects, default=0)
        labels = np.zeros((height, width), np.uint8 if highest <= 254 else np.uint16)
        looked = [i for i, thing in self._objects.items() if thing.masks is None]
        for object_id in self.object_ids:
            logits = self._fused(object_id, progress)
            won = logits > best
            labels[won] = object_id
            np.maximum(best, logits, out=best)
        for object_id in looked:
            self._note(self._objects[object_id], labels == object_id)
        return Instances(labels, tuple(self._measured(labels, i) for i in self.object_ids))

    def frame_masks(self, object_id: int) -> dict[int, tuple[np.ndarray, FrameMask]]:
        """The frames that an object was looked for in, in order: image (S, S, 3) and mask."""
        assert self._frames is not None
        masks = self._objects[object_id].masks or {}
        return {i: (self._frames.render(i), mask) for i, mask in masks.items()}

    def _fused(self, object_id: int, progress: Progress) -> np.ndarray:
        frames, thing = self._frames, self._objects[object_id]
        assert frames is not None
        if thing.masks is None:
            done: list[int] = []

            def visited(frame: int) -> None:
                done.append(frame)
                progress(len(done), len(order), object_id)

            if thing.fresh:
                order = frames.order(thing.prompt.anchor)
                thing.certain = thing.prompt.certain()
                prompts = self._prompts(frames, thing.prompt, order)
                thing.masks = track(
                    self.model, self._encoded, order, prompts, visited, thing.memory
                )
            else:
                order = self._expected(frames, thing)
                thing.certain = None
                thing.masks = follow(
                    self.model,
                    self._encoded,
                    order,
                    thing.memory,
                    self._carried(frames, thing, order),
                    self._priors(thing, order),
                    lambda mask: self._credible(thing, mask),
                    visited,
                )
        masks = ((i, mask.logits) for i, mask in thing.masks.items())
        logits = frames.fuse(masks, self.fusion)
        if self.model.weak_memory and thing.certain is not None:
            pixels = sphere.direction_to_pixel(thing.certain, self.size)
            kept = connected(logits > 0, pixels)
            # On a person's word, a mask beside the click is better than none.
            logits[~(kept if kept.any() or not thing.fresh else logits > 0)] = NO_OBJECT
        if not thing.fresh and not self._plausible(thing, logits > 0):
            logits[:] = NO_OBJECT
        return logits

    def _plausible(self, thing: _Object, mask: np.ndarray) -> bool:
        """Whether a followed object may have got from its last mask to this one."""
        if thing.where is None or thing.lost_for or not mask.any():
            return True
        limits, now = self.following, measure(mask, 1, 1.0)
        expected = thing.where.mean(0) + thing.moved
        cosine = float(now.direction @ expected) / max(float(np.linalg.norm(expected)), 1e-9)
        radius = math.sqrt(max(now.solid_angle, thing.solid_angle) / math.pi)
        if math.acos(min(1.0, max(-1.0, cosine))) > math.radians(limits.margin) + radius:
            return False
        masks = (thing.masks or {}).values()
        if max((mask.quality for mask in masks), default=0.0) > limits.sure_score:
            return True
        return now.solid_angle <= limits.max_growth * thing.solid_angle

    def _expected(self, frames: Frames, thing: _Object) -> tuple[int, ...]:
        """The frames in which an object may be now, after it was seen in the panorama before."""
        where = thing.where
        if where is None:
            where = thing.prompt.anchor[None]
        near = cover(frames, grown(where, math.radians(self.following.margin)))
        if thing.lost_for:
            # The whole loop is looked through, some frames a panorama.
            loop = frames.order(where.mean(0))
            first = (thing.lost_for - 1) * self.following.search
            near += [loop[(first + i) % len(loop)] for i in range(self.following.search)]
        return tuple(dict.fromkeys(near))

    def _carried(
        self, frames: Frames, thing: _Object, order: tuple[int, ...]
    ) -> dict[int, FramePrompt]:
        """The clicks where the object is expected now, for models with a weak memory."""
        if not self.model.weak_memory or thing.where is None:
            return {}
        still = np.linalg.norm(thing.moved) < 0.2 * math.sqrt(thing.solid_angle / math.pi)
        moved = np.zeros(3) if still else thing.moved
        points = thing.points @ smallest_rotation(thing.centre, thing.centre + moved).T
        prompt = Prompt(1, points, thing.labels)
        thing.certain = prompt.certain()
        return self._prompts(frames, prompt, order)

    def _priors(self, thing: _Object, order: tuple[int, ...]) -> dict[int, np.ndarray]:
        """The last mask in each frame, for models with a weak memory."""
        if not self.model.weak_memory or thing.last is None or thing.lost_for:
            return {}
        side = self.model.image_size // 4
        frames = make_frames(thing.last, self.strategy, side, self.trajectory, labels=True)
        return {frame: frames.render(frame) > 0 for frame in order}

    def _credible(self, thing: _Object, mask: FrameMask) -> bool:
        """Whether a mask may be the object's, by what is known of it."""
        limits = self.following
        # A mask that was poor when a person pointed at it is taken at his word later, too.
        if mask.quality < min(limits.min_score, thing.score / 2):
            return False
        if mask.quality > limits.sure_score or not thing.solid_angle:
            return True
        solid_angle = float((mask.logits > 0).mean()) * self._frame_solid_angle()
        return solid_angle <= limits.max_growth * thing.solid_angle

    def _frame_solid_angle(self) -> float:
        """About what a frame sees, in sr."""
        if self.strategy != "scan":
            return 4 * math.pi if self.strategy == "direct" else math.pi
        half = math.tan(math.radians(self.trajectory.fov) / 2)
        return 4 * math.asin(half**2 / (1 + half**2))

    def _note(self, thing: _Object, mask: np.ndarray) -> None:
        """Keeps where an object is, for the next panorama."""
        rows, columns = np.nonzero(mask)
        if not len(rows):
            thing.lost_for += 1
            return
        thing.lost_for = 0
        thing.solid_angle = float(sphere.row_solid_angles(self.size)[rows].sum())
        some = slice(None, None, max(1, len(rows) // 300))
        pixels = np.stack([columns[some], rows[some]], -1) + 0.5
        where = main_part(sphere.pixel_to_direction(pixels, self.size), thing.solid_angle)
        thing.last = cv2.resize(mask.astype(np.uint8), _LAST_SIZE, interpolation=cv2.INTER_AREA)
        centre = where.mean(0)
        if thing.where is None or thing.fresh:
            points, labels, thing.centre = thing.prompt.directions, thing.prompt.labels, centre
            thing.score = self._score(thing)
        else:
            thing.moved = centre - thing.where.mean(0)
            points, labels = thing.points, thing.labels
            # The centres of two masks of a thing at rest differ, too: clicks are not to drift.
            if np.linalg.norm(centre - thing.centre) > 0.2 * math.sqrt(thing.solid_angle / math.pi):
                points = points @ smallest_rotation(thing.centre, centre).T
                thing.centre = centre
        thing.where = where
        u, v = sphere.direction_to_pixel(points, self.size).astype(int).T
        width, height = self.size
        kept = mask[v.clip(0, height - 1), u.clip(0, width - 1)] == (labels == POSITIVE)
        if not (kept & (labels == POSITIVE)).any():
            points = where[(where @ where.mean(0)).argmax()][None]
            labels, kept = np.array([POSITIVE]), np.array([True])
        thing.points, thing.labels = points[kept], labels[kept]

    def _prompts(
        self, frames: Frames, prompt: Prompt, order: tuple[int, ...]
    ) -> dict[int, FramePrompt]:
        """What is pointed at in each frame that sees something of it that is the object's."""
        chosen = order if self.click_frames == "all" else order[:1]
        masks = self._mask_frames(prompt, chosen)
        boxes = self._box_frames(frames, prompt, chosen)
        prompts: dict[int, FramePrompt] = {}
        for frame in chosen:
            pixels = frames.locate(frame, prompt.directions)
            seen = np.isfinite(pixels).all(1)
            points, labels = pixels[seen].astype(np.float32), prompt.labels[seen]
            if frame in boxes:
                points = np.concatenate([boxes[frame], points])
                labels = np.concatenate([np.array([2, 3], np.int32), labels])
            if (labels == POSITIVE).any() or frame in boxes or frame in masks:
                prompts[frame] = FramePrompt(points, labels, masks.get(frame))
        return prompts

    def _box_frames(
        self, frames: Frames, prompt: Prompt, chosen: tuple[int, ...]
    ) -> dict[int, np.ndarray]:
        """The box's corners (2, 2) in the frames that see all of it, else in the nearest one."""
        if prompt.box is None:
            return {}
        outline = box_outline(prompt.box)
        pixels = {frame: frames.locate(frame, outline) for frame in chosen}
        whole = {i: at for i, at in pixels.items() if np.isfinite(at).all()}
        if not whole:
            most = max(pixels, key=lambda i: int(np.isfinite(pixels[i]).sum()))
            whole = {most: pixels[most][np.isfinite(pixels[most]).all(1)]}
        return {
            i: np.stack([at.min(0), at.max(0)]).astype(np.float32)
            for i, at in whole.items()
            if len(at)
        }

    def _mask_frames(self, prompt: Prompt, chosen: tuple[int, ...]) -> dict[int, np.ndarray]:
        """The mask in the frames that see a good part of it."""
        if prompt.mask is None:
            return {}
        views = make_frames(
            prompt.mask.astype(np.uint8),
            self.strategy,
            self.model.image_size,
            self.trajectory,
            labels=True,
        )
        seen = {frame: views.render(frame) > 0 for frame in chosen}
        most = max(int(mask.sum()) for mask in seen.values())
        return {i: mask for i, mask in seen.items() if most and mask.sum() >= most / 4}

    def _encoded(self, frame: int) -> Features:
        if frame not in self._features:
            assert self._frames is not None
            self._features[frame] = self.model.encode(self._frames.render(frame))
        return self._features[frame]

    def _measured(self, labels: np.ndarray, object_id: int) -> Instance:
        return measure(labels == object_id, object_id, self._score(self._objects[object_id]))

    @staticmethod
    def _score(thing: _Object) -> float:
        """Predicted quality of an object's masks, weighted by their area."""
        masks = thing.masks or {}
        area = {i: float((mask.logits > 0).sum()) for i, mask in masks.items()}
        total = sum(area.values())
        return sum(area[i] * mask.quality for i, mask in masks.items()) / total if total else 0.0
