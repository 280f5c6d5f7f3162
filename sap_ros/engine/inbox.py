"""The queue of prompts: they wait for their image, are accepted or rejected, and their objects get ids."""

from __future__ import annotations

import traceback
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instances, State
from sap_ros.core.prompts import Prompt
from sap_ros.engine.answers import Rejection
from sap_ros.engine.detections import DetectedObjects, angular_box, chosen
from sap_ros.engine.events import MAX_LABEL, Detections, Image, PromptGiven, Settings, Space
from sap_ros.engine.prompting import locate, prompt_on
from sap_ros.engine.transforms import Transforms

#: Maximum number of waiting prompts; further ones are rejected.
MAX_WAITING = 256
#: Maximum number of prompts accepted per answer, so that many prompts do not delay images.
PROMPTS_PER_ANSWER = 8
#: Maximum number of accepted prompts whose objects were not looked for yet: without subscribers none is
#: looked for, and each keeps its image in memory.
MAX_ACCEPTED = 16
#: Maximum number of rejections in an answer; the latest are kept.
MAX_REJECTIONS = 64
_ANY_ID = 1  # placeholder for a new id while a prompt is checked
_SAME_GAZE = np.cos(
    np.radians(5)
)  # cosine of the angle below which two gazes are on the same object


@dataclass(frozen=True, eq=False)
class Accepted:
    """A valid prompt, with the image that it applies to."""

    prompt: Prompt
    image: Image


