"""The engine: events in, answers out. See :mod:`sap_ros.engine`."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instances, State
from sap_ros.core.prompts import Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.answers import Answer, PointsOnObjects, Rejection, reports
from sap_ros.engine.events import (
    MAX_LABEL,
    Cloud,
    Event,
    Image,
    PromptGiven,
    Remove,
    Reset,
    Settings,
)
from sap_ros.engine.prompting import locate, prompt_on
from sap_ros.engine.ranging import ids_of_points, ranges_of_objects
from sap_ros.engine.transforms import NoTransforms, Stamped, Transform, Transforms

#: Prompts that wait, at most; further ones are rejected.
MAX_WAITING = 256
#: Prompts that are accepted for one answer, at most: a flood of them does not hold up images.
PROMPTS_AN_ANSWER = 8
#: Objects that are looked for, for one answer, at most; those looked for longest ago come first.
OBJECTS_AN_ANSWER = 32
#: Accepted prompts that have not been looked for, at most: nobody may be listening.
MAX_ACCEPTED = 64
#: Rejections that are told with one answer, at most: the latest.
MAX_REJECTIONS = 64
_ANY_ID = 1  # stands for a new id while a prompt is checked
_CLOUDS = 10  # kept, to choose the one nearest to an image
_SAME_GAZE = np.cos(np.radians(5))  # two gazes nearer than this are on the same object


class InterruptedWorkError(Exception):
    """The work is to stop at this view: there is something more urgent to be told."""


@dataclass(frozen=True)
class _Accepted:
    """A valid prompt, with the image that it is on."""

    prompt: Prompt
    image: Image


class Engine:
    """Answers images and prompts. One thread calls its methods.

    Args:
        session: its own; nothing else touches it.
        settings: limits and frames.
        transforms: TF, or its stand-in.
        interrupted: asked at every view; True ends :meth:`work` there, without an answer. What has
            been found by then is kept, and the rest is done by the next call.

    Attributes:
        received, dropped: images that were told, and of these those that were never worked on
            because a newer one came while objects were followed.
    """

    def __init__(
        self,
        session: PanoramaSession,
        settings: Settings | None = None,
        transforms: Transforms | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._session = session
        self._settings = settings or Settings()
        self._transforms = transforms or NoTransforms()
        self._interrupted = interrupted
        session.following = self._settings.following
        self._newest: Image | None = None  # told last
        self._shown: tuple[Image, np.ndarray] | None = None  # the session's
        self._kept: deque[Image] = deque(maxlen=self._settings.keep_images + 1)
        self._clouds: deque[Cloud] = deque(maxlen=_CLOUDS)
        self._waiting: deque[tuple[float, PromptGiven]] = deque()
        self._accepted: list[_Accepted] = []
        self._labels: dict[int, str] = {}  # of the objects there are, accepted ones included
        self._next_id = 1
        self._gazes: dict[int, np.ndarray] = {}  # directions of objects that were not found yet
        self._order: dict[int, int] = {}  # when each object was looked for last
        self._looks = 0
        self._found: Instances | None = None
        self._rejections: list[Rejection] = []
        self._problems: list[str] = []
        self._changed = False
        self._decode_seconds = 0.0
        self.received = self.dropped = 0

    @property
    def settings(self) -> Settings:
        """Limits and frames."""
        return self._settings

    @property
    def labels(self) -> dict[int, str]:
        """Free text of each object there is, by id."""
        return dict(self._labels)

    @property
    def has_objects(self) -> bool:
        """Whether there is something to look for, or a prompt that waits."""
        return bool(self._labels or self._waiting)

    @property
    def has_news(self) -> bool:
        """Whether objects were removed, or prompts rejected, since the last answer."""
        return bool(self._changed or self._rejections)

    @property
    def tracking(self) -> bool:
        """Whether the last answer had objects."""
        return bool(self._found and self._found.objects)

    def take(self, event: Event, now: float) -> None:
        """Is told of something. Nothing is computed here.

        Args:
            event: what.
            now: s on a clock that does not jump; the recorded time in a replay.
        """
        if isinstance(event, Image):
            self._take_image(event)
        elif isinstance(event, PromptGiven):
            if len(self._waiting) >= MAX_WAITING:
                self._reject(event, event.object_id, f"{MAX_WAITING} prompts are waiting already")
            else:
                self._waiting.append((now, event))
        elif isinstance(event, Cloud):
            self._clouds.append(event)
        elif isinstance(event, Remove):
            self._remove(event)
        elif isinstance(event, Reset):
            self._reset(event)
        else:
            self._settings = event.settings
            self._session.following = event.settings.following
            self._kept = deque(self._kept, maxlen=event.settings.keep_images + 1)

    def close(self) -> None:
        """Answers whoever still waits for a prompt to be accepted."""
        for _, given in self._waiting:
            fail(given.accepted, "the node has been deactivated")
        self._waiting.clear()

    def busy(self, now: float) -> bool:
        """Whether :meth:`work` would do something."""
        if self._newest is None:
            return False
        return bool(
            self._newest is not self._current
            or self.has_news
            or self._accepted
            or self._session.pending
            or any(self._due(item, now) for item in self._waiting)
        )

    def acceptable(self, now: float) -> bool:
        """Whether :meth:`accept` would accept or reject a prompt."""
        room = len(self._accepted) < MAX_ACCEPTED
        return room and any(self._due(item, now) for item in self._waiting)

    def accept(self, now: float) -> None:
        """Accepts or rejects prompts that wait, those of one answer at most; looks for nothing."""
        image = self._newest
        if image is None:
            return
        due = [item for item in self._waiting if self._due(item, now)]
        for item in due[: min(PROMPTS_AN_ANSWER, MAX_ACCEPTED - len(self._accepted))]:
            self._waiting.remove(item)
            given = item[1]
            if given.accepted is not None and given.accepted.cancelled():
                continue
            object_id = given.object_id
            try:
                on = self._image_of(given, image)
                object_id = self._accept(given, on)
            except ValueError as error:
                self._reject(given, object_id, str(error))
            except Exception as error:  # whatever arrives, the next prompt is answered
                self._reject(given, object_id, repr(error), traceback.format_exc())
            else:
                fulfil(given.accepted, object_id)

    def work(self, now: float) -> Answer | None:
        """Does a bounded amount of work, on the newest image first.

        Args:
            now: see :meth:`take`.

        Returns:
            What is known of the newest image; None where there is nothing to do, or the work was
            interrupted.

        Raises:
            ValueError: the newest image cannot be used; the one before it stays.
        """
        if not self.busy(now):
            return None
        self._show_newest()
        if self._shown is None:
            return None
        self.accept(now)
        accepted = time.monotonic()
        try:
            self._look()
        except InterruptedWorkError:
            return None
        return self._answer(accepted)

    # Images

    @property
    def _current(self) -> Image | None:
        return self._shown[0] if self._shown else None

    def _take_image(self, image: Image) -> None:
        newest = self._newest
        if image.stamp and newest is not None and image.stamp == newest.stamp:
            return  # a stamp is worked on once
        self.received += 1
        if newest is not None and newest is not self._current and self.has_objects:
            self.dropped += 1
        if not image.stamp:
            self._problem(
                "the images carry no stamp; have the driver set it: masks, prompts and TF go by it"
            )
        self._newest = image
        self._kept.append(image)

    def _show_newest(self) -> None:
        """Gives the session the newest image, decoded."""
        image = self._newest
        if image is None or image is self._current:
            return
        began = time.monotonic()
        before = self._current
        try:
            pixels = image.read()
            self._session.next_image(pixels)
        except Exception:
            self._newest = before
            self._kept.remove(image)
            raise
        self._shown = image, pixels
        self._decode_seconds = time.monotonic() - began

    def _image_of(self, given: PromptGiven, newest: Image) -> Image:
        """The kept image that a prompt is on; the newest one where there is none."""
        if given.stamp:
            for image in reversed(self._kept):
                if image.stamp == given.stamp:
                    return image
        return newest

    # Prompts

    def _due(self, item: tuple[float, PromptGiven], now: float) -> bool:
        """Whether a prompt can be taken on the newest image, or on one before it."""
        came, given = item
        newest = self._newest
        if newest is None:
            return False
        return (
            given.stamp <= newest.stamp or not newest.stamp or now - came > self._settings.patience
        )

    def _accept(self, given: PromptGiven, image: Image) -> int:
        """Validates a prompt on its image, and gives its object an id; 0 where it adds nothing.

        Raises:
            ValueError: why it cannot be used.
        """
        settings = self._settings
        transform = locate(given, image, self._transforms, settings.fixed_frame)
        # Checked before a new id is given, which a prompt that is refused must not use up.
        prompt = prompt_on(given, given.object_id or _ANY_ID, image.size, settings.axes, transform)
        is_new = given.object_id not in self._labels
        if is_new:
            prompt.check_complete()
        if given.gaze and self._looked_at(prompt.anchor):
            return 0
        if is_new and len(self._labels) >= settings.max_objects:
            raise ValueError(
                f"there are {len(self._labels)} objects, and max_objects is {settings.max_objects}"
            )
        object_id = given.object_id or self._free_id()
        if object_id > settings.largest_id:
            raise ValueError(
                f"id {object_id} does not fit into the mask; 1 to {settings.largest_id} do"
            )
        if not given.object_id:
            prompt = replace(prompt, object_id=object_id)
        if given.gaze:
            self._gazes[object_id] = prompt.anchor
        label = given.label[:MAX_LABEL]
        self._labels[object_id] = label or self._labels.get(object_id, "")
        self._accepted.append(_Accepted(prompt, image))
        return object_id

    def _free_id(self) -> int:
        """The next id, upwards; from 1 again where they are used up."""
        ids = [*range(self._next_id, self._settings.largest_id + 1), *range(1, self._next_id)]
        for object_id in ids:
            if object_id not in self._labels and object_id != 255:
                self._next_id = object_id + 1
                return object_id
        raise ValueError(f"all ids up to {self._settings.largest_id} are used; remove an object")

    def _looked_at(self, direction: np.ndarray) -> bool:
        """Whether an object is there, or is looked for by an earlier gaze."""
        if self._found is not None:
            height, width = self._found.labels.shape
            u, v = sphere.direction_to_pixel(direction, (width, height)).astype(int)
            if int(self._found.labels[min(v, height - 1), min(u, width - 1)]) in self._labels:
                return True
        return any(float(direction @ other) > _SAME_GAZE for other in self._gazes.values())

    def _reject(self, given: PromptGiven, object_id: int, reason: str, trace: str = "") -> None:
        self._tell(Rejection(object_id, given.label[:MAX_LABEL], reason, trace))
        fail(given.accepted, reason)

    def _tell(self, rejection: Rejection) -> None:
        """Notes a rejection for the next answer, once."""
        if all(
            (r.object_id, r.reason) != (rejection.object_id, rejection.reason)
            for r in self._rejections
        ):
            self._rejections = [*self._rejections, rejection][-MAX_REJECTIONS:]

    # Removal

    def _remove(self, event: Remove) -> None:
        object_id = event.object_id
        if object_id not in self._labels:
            fail(event.done, f"no object has the id {object_id}; there are {sorted(self._labels)}")
            return
        self._forget(object_id)
        self._changed = True
        fulfil(event.done, True)

    def _forget(self, object_id: int) -> None:
        self._labels.pop(object_id, None)
        self._gazes.pop(object_id, None)
        self._order.pop(object_id, None)
        self._accepted = [a for a in self._accepted if a.prompt.object_id != object_id]
        if object_id in self._session.object_ids:
            self._session.remove_object(object_id)

    def _reset(self, event: Reset) -> None:
        count = len(self._labels)
        for _, given in self._waiting:
            self._reject(given, given.object_id, "all objects have been reset since")
        self._waiting.clear()
        self._accepted.clear()
        self._labels.clear()
        self._gazes.clear()
        self._order.clear()
        self._session.reset()
        self._next_id, self._found = 1, None
        self._changed = True
        fulfil(event.done, count)

    # Work

    def _check(self, done: int, count: int, object_id: int) -> None:
        if self._interrupted():
            raise InterruptedWorkError

    def _look(self) -> None:
        """Looks for objects: those just pointed at, then those looked for longest ago."""
        session = self._session
        while self._accepted:
            accepted = self._accepted[0]
            object_id = accepted.prompt.object_id
            try:
                self._look_at(accepted)
            except InterruptedWorkError:
                session.withdraw_prompt(object_id)
                raise
            except Exception as error:
                session.withdraw_prompt(object_id)
                expected = isinstance(error, ValueError)
                reason = str(error) if expected else repr(error)
                trace = "" if expected else traceback.format_exc()
                label = self._labels.get(object_id, "")
                self._tell(Rejection(object_id, label, reason, trace))
                if object_id not in session.object_ids:
                    self._forget(object_id)
            else:
                self._looked(object_id)
            self._accepted = [a for a in self._accepted if a is not accepted]
        longest_ago = sorted(session.pending, key=lambda i: self._order.get(i, 0))
        for object_id in longest_ago[:OBJECTS_AN_ANSWER]:
            try:
                session.look_for(object_id, self._check)
            except InterruptedWorkError:
                raise
            except Exception as error:
                session.give_up(object_id)
                self._problem(f"object {object_id} could not be followed: {error!r}")
            self._looked(object_id)

    def _looked(self, object_id: int) -> None:
        self._looks += 1
        self._order[object_id] = self._looks

    def _look_at(self, accepted: _Accepted) -> None:
        """Looks for an object where it was pointed at, on the image that it was pointed at on."""
        session, prompt, image = self._session, accepted.prompt, accepted.image
        if (
            image is self._current or not prompt.complete
        ):  # points off it correct it where it is now
            session.add_prompt(prompt)
            session.look_for(prompt.object_id, self._check)
            return
        pixels = image.read()
        past = session.sibling()
        past.set_image(pixels)
        past.add_prompt(prompt)
        past.segment(self._check)
        session.adopt(past, prompt.object_id)
        session.look_for(prompt.object_id, self._check)

    def _answer(self, accepted: float) -> Answer:
        session, settings = self._session, self._settings
        assert self._shown is not None
        image, pixels = self._shown
        instances = session.instances()
        self._found = instances
        tracked = {i.object_id for i in instances.objects if i.state == State.TRACKED}
        self._gazes = {i: gaze for i, gaze in self._gazes.items() if i not in tracked}
        looked = time.monotonic()
        points = self._points(image, instances) if instances.objects else None
        ranges = {}
        if points is not None:
            seen, points_on = points
            ranges = ranges_of_objects(seen, points_on.ids)
        frame_id = settings.target_frame or image.frame_id
        transform = self._to_bearings(image, frame_id) if instances.objects else Transform()
        rejections = tuple(self._rejections)
        unseen = {i: label for i, label in self._labels.items() if i not in session.object_ids}
        objects = reports(
            instances, unseen, self._labels, rejections, settings.axes, transform, ranges
        )
        answer = Answer(
            image.stamp,
            image.frame_id,
            pixels,
            instances,
            objects,
            frame_id,
            transform.translation if transform is not None else np.full(3, np.nan),
            self.labels,
            rejections,
            self._changed,
            tuple(self._problems),
            {
                "decode": self._decode_seconds,
                "segment": looked - accepted,
                "ranges": time.monotonic() - looked,
            },
            session.encoded,
            points[1] if points is not None else None,
        )
        self._rejections, self._problems, self._changed = [], [], False
        self._decode_seconds = 0.0
        return answer

    def _to_bearings(self, image: Image, frame_id: str) -> Transform | None:
        """From the image's frame to that of the bearings; None where TF does not know it."""
        try:
            return self._transforms.lookup(
                Stamped(frame_id, image.stamp), Stamped(image.frame_id, image.stamp)
            )
        except ValueError as error:
            self._problem(f"bearings are not known: {error}")
            return None

    def _points(
        self, image: Image, instances: Instances
    ) -> tuple[np.ndarray, PointsOnObjects] | None:
        """The points of the cloud nearest to an image: (N, 3) in the image's frame, and their objects."""
        if not self._clouds:
            return None
        cloud = min(self._clouds, key=lambda c: abs(c.stamp - image.stamp))
        apart = abs(cloud.stamp - image.stamp) / 1e9
        tolerance = self._settings.cloud_tolerance
        if apart > tolerance:
            self._problem(
                f"no ranges: the nearest point cloud is {apart:.3g} s from the image, more than "
                f"cloud_tolerance, {tolerance:g} s"
            )
            return None
        settings = self._settings
        try:
            points = cloud.read()
            transform = self._transforms.lookup(
                Stamped(image.frame_id, image.stamp),
                Stamped(cloud.frame_id, cloud.stamp),
                settings.fixed_frame,
            )
        except Exception as error:  # a lidar's message must not silence the bearings
            self._clouds.remove(cloud)
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            self._problem(f"no ranges: {reason}")
            return None
        seen = transform.points(points)
        ids = ids_of_points(seen, instances.labels, settings.axes)
        return seen, PointsOnObjects(cloud, points, ids)

    def _problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)


def fulfil(future: Future[Any] | None, result: object) -> None:
    """Gives a result to whoever still waits for it."""
    if future is not None and future.set_running_or_notify_cancel():
        future.set_result(result)


def fail(future: Future[Any] | None, reason: str) -> None:
    """Gives a ValueError to whoever still waits."""
    if future is not None and future.set_running_or_notify_cancel():
        future.set_exception(ValueError(reason))


def run(engine: Engine, now: float) -> list[Answer]:
    """Works until there is nothing more to do; the answers, in order."""
    answers: list[Answer] = []
    while engine.busy(now):
        answer = engine.work(now)
        if answer is None:
            break
        answers.append(answer)
    return answers
