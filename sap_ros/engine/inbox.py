"""Prompts on their way to an object: they wait, are accepted or rejected, and their objects get ids."""

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
from sap_ros.engine.events import MAX_LABEL, Image, PromptGiven, Settings
from sap_ros.engine.prompting import locate, prompt_on
from sap_ros.engine.transforms import Transforms

#: Prompts that wait, at most; further ones are rejected.
MAX_WAITING = 256
#: Prompts that are accepted for one answer, at most: a flood of them does not hold up images.
PROMPTS_PER_ANSWER = 8
#: Accepted prompts that have not been looked for, at most: nobody may be listening, and each keeps its
#: image.
MAX_ACCEPTED = 16
#: Rejections in one answer, at most: the latest.
MAX_REJECTIONS = 64
_ANY_ID = 1  # stands for a new id while a prompt is checked
_SAME_GAZE = np.cos(np.radians(5))  # two gazes nearer than this are on the same object


@dataclass(frozen=True, eq=False)
class Accepted:
    """A valid prompt, with the image that it is on."""

    prompt: Prompt
    image: Image


class Inbox:
    """The prompts that wait, and the objects that there are: the only place that gives ids.

    Args:
        transforms: TF, or its stand-in.

    Attributes:
        labels: free text of each object, by id; accepted ones that were not looked for included.
        accepted: prompts that are to be looked for.
        rejections: for the next answer.
    """

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms
        self._waiting: deque[tuple[float, PromptGiven]] = deque()
        self._next_id = 1
        # Objects of gazes that have not been found: each one's direction, and the image that it was on.
        self._gazes: dict[int, tuple[np.ndarray, weakref.ref[Image]]] = {}
        self._found: Instances | None = None
        self.labels: dict[int, str] = {}
        self.accepted: list[Accepted] = []
        self.rejections: list[Rejection] = []

    def __len__(self) -> int:
        """Prompts that wait."""
        return len(self._waiting)

    def put(self, given: PromptGiven, now: float) -> None:
        """Stores a prompt that was received at a time in s."""
        if len(self._waiting) >= MAX_WAITING:
            self._reject(given, f"{MAX_WAITING} prompts are waiting already")
        else:
            self._waiting.append((now, given))

    def due(self, newest: Image, now: float, patience: float) -> list[tuple[float, PromptGiven]]:
        """The prompts that can be taken on the newest image, or on one before it."""
        return [
            (came, given)
            for came, given in self._waiting
            if given.stamp <= newest.stamp or not newest.stamp or now - came > patience
        ]

    def has_room(self) -> bool:
        """Whether a prompt could be accepted now."""
        return len(self.accepted) < MAX_ACCEPTED

    def accept(self, newest: Image, kept: deque[Image], now: float, settings: Settings) -> None:
        """Accepts or rejects prompts that are due, those of one answer at most.

        Args:
            newest: the newest image.
            kept: images that a prompt may be on by its stamp, oldest first.
            now: s.
            settings: limits and frames.
        """
        most = min(PROMPTS_PER_ANSWER, MAX_ACCEPTED - len(self.accepted))
        for item in self.due(newest, now, settings.patience)[:most]:
            self._waiting.remove(item)
            given = item[1]
            if not claim(given.accepted):
                continue  # whoever gave it has given up
            try:
                object_id = self._accept(given, _image_of(given, newest, kept), settings)
            except ValueError as error:
                self._reject(given, str(error))
            except Exception as error:  # whatever arrives, the next prompt is answered
                self._reject(given, repr(error), traceback.format_exc())
            else:
                fulfil(given.accepted, object_id)

    def _accept(self, given: PromptGiven, image: Image, settings: Settings) -> int:
        """Validates a prompt on its image, and gives its object an id; 0 where it adds nothing.

        Raises:
            ValueError: why it cannot be used.
        """
        if given.renames and given.object_id in self.labels:
            self.labels[given.object_id] = given.label[:MAX_LABEL]
            return given.object_id
        transform = locate(given, image, self._transforms, settings.fixed_frame)
        # Checked before a new id is given, which a prompt that is refused must not use up.
        prompt = prompt_on(given, given.object_id or _ANY_ID, image.size, settings.axes, transform)
        wanted: int | None = given.object_id  # 0: a new one
        if given.gaze:
            prompt.check_complete()
            wanted = self._object_of_gaze(prompt.anchor, image)
            if wanted is None:
                return 0
        is_new = wanted not in self.labels
        if is_new:
            prompt.check_complete()
        if is_new and len(self.labels) >= settings.max_objects:
            raise ValueError(
                f"there are {len(self.labels)} objects, and max_objects is {settings.max_objects}"
            )
        object_id = wanted or self._free_id(settings.largest_id)
        if object_id > settings.largest_id:
            raise ValueError(
                f"id {object_id} does not fit into the mask; 1 to {settings.largest_id} do"
            )
        prompt = replace(prompt, object_id=object_id)
        if given.gaze:
            self._gazes[object_id] = prompt.anchor, weakref.ref(image)
        self.labels[object_id] = given.label[:MAX_LABEL] or self.labels.get(object_id, "")
        self.accepted.append(Accepted(prompt, image))
        return object_id

    def _free_id(self, largest: int) -> int:
        """The next id, upwards; from 1 again where they are used up."""
        for object_id in [*range(self._next_id, largest + 1), *range(1, self._next_id)]:
            if object_id not in self.labels and object_id != 255:
                self._next_id = object_id + 1
                return object_id
        raise ValueError(f"all ids up to {largest} are used; remove an object")

    def _object_of_gaze(self, direction: np.ndarray, image: Image) -> int | None:
        """The object that a gaze prompts; 0: a new one; None: it adds nothing.

        It adds nothing where an object was found, or is to be looked for on this image by an earlier
        gaze. What an earlier gaze was at and was not found is prompted anew on a later image.
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

    def found(self, instances: Instances) -> None:
        """Takes note of what was found, for the gazes that come."""
        self._found = instances
        tracked = {i.object_id for i in instances.objects if i.state == State.TRACKED}
        self._gazes = {i: gaze for i, gaze in self._gazes.items() if i not in tracked}

    def add_rejection(self, rejection: Rejection) -> None:
        """Notes a rejection for the next answer, once."""
        known = {(r.object_id, r.reason) for r in self.rejections}
        if (rejection.object_id, rejection.reason) not in known:
            self.rejections = [*self.rejections, rejection][-MAX_REJECTIONS:]

    def forget(self, object_id: int) -> None:
        """Removes an object, and its accepted prompts."""
        self.labels.pop(object_id, None)
        self._gazes.pop(object_id, None)
        self.accepted = [a for a in self.accepted if a.prompt.object_id != object_id]

    def reset(self) -> None:
        """Removes all objects and waiting prompts; ids start from 1 again."""
        self._end("all objects have been reset since")
        self.labels.clear()
        self._gazes.clear()
        self.accepted.clear()
        self._next_id, self._found = 1, None

    def close(self) -> None:
        """Answers whoever still waits for a prompt to be accepted."""
        self._end("the node has been deactivated")

    def _end(self, reason: str) -> None:
        for _, given in self._waiting:
            self._reject(given, reason)
        self._waiting.clear()

    def _reject(self, given: PromptGiven, reason: str, trace: str = "") -> None:
        self.add_rejection(Rejection(given.object_id, given.label[:MAX_LABEL], reason, trace))
        fail(given.accepted, reason)


def _image_of(given: PromptGiven, newest: Image, kept: deque[Image]) -> Image:
    """The kept image that was the newest at the prompt's stamp; else the newest of all."""
    if not given.stamp:
        return newest
    shown = [image for image in kept if image.stamp and image.stamp <= given.stamp]
    return max(shown, key=lambda image: image.stamp, default=newest)


def claim(future: Future[Any] | None) -> bool:
    """Whether the result is still wanted; from now on it cannot be cancelled."""
    if future is None or future.running():
        return True
    return not future.done() and future.set_running_or_notify_cancel()


def fulfil(future: Future[Any] | None, result: object) -> None:
    """Gives a result to whoever still waits for it."""
    if future is not None and claim(future):
        future.set_result(result)


def fail(future: Future[Any] | None, reason: str) -> None:
    """Gives a ValueError to whoever still waits."""
    if future is not None and claim(future):
        future.set_exception(ValueError(reason))
