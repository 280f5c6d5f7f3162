"""The thread that drives the engine: callbacks queue events, and return at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from sap_ros.engine.answers import Answer
from sap_ros.engine.engine import Engine
from sap_ros.engine.events import Event, Image, PromptGiven, Remove, Reset
from sap_ros.engine.inbox import fail

#: How often subscribers are looked for, in s.
_POLL = 0.2
#: Events of one kind that are queued at most, beside images: the oldest are dropped.
_QUEUED = 256


class Worker:
    """Hands events to the engine, and has it work while its answers are wanted.

    Args:
        make_engine: makes the engine, given what interrupts its work.
        answered: called with every answer, in the worker's thread.
        problem: called with whatever goes wrong; the worker goes on.
        labelled: called with the objects' labels, by id, whenever they have changed.
        wanted: whether anybody wants answers.
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
        """Images that have come."""
        return self.engine.received + self._replaced

    @property
    def dropped(self) -> int:
        """Images that were never worked on, because a newer one came meanwhile."""
        return self.engine.dropped + self._replaced

    def put(self, event: Event) -> None:
        """Queues an event; of images, only the newest ``keep_images`` + 1, of others a bounded number."""
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
            self._changed.notify()

    def stop(self) -> None:
        """Ends the worker, at the next view; what it was doing is not answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        for event in self._events:
            _dismiss(event, "the node has been deactivated")
        self.engine.close()

    def _run(self) -> None:
        failed = False  # the last work raised: it is not repeated until something has come
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
            except Exception as error:  # the node outlives whatever arrives
                failed = True
                self._problem(error)

    def _take(self, event: Event) -> bool:
        """Hands the engine an event; whether that went well."""
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
    """Fails the future of an event that will not reach the engine."""
    if isinstance(event, PromptGiven):
        fail(event.accepted, reason)
    elif isinstance(event, Remove | Reset):
        fail(event.done, reason)
