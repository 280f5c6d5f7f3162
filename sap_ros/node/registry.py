"""The objects that were asked for: their ids and labels, and the prompts on their way to the worker."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from std_msgs.msg import Header

from sap_ros.core import sphere
from sap_ros.core.instances import State
from sap_ros.core.prompts import Prompt
from sap_ros.messages import ImageFrame, prompt_from_message
from sap_ros.msg import Prompt as PromptMessage
from sap_ros.node.frames import Transforms
from sap_ros.node.worker import Request, Result, stamp_of

_SAME_GAZE = math.cos(math.radians(5))  # two gazes nearer than this are on the same object


class Registry:
    """Gives ids, refuses what cannot be answered, and makes prompts of messages.

    Messages arrive in the executor's thread, results in the worker's.

    Attributes:
        size: width and height of the newest image, as far as known.
        frame: its frame_id.
    """

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms
        self._lock = threading.Lock()
        self._labels: dict[int, str] = {}  # of the objects there are
        self._next_id = 1
        self._labelled: np.ndarray | None = None  # the newest label image
        self._gazes: dict[int, np.ndarray] = {}  # of objects that were not seen yet, by id
        self.size: tuple[int, int] | None = None
        self.frame = ""

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> dict[int, str]:
        """The label of each object, by id."""
        with self._lock:
            return dict(self._labels)

    def forget(self) -> None:
        """Forgets the objects and the image."""
        self.clear()
        self.size = None
        self._gazes.clear()

    def clear(self) -> list[int]:
        """Forgets the objects; their ids."""
        with self._lock:
            known = list(self._labels)
            self._labels.clear()
            self._next_id, self._labelled = 1, None
        return known

    def remove(self, object_id: int) -> bool:
        """Forgets an object; whether there was one of that id."""
        with self._lock:
            return self._labels.pop(object_id, None) is not None

    def admit(
        self, message: PromptMessage, values: Mapping[str, Any], once: bool = False
    ) -> tuple[int, Request | str]:
        """Takes a prompt in.

        Args:
            message: the prompt.
            values: the node's parameters.
            once: on an object that is there, or about to be, it adds none.

        Returns:
            Its object's id, and what the worker is to be asked, or why it cannot be used.
        """
        with self._lock:
            object_id = message.object_id or self._next_id
            if object_id not in self._labels and len(self._labels) >= values["max_objects"]:
                return object_id, f"there are {len(self._labels)} objects, max_objects in all"
            if values["mask_encoding"] == "mono8" and object_id > 254:
                return object_id, f"id {object_id} does not fit into a mono8 mask; 1 to 254 do"
            try:
                prompt = self._check_now(message, object_id)
                if prompt is not None and object_id not in self._labels:
                    prompt.check_complete()
            except ValueError as error:
                return object_id, str(error)
            self._labels[object_id] = message.label or self._labels.get(object_id, "")
            while self._next_id in self._labels or self._next_id == 255:
                self._next_id += 1
        return object_id, Request(
            object_id,
            message.label,
            stamp_of(message.header),
            lambda size, header: self._make(message, object_id, size, header, values, once),
        )

    def _check_now(self, message: PromptMessage, object_id: int) -> Prompt | None:
        """Raises ValueError for what is wrong whatever the image; pixels, where its size is known.

        Returns the prompt in some frame, where it can be made already.
        """
        if message.space != PromptMessage.PIXELS:
            self._transforms.check(self.frame, message.header.frame_id)
        if self.size is not None and self.size[0] == 2 * self.size[1]:
            size = self.size
        elif message.space == PromptMessage.PIXELS:
            values = [c for p in (*message.points, *message.box) for c in (p.x, p.y)]
            if not all(math.isfinite(value) for value in values):
                raise ValueError("a point is not finite")
            if message.points or message.box:
                return None  # until there is an image, nothing more can be said
            size = (512, 256)
        else:
            size = (512, 256)
        return prompt_from_message(message, object_id, size, ImageFrame(), np.eye(3), np.zeros(3))

    def _make(
        self,
        message: PromptMessage,
        object_id: int,
        size: tuple[int, int],
        header: Header,
        values: Mapping[str, Any],
        once: bool,
    ) -> Prompt | None:
        """The prompt on an image; what TF has to do with it is done here."""
        frame = ImageFrame(values["forward_column"], values["image_frame_convention"])
        turn, shift = np.eye(3), np.zeros(3)
        stamp, now = stamp_of(message.header), stamp_of(header)
        if message.space != PromptMessage.PIXELS:
            at, fixed = message.header, values["fixed_frame"]
            if stamp in ((0, 0), now) or stamp > now or not fixed:
                at, fixed = Header(stamp=header.stamp, frame_id=at.frame_id), ""
            turn, shift = self._transforms.lookup(header, at, values["tf_timeout"], fixed)
        elif stamp not in ((0, 0), now) and stamp < now:
            raise ValueError(
                f"its image ({stamp[0]}.{stamp[1]:09d}) is no longer kept; keep_frames keeps "
                f"{values['keep_frames']}, and the image is at {now[0]}.{now[1]:09d} by now"
            )
        prompt = prompt_from_message(message, object_id, size, frame, turn, shift)
        return None if once and self._known(object_id, prompt.anchor, size) else prompt

    def _known(self, object_id: int, direction: np.ndarray, size: tuple[int, int]) -> bool:
        """Whether an object is there, or is looked for by an earlier gaze."""
        labelled = self._labelled
        if labelled is not None and labelled.shape == (size[1], size[0]):
            u, v = sphere.direction_to_pixel(direction, size).astype(int)
            there = int(labelled[min(v, size[1] - 1), min(u, size[0] - 1)])
            if there != object_id and there in self._labels:
                return True
        if any(float(direction @ other) > _SAME_GAZE for other in self._gazes.values()):
            return True
        self._gazes[object_id] = direction
        return False

    def settle(self, result: Result) -> dict[int, str]:
        """Takes note of what was found; the labels of the objects that there are now."""
        instances = result.instances
        states = {thing.object_id: thing.state for thing in instances.objects}
        with self._lock:
            for request, _ in result.rejected:
                if request.object_id not in states:
                    self._labels.pop(request.object_id, None)
            for object_id in result.needless:
                self._labels.pop(object_id, None)
                self._next_id = min(self._next_id, object_id)  # nobody was told of it
            labels = dict(self._labels)
        self.size = result.image.shape[1], result.image.shape[0]
        self._labelled = instances.labels
        self._gazes = {
            i: gaze for i, gaze in self._gazes.items() if states.get(i, State.TRACKED) == State.LOST
        }
        return labels
