"""The engine: events in, answers out. See :mod:`sap_ros.engine`."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sap_ros.core.session import PanoramaSession
from sap_ros.engine.answers import Answer, Rejection, reports
from sap_ros.engine.events import (
    Attitude,
    Cloud,
    Depth,
    Detections,
    Event,
    Image,
    PromptGiven,
    Remove,
    Reset,
    Settings,
)
from sap_ros.engine.inbox import PROMPTS_PER_ANSWER, Accepted, Inbox, fail, fulfil
from sap_ros.engine.levelling import Levels
from sap_ros.engine.range_finder import RangeFinder
from sap_ros.engine.transforms import NoTransforms, Stamped, Transform, Transforms
from sap_ros.engine.velocity import AngularVelocities

if TYPE_CHECKING:
    from sap_ros.core.projection import Picture

#: Maximum number of objects searched for per answer; those that were searched for longest ago come first.
OBJECTS_PER_ANSWER = 32


class InterruptedWorkError(Exception):
    """Stops the work after a view, because a removal, a reset or the worker's end is pending."""


class Engine:
    """Answers images and prompts. All methods are called by one thread.

    Args:
        session: the engine's own session; nothing else uses it.
        settings: limits and frames.
        transforms: TF, or a replacement.
        interrupted: called after each view; if it returns True, :meth:`work` stops there and returns
            None. The objects found so far are kept, and the next call continues.

    Attributes:
        received, dropped: number of received images, and of those that were never processed because a
            newer one arrived while there were objects to follow.
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
        self._newest: Image | None = None  # the last received
        self._shown: tuple[Image, Picture] | None = None  # the one in the session
        self._kept: deque[Image] = deque(maxlen=self._settings.keep_images + 1)
        self._range_finder = RangeFinder(self._transforms, self._problem)
        self._velocities = AngularVelocities(self._transforms, self._problem)
        self._levels = Levels(self._transforms, self._problem)
        self._inbox = Inbox(self._transforms)
        self._order: dict[int, int] = {}  # value of _looks when each object was looked for last
        self._looks = 0
        self._tracking = False
        self._problems: list[str] = []
        self._traces: list[str] = []
        self._changed = False
        self._decode_seconds = 0.0
        self.received = self.dropped = 0

    @property
    def settings(self) -> Settings:
        """Limits and frames."""
        return self._settings

    @property
    def waiting(self) -> int:
        """Number of prompts that were neither accepted nor rejected yet."""
        return len(self._inbox)

    @property
    def has_image(self) -> bool:
        """Whether there is an image that a prompt could apply to."""
        return self._newest is not None

    @property
    def labels(self) -> dict[int, str]:
        """Labels of all objects, by id."""
        return dict(self._inbox.labels)

    @property
    def has_objects(self) -> bool:
        """Whether there is an object, or a waiting prompt or detection."""
        return bool(self._inbox.labels or len(self._inbox) or self._inbox.has_detections)

    @property
    def has_news(self) -> bool:
        """Whether there were removals, rejections or problems since the last answer."""
        return bool(self._changed or self._inbox.rejections or self._problems)

    @property
    def tracking(self) -> bool:
        """Whether the last answer had objects."""
        return self._tracking

    def take(self, event: Event, now: float) -> None:
        """Stores an event, without running the model.

        Args:
            event: the event.
            now: time in s, of a monotonic clock; in a replay, the recorded time.
        """
        if isinstance(event, Image):
            self._take_image(event)
        elif isinstance(event, PromptGiven):
            self._inbox.put(event, now)
        elif isinstance(event, Detections):
            self._inbox.put_detections(event, now)
        elif isinstance(event, Cloud | Depth):
            self._range_finder.take(event)
        elif isinstance(event, Attitude):
            self._levels.take(event)
        elif isinstance(event, Remove):
            self.accept(now)  # earlier prompts get their ids first
            self._remove(event)
        elif isinstance(event, Reset):
            self._reset(event)
        else:
            self._settings = event.settings
            self._session.following = event.settings.following
            self._kept = deque(self._kept, maxlen=event.settings.keep_images + 1)

    def close(self) -> None:
        """Rejects all waiting prompts."""
        self._inbox.close()

    def busy(self, now: float) -> bool:
        """Whether there is work for :meth:`work`."""
        if self._newest is None:
            return False
        return bool(
            self._newest is not self._current
            or self.has_news
            or self._inbox.accepted
            or self._session.pending
            or self.acceptable(now)
            or self._inbox.detections_due(self._newest, now, self._settings.patience)
        )

    def acceptable(self, now: float) -> bool:
        """Whether :meth:`accept` would accept or reject a prompt."""
        newest, inbox = self._newest, self._inbox
        if newest is None or not inbox.has_room():
            return False
        return bool(inbox.due(newest, now, self._settings.patience))

    def accept(self, now: float) -> None:
        """Accepts or rejects waiting prompts, at most as many as for one answer; does not run the model."""
        if self._newest is not None:
            self._inbox.accept(self._newest, self._kept, now, self._settings)

    def work(self, now: float) -> Answer | None:
        """Does a bounded amount of work on the newest image.

        Args:
            now: see :meth:`take`.

        Returns:
            The result for the newest image; None if there is nothing to do, or the work was interrupted.

        Raises:
            ValueError: the newest image cannot be used; the previous one is kept.
        """
        if not self.busy(now):
            return None
        self._show_newest()
        if self._shown is None:
            return None
        self.accept(now)
        self._inbox.accept_detections(self._shown[0], self._kept, now, self._settings)
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
            return  # each stamp is processed once
        self.received += 1
        if newest is not None and newest is not self._current and self.has_objects:
            self.dropped += 1
        if not image.stamp:
            self._problem(
                "the images have no stamp; the driver must set it: masks, prompts and TF are matched by it"
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
            self._session.next_image(image.read(), self._levels.up(image, self._settings))
        except Exception:
            self._newest = before
            self._kept.remove(image)
            raise
        self._shown = image, self._session.picture
        self._decode_seconds = time.monotonic() - began

    # Removal

    def _remove(self, event: Remove) -> None:
        labels = self._inbox.labels
        if event.object_id not in labels:
            reason = f"no object has the id {event.object_id}; there are {sorted(labels)}"
            if event.done is None:
                self._problem(reason)
            fail(event.done, reason)
            return
        self._forget(event.object_id)
        self._changed = True
        fulfil(event.done, True)

    def _forget(self, object_id: int) -> None:
        self._inbox.forget(object_id)
        self._velocities.forget(object_id)
        self._order.pop(object_id, None)
        if object_id in self._session.object_ids:
            self._session.remove_object(object_id)

    def _reset(self, event: Reset) -> None:
        count = len(self._inbox.labels)
        self._inbox.reset()
        self._order.clear()
        self._velocities.clear()
        self._session.reset()
        self._tracking, self._changed = False, True
        fulfil(event.done, count)

    # Work

    def _check(self, done: int, count: int, object_id: int) -> None:
        if self._interrupted():
            raise InterruptedWorkError

    def _look(self) -> None:
        """Searches for objects: newly prompted ones first, then those searched for longest ago."""
        session, accepted = self._session, self._inbox.accepted[:PROMPTS_PER_ANSWER]
        while accepted:
            together = _of_different_objects(accepted)
            self._look_at(together)
            accepted = accepted[len(together) :]
        longest_ago = sorted(session.pending, key=lambda i: self._order.get(i, 0))
        chosen = longest_ago[:OBJECTS_PER_ANSWER]
        ids = [i for i in session.pending if i in chosen]
        failed = session.look_for(ids, self._check)
        for object_id in ids:
            if object_id in failed:
                session.give_up(object_id)
                error = failed[object_id]
                self._problem(f"object {object_id} could not be followed: {error!r}")
                self._traces.append("".join(traceback.format_exception(error)))
            self._looked(object_id)

    def _looked(self, object_id: int) -> None:
        self._looks += 1
        self._order[object_id] = self._looks

    def _look_at(self, accepted: Sequence[Accepted]) -> None:
        """Searches for prompted objects, each another one, side by side; takes the prompts out of the inbox."""
        session, inbox = self._session, self._inbox
        failed: dict[int, Exception] = {}
        added: list[int] = []
        try:
            for each in accepted:
                object_id = each.prompt.object_id
                try:
                    self._add(each)
                    added.append(object_id)
                except InterruptedWorkError:
                    raise
                except Exception as error:
                    failed[object_id] = error
            failed |= session.look_for(added, self._check)
        finally:  # also of those that were found before the interruption
            for each in accepted:
                object_id = each.prompt.object_id
                pending = object_id not in added or object_id in session.pending
                if object_id in failed:
                    self._reject(object_id, failed[object_id])
                elif pending:
                    session.withdraw_prompt(object_id)
                    continue
                else:
                    self._looked(object_id)
                    self._velocities.forget(object_id)  # its mask is another one
                inbox.accepted = [a for a in inbox.accepted if a is not each]

    def _add(self, accepted: Accepted) -> None:
        """Adds a prompted object to the session; one of an earlier image is searched for on that image first."""
        session, prompt, image = self._session, accepted.prompt, accepted.image
        corrects = (
            not prompt.complete
        )  # only negative points: they apply to the object on this image
        if image is self._current or corrects:
            session.add_prompt(prompt)
            return
        pixels = image.read()
        past = session.sibling()
        past.set_image(pixels, self._levels.up(image, self._settings))
        past.add_prompt(prompt)
        past.segment(self._check)
        session.adopt(past, prompt.object_id)

    def _reject(self, object_id: int, error: Exception) -> None:
        """Reports a prompt that failed; the object is as before it."""
        session, inbox = self._session, self._inbox
        session.withdraw_prompt(object_id)
        expected = isinstance(error, ValueError)
        reason = str(error) if expected else repr(error)
        trace = "" if expected else "".join(traceback.format_exception(error))
        label = inbox.labels.get(object_id, "")
        inbox.add_rejection(Rejection(object_id, label, reason, trace))
        if object_id not in session.object_ids:
            self._forget(object_id)

    def _answer(self, accepted: float) -> Answer:
        session, settings, inbox = self._session, self._settings, self._inbox
        assert self._shown is not None
        image, picture = self._shown
        instances = session.instances()
        inbox.found(instances, image.stamp)
        self._tracking = bool(instances.objects)
        looked = time.monotonic()
        ranges, points = self._range_finder.find(image, instances, settings)
        velocities = self._velocities.update(image, instances, settings.axes, settings.fixed_frame)
        frame_id = settings.target_frame or image.frame_id
        transform = self._to_bearings(image, frame_id) if instances.objects else Transform()
        rejections = tuple(inbox.rejections)
        unseen = {i: label for i, label in inbox.labels.items() if i not in session.object_ids}
        objects = reports(
            instances,
            unseen,
            inbox.labels,
            rejections,
            settings.axes,
            transform,
            ranges,
            velocities,
        )
        answer = Answer(
            image.stamp,
            image.taken,
            image.frame_id,
            picture,
            instances,
            objects,
            frame_id,
            transform.translation if transform is not None else np.full(3, np.nan),
            self.labels,
            rejections,
            self._changed,
            tuple(self._problems),
            tuple(self._traces),
            {
                "decode": self._decode_seconds,
                "segment": looked - accepted,
                "ranges": time.monotonic() - looked,
            },
            session.encoded,
            points,
        )
        inbox.rejections, self._problems, self._traces = [], [], []
        self._changed = False
        self._decode_seconds = 0.0
        return answer

    def _to_bearings(self, image: Image, frame_id: str) -> Transform | None:
        """The transform from the image's frame to that of the bearings; None if it is not available."""
        if frame_id and not image.frame_id:
            self._problem(f"no bearings in {frame_id!r}: the images have no frame_id")
            return None
        try:
            return self._transforms.lookup(
                Stamped(frame_id, image.taken), Stamped(image.frame_id, image.taken)
            )
        except ValueError as error:
            self._problem(f"no bearings: {error}")
            return None

    def _problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)


def _of_different_objects(accepted: Sequence[Accepted]) -> Sequence[Accepted]:
    """The first prompts of some, up to the second one of any object."""
    ids = [each.prompt.object_id for each in accepted]
    return accepted[: next((i for i, each in enumerate(ids) if each in ids[:i]), len(ids))]


def run(engine: Engine, now: float) -> list[Answer]:
    """Works until there is nothing left to do; returns the answers in order."""
    answers: list[Answer] = []
    while engine.busy(now):
        answer = engine.work(now)
        if answer is None:
            break
        answers.append(answer)
    return answers