class Inbox:
    """The waiting prompts and the ids of all objects; the only place where ids are assigned.

    Args:
        transforms: TF, or a replacement.

    Attributes:
        labels: labels of all objects by id, including those that were not looked for yet.
        accepted: accepted prompts whose objects were not looked for yet.
        rejections: rejections for the next answer.
    """

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms
        self._waiting: deque[tuple[float, PromptGiven]] = deque()
        self._next_id = 1
        # Objects prompted by a gaze and not found yet, by id: direction and image of the gaze.
        self._gazes: dict[int, tuple[np.ndarray, weakref.ref[Image]]] = {}
        self._found: Instances | None = None
        self._detected = DetectedObjects()
        self._detections: tuple[float, Detections] | None = None  # the newest, and when it came
        self.labels: dict[int, str] = {}
        self.accepted: list[Accepted] = []
        self.rejections: list[Rejection] = []

    def __len__(self) -> int:
        """Number of waiting prompts."""
        return len(self._waiting)

    def put(self, given: PromptGiven, now: float) -> None:
        """Stores a prompt; ``now`` is the time of reception in s."""
        if len(self._waiting) >= MAX_WAITING:
            self._reject(given, f"{MAX_WAITING} prompts are waiting already")
        else:
            self._waiting.append((now, given))

    @property
    def has_detections(self) -> bool:
        """Whether detections wait."""
        return self._detections is not None

    def put_detections(self, detections: Detections, now: float) -> None:
        """Stores detections, in place of those that wait."""
        self._detections = now, detections

    def detections_due(self, newest: Image, now: float, patience: float) -> bool:
        """Whether the waiting detections apply to the newest image or an earlier one, or waited too long."""
        if self._detections is None:
            return False
        came, detections = self._detections
        time = newest.time_for(detections.space, detections.frame_id)
        return detections.stamp <= time or not newest.stamp or now - came > patience

    def due(self, newest: Image, now: float, patience: float) -> list[tuple[float, PromptGiven]]:
        """The waiting prompts that apply to the newest image or an earlier one, or that waited too long."""
        return [
            (came, given)
            for came, given in self._waiting
            if given.stamp <= newest.time_for(given.space, given.frame_id)
            or not newest.stamp
            or now - came > patience
        ]

    def has_room(self) -> bool:
        """Whether a prompt could be accepted now."""
        return len(self.accepted) < MAX_ACCEPTED

    def accept(self, newest: Image, kept: deque[Image], now: float, settings: Settings) -> None:
        """Accepts or rejects prompts that are due, at most as many as for one answer.

        Args:
            newest: the newest image.
            kept: images that a prompt can apply to by its stamp, oldest first.
            now: time in s.
            settings: limits and frames.
        """
        most = min(PROMPTS_PER_ANSWER, MAX_ACCEPTED - len(self.accepted))
        for item in self.due(newest, now, settings.patience)[:most]:
            self._waiting.remove(item)
            given = item[1]
            if not claim(given.accepted):
                continue  # the caller has cancelled it
            try:
                object_id = self._accept(given, _image_of(given, newest, kept), settings)
            except ValueError as error:
                self._reject(given, str(error))
            except Exception as error:  # a bug with one prompt must not stop the others
                self._reject(given, repr(error), traceback.format_exc())
            else:
                fulfil(given.accepted, object_id)

    def accept_detections(
        self, newest: Image, kept: deque[Image], now: float, settings: Settings
    ) -> None:
        """Starts objects for boxes that are on none, if detections are due.

        What cannot be used is told in one rejection. Only called for images that are answered: boxes are compared
        with what was found.
        """
        if not self.detections_due(newest, now, settings.patience):
            return
        assert self._detections is not None
        detections, self._detections = self._detections[1], None
        boxes = chosen(detections, settings.detection_classes, settings.detection_score)
        if not boxes:
            return
        source = PromptGiven(
            space=detections.space, stamp=detections.stamp, frame_id=detections.frame_id
        )
        image = _image_of(source, newest, kept)
        reasons = []
        try:
            if detections.space == Space.PIXELS and source.frame_id not in ("", image.frame_id):
                raise ValueError(
                    f"their frame is {source.frame_id!r}, which is not the panorama's, {image.frame_id!r}, "
                    "and whose CameraInfo was not received on prompt/camera_info"
                )
            transform = locate(source, image, self._transforms, settings.fixed_frame)
        except ValueError as error:
            reasons = [str(error)] * len(boxes)
            boxes = []
        count = len(boxes) + len(reasons)
        for box in boxes:
            label = box.label[:MAX_LABEL]
            try:
                found = angular_box(box.outline, image, settings.axes, transform)
                wanted = self._detected.object_of(
                    found, label, self.labels, newest.stamp, image.stamp, settings.detection_restart
                )
                enough = self._detected.count >= settings.detection_objects
                if wanted is None or (not wanted and enough) or not self.has_room():
                    continue
                object_id = self._id_for(wanted, settings)
            except ValueError as error:
                reasons.append(str(error))
                continue
            self.labels[object_id] = label or self.labels.get(object_id, "")
            self._detected.start(object_id, found)
            self.accepted.append(Accepted(Prompt(object_id, box=found.corners), image))
        if reasons:
            reason = f"{len(reasons)} of {count} detections cannot be used; the first: {reasons[0]}"
            self.add_rejection(Rejection(0, "", reason))

    def _accept(self, given: PromptGiven, image: Image, settings: Settings) -> int:
        """Validates a prompt on its image, and assigns its object's id; returns 0 if a gaze adds nothing.

        Raises:
            ValueError: the prompt cannot be used; the message says why.
        """
        if given.renames and given.object_id in self.labels:
            self.labels[given.object_id] = given.label[:MAX_LABEL]
            return given.object_id
        transform = locate(given, image, self._transforms, settings.fixed_frame)
        # Checked before a new id is assigned, so that a rejected prompt does not use up an id.
        prompt = prompt_on(given, given.object_id or _ANY_ID, image.size, settings.axes, transform)
        wanted = given.object_id  # 0: a new id
        if given.gaze:
            prompt.check_complete()
            of_gaze = self._object_of_gaze(prompt.anchor, image)
            if of_gaze is None:
                return 0
            wanted = of_gaze
        if wanted not in self.labels:
            prompt.check_complete()
        object_id = self._id_for(wanted, settings)
        prompt = replace(prompt, object_id=object_id)
        if given.gaze:
            self._gazes[object_id] = prompt.anchor, weakref.ref(image)
        self.labels[object_id] = given.label[:MAX_LABEL] or self.labels.get(object_id, "")
        self.accepted.append(Accepted(prompt, image))
        return object_id

    def _id_for(self, wanted: int, settings: Settings) -> int:
        """The id of the object ``wanted``; 0: a free one.

        Raises:
            ValueError: there are too many objects, or the id is too large.
        """
        if wanted not in self.labels and len(self.labels) >= settings.max_objects:
            raise ValueError(
                f"there are {len(self.labels)} objects already, and max_objects is {settings.max_objects}"
            )
        object_id = wanted or self._free_id(settings.largest_id)
        if object_id > settings.largest_id:
            raise ValueError(
                f"id {object_id} does not fit into the mask; the largest id is {settings.largest_id}"
            )
        return object_id

    def _free_id(self, largest: int) -> int:
        """The next free id, ascending; after the largest id, from 1 again."""
        for object_id in [*range(self._next_id, largest + 1), *range(1, self._next_id)]:
            if object_id not in self.labels and object_id != 255:
                self._next_id = object_id + 1
                return object_id
        raise ValueError(f"all ids up to {largest} are used; remove an object")

    def _object_of_gaze(self, direction: np.ndarray, image: Image) -> int | None:
        """The id of the object that a gaze prompts; 0: a new object; None: the gaze adds nothing.

        A gaze adds nothing if it is on the mask of an object, or near an earlier gaze whose object is not
        lost or that was on this image. If the object of an earlier gaze is lost, a gaze near it on a later
        image prompts this object again.
        """
        lost: set[int] = set()
        if self._found is not None:
            height, width = self._found.labels.shape
            u, v = sphere.direction_to_pixel(direction, (width, height)).astype(int)
            if int(self._found.labels[min(v, height - 1), min(u, width - 1)]) in self.labels:
                return None
            lost = {i.object_id for i in self._found.objects if i.state == State.LOST}
        for object_id, (other, its_image) in self._gazes.items():
            if float(direction @ other) > _SAME_GAZE:
                return object_id if object_id in lost and its_image() is not image else None
        return 0

    def found(self, instances: Instances, stamp: int) -> None:
        """Stores the latest instances, for later gazes and detections; ``stamp`` is their image's, in ns."""
        self._found = instances
        self._detected.found(instances, stamp)
        tracked = {i.object_id for i in instances.objects if i.state == State.TRACKED}
        self._gazes = {i: gaze for i, gaze in self._gazes.items() if i not in tracked}

    def add_rejection(self, rejection: Rejection) -> None:
        """Adds a rejection to the next answer, unless the same one is there already."""
        known = {(r.object_id, r.reason) for r in self.rejections}
        if (rejection.object_id, rejection.reason) not in known:
            self.rejections = [*self.rejections, rejection][-MAX_REJECTIONS:]

    def forget(self, object_id: int) -> None:
        """Removes an object and its accepted prompts."""
        self.labels.pop(object_id, None)
        self._gazes.pop(object_id, None)
        self._detected.forget(object_id)
        self.accepted = [a for a in self.accepted if a.prompt.object_id != object_id]

    def reset(self) -> None:
        """Removes all objects and waiting prompts; ids start from 1 again."""
        self._end("all objects were reset before it was accepted")
        self.labels.clear()
        self._gazes.clear()
        self._detected.clear()
        self._detections = None
        self.accepted.clear()
        self._next_id, self._found = 1, None

    def close(self) -> None:
        """Rejects all waiting prompts."""
        self._end("the node has been deactivated")

    def _end(self, reason: str) -> None:
        for _, given in self._waiting:
            self._reject(given, reason)
        self._waiting.clear()

    def _reject(self, given: PromptGiven, reason: str, trace: str = "") -> None:
        self.add_rejection(Rejection(given.object_id, given.label[:MAX_LABEL], reason, trace))
        fail(given.accepted, reason)


def _image_of(given: PromptGiven, newest: Image, kept: deque[Image]) -> Image:
    """The kept image that was the newest at the prompt's stamp; the newest of all if there is none."""
    if not given.stamp:
        return newest
    shown = [
        image
        for image in kept
        if image.stamp and image.time_for(given.space, given.frame_id) <= given.stamp
    ]
    return max(shown, key=lambda image: image.stamp, default=newest)


def claim(future: Future[Any] | None) -> bool:
    """Whether a result is still wanted; if so, the future cannot be cancelled from now on."""
    if future is None or future.running():
        return True
    return not future.done() and future.set_running_or_notify_cancel()


def fulfil(future: Future[Any] | None, result: object) -> None:
    """Sets a future's result, unless it was cancelled or set before."""
    if future is not None and claim(future):
        future.set_result(result)


def fail(future: Future[Any] | None, reason: str) -> None:
    """Sets a ValueError in a future, unless it was cancelled or set before."""
    if future is not None and claim(future):
        future.set_exception(ValueError(reason))
