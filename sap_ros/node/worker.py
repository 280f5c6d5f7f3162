"""The thread that drives the engine; callbacks only queue events."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from sap_ros.engine.answers import Answer
from sap_ros.engine.engine import Engine
from sap_ros.engine.events import Attitude, Event, Image, PromptGiven, Remove, Reset
from sap_ros.engine.inbox import fail

#: Period at which the worker checks for subscribers, in s.
_POLL = 0.2
#: Maximum number of queued events of each kind except images; the oldest are dropped.
_QUEUED = 256


class Worker:
    """Passes events to the engine, and lets it work while its answers are wanted.

    Args:
        make_engine: makes the engine, given the function that tells it to interrupt its work.
        answered: called with each answer, in the worker's thread.
        problem: called with each exception; the worker continues.
        labelled: called with the objects' labels, by id, when they have changed.
        wanted: whether answers are needed.
    """

    def __init__(
        self,
        make_engine: Callable[[Callable[[], bool]], Engine],
        answered: Callable[[Answer], None],
        problem: Callable[[Exception], None],
        labelled: Callable[[Mapping[int, str]], None],
        wanted: Callable[[Engine], bool],
    ) -> None:
        self.engine = make_engine(lambda: self._stopping or self._urgent)
        self._answered, self._problem, self._labelled = answered, problem, labelled
        self._wanted = wanted
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._urgent = self._stopping = False
        self._replaced = 0  # images dropped before they reached the engine
        self._labels: Mapping[int, str] = {}
        self._thread = threading.Thread(target=self._run, name="sap worker")
        self._thread.start()

    @property
    def received(self) -> int:
        """Number of received images."""
        return self.engine.received + self._replaced

    @property
    def dropped(self) -> int:
        """Number of images that were never processed because a newer one arrived."""
        return self.engine.dropped + self._replaced

    def put(self, event: Event) -> None:
        """Queues an event; of each kind, a bounded number is queued (images: ``keep_images`` + 1)."""
        with self._changed:
            if self._stopping:
                _dismiss(event, "the node has been deactivated")
                return
            most = self.engine.settings.keep_images + 1 if isinstance(event, Image) else _QUEUED
            queued = [e for e in self._events if type(e) is type(event)]
            if len(queued) >= most:
                self._events.remove(queued[0])
                self._replaced += isinstance(event, Image)
                _dismiss(queued[0], f"{most} events were queued already")
            self._urgent |= isinstance(event, Remove | Reset)
            self._events.append(event)
            if not isinstance(event, Attitude):  # hundreds a second, each for an image yet to come
                self._changed.notify()

    def stop(self) -> None:
        """Stops the worker after the current view; unfinished work is not answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        for event in self._events:
            _dismiss(event, "the node has been deactivated")
        self.engine.close()

    def _run(self) -> None:
        failed = False  # the last work raised an exception; it is repeated only after a new event
        while True:
            try:
                with self._changed:
                    while not (self._stopping or self._events or (not failed and self._ready())):
                        self._changed.wait(_POLL)
                    if self._stopping:
                        return
                    events, self._events = list(self._events), deque()
                    self._urgent = False
                taken = [self._take(event) for event in events]
                failed = not all(taken)
                answer = self._work()
                self._report_labels()
                if answer is not None:
                    self._answered(answer)
            except Exception as error:  # no input may stop the node
                failed = True
                self._problem(error)

    def _take(self, event: Event) -> bool:
        """Passes an event to the engine; returns whether this succeeded."""
        try:
            self.engine.take(event, time.monotonic())
        except Exception as error:
            _dismiss(event, repr(error))
            self._problem(error)
            return False
        return True

    def _ready(self) -> bool:
        engine, now = self.engine, time.monotonic()
        return engine.acceptable(now) or (engine.busy(now) and self._wanted(engine))

    def _work(self) -> Answer | None:
        now = time.monotonic()
        if self._wanted(self.engine):
            return self.engine.work(now)
        self.engine.accept(now)
        return None

    def _report_labels(self) -> None:
        labels = self.engine.labels
        if labels != self._labels:
            self._labels = labels
            self._labelled(labels)


def _dismiss(event: Event, reason: str) -> None:
    """Sets an error in the future of an event that will not reach the engine."""
    if isinstance(event, PromptGiven):
        fail(event.accepted, reason)
    elif isinstance(event, Remove | Reset):
        fail(event.done, reason)
