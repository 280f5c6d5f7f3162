"""The thread that owns the session: it takes the newest image and what is asked for, and answers.

Callbacks store and return. An image that arrives while another is worked on replaces the waiting
one, and is counted; a stamp is processed once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sap_ros.core.instances import Instances
from sap_ros.core.prompts import Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.messages import image_to_rgb

Stamp = tuple[int, int]

#: How long a prompt that is stamped later than the newest image waits for its image, in s.
_PATIENCE = 0.5


def stamp_of(header: Header) -> Stamp:
    """Seconds and nanoseconds, which order as time does; (0, 0) is none."""
    return header.stamp.sec, header.stamp.nanosec


@dataclass(frozen=True)
class Request:
    """A prompt on its way to the worker.

    Attributes:
        object_id: of the object.
        label: free text.
        stamp: of the image it is on; (0, 0): the newest.
        make: makes the prompt for a panorama of a size, from the header of its image; None where it
            adds nothing; a ValueError rejects it.
        came: when, on the steady clock.
    """

    object_id: int
    label: str
    stamp: Stamp
    make: Callable[[tuple[int, int], Header], Prompt | None]
    came: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Result:
    """An image that has been worked on.

    Attributes:
        header: the image's.
        image: (H, W, 3) uint8 RGB.
        instances: what was found.
        rejected: requests that cannot be used, with the reason.
        needless: ids of requests that add nothing.
        emptied: the last object has just been taken away: it is to be said that there is none.
        seconds: how long each stage took.
        encoded: how many views were encoded.
    """

    header: Header
    image: np.ndarray
    instances: Instances
    rejected: list[tuple[Request, str]]
    needless: list[int]
    seconds: dict[str, float]
    encoded: int
    emptied: bool = False


class _StoppedError(Exception):
    """The worker is to end: it leaves its work as it is."""


class Worker:
    """Works on the newest image, whenever that is wanted.

    Args:
        session: its own; nothing else touches it.
        handle: called with every result, in the worker's thread.
        problem: called with whatever goes wrong; the worker goes on.
        wanted: whether anybody wants results, told whether there is something to look for.
        keep: how many past images a late prompt may be on.
    """

    def __init__(
        self,
        session: PanoramaSession,
        handle: Callable[[Result], None],
        problem: Callable[[Exception], None],
        wanted: Callable[[bool], bool],
        keep: int,
    ) -> None:
        self._session, self._handle, self._problem = session, handle, problem
        self._wanted = wanted
        self._work = threading.Condition()
        self._waiting: Image | CompressedImage | None = None
        self._requests: list[Request] = []
        self._commands: list[Callable[[PanoramaSession], None]] = []
        self._kept: deque[Image | CompressedImage] = deque(maxlen=keep + 1)
        self._last: Stamp | None = None
        self._current: tuple[Header, np.ndarray] | None = None
        self._running = True
        self._thread = threading.Thread(target=self._run, name="sap worker")
        self._objects = 0  # how many there are
        self.received = self.dropped = 0
        self.tracking = False
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker, at the next view; what it was doing is not published."""
        with self._work:
            self._running = False
            self._work.notify()
        self._thread.join()

    def offer(self, message: Image | CompressedImage) -> None:
        """An image has come."""
        with self._work:
            stamp = stamp_of(message.header)
            if stamp == self._last:
                return
            self.received += 1
            # One that waits because nobody wants it is not dropped.
            if self._waiting is not None and self._busy():
                self.dropped += 1
            self._last, self._waiting = stamp, message
            self._kept.append(message)
            self._work.notify()

    def ask(self, request: Request) -> None:
        """A prompt has come."""
        with self._work:
            self._requests.append(request)
            self._work.notify()

    def command(self, command: Callable[[PanoramaSession], None]) -> None:
        """Something is to be done to the session, before the next image."""
        with self._work:
            self._commands.append(command)
            self._work.notify()

    def forget(self, object_id: int) -> None:
        """Requests for an object that wait are not wanted any more."""
        with self._work:
            self._requests = [r for r in self._requests if r.object_id != object_id]

    def _busy(self) -> bool:
        return self._wanted(bool(self._objects or self._requests))

    def _ready(self) -> bool:
        if self._commands:
            return True
        fresh = self._waiting is not None or (self._current and self._due(self._current[0]))
        return bool(fresh) and self._busy()

    def _due(self, header: Header) -> list[Request]:
        """The requests that can be taken on an image, or on one before it."""
        newest, now = stamp_of(header), time.monotonic()
        return [r for r in self._requests if r.stamp <= newest or now - r.came > _PATIENCE]

    def _run(self) -> None:
        while True:
            with self._work:
                while self._running and not self._ready():
                    self._work.wait(0.2)  # whether somebody listens is not told, but asked
                if not self._running:
                    return
                commands, self._commands = self._commands, []
                message, requests = None, []
                if not commands and self._busy():  # which a command may change
                    message, self._waiting = self._waiting, None
                    newest = self._current[0] if self._current else None
                    newest = message.header if message is not None else newest
                    if newest is not None:
                        requests = self._due(newest)
                        self._requests = [r for r in self._requests if r not in requests]
            try:
                for command in commands:
                    command(self._session)
                emptied = self._objects > 0 and not self._session.object_ids
                self._objects = len(self._session.object_ids)
                if emptied and self._current:
                    header, image = self._current
                    none = Instances(np.zeros(image.shape[:2], np.uint8), ())
                    self._handle(Result(header, image, none, [], [], {}, 0, emptied=True))
                if message is not None or requests:
                    self._step(message, requests)
            except _StoppedError:
                return
            except Exception as error:  # the node outlives whatever arrives
                self._problem(error)

    def _step(self, message: Image | CompressedImage | None, requests: list[Request]) -> None:
        began = time.monotonic()
        if message is not None:
            try:
                image = image_to_rgb(message)
                self._session.next_image(image)
                self._current = message.header, image
            except ValueError as error:
                self._problem(error)
                if not requests:
                    return
        if self._current is None:
            with self._work:  # the requests wait for an image that can be used
                self._requests = requests + self._requests
            return
        decoded = time.monotonic()
        header, image = self._current
        rejected, needless = [], []
        for request in requests:
            try:
                if not self._add(request, header):
                    needless.append(request.object_id)
            except ValueError as error:
                rejected.append((request, str(error)))
        try:
            instances = self._session.segment(self._check)
        except ValueError as error:
            # What has just been asked for cannot be looked for; the objects before it go on.
            for request in requests:
                if request.object_id in self._session.object_ids:
                    self._session.remove_object(request.object_id)
                    rejected.append((request, str(error)))
            instances = self._session.segment(self._check)
        self._objects = len(self._session.object_ids)
        self.tracking = bool(instances.objects)
        seconds = {"decode": decoded - began, "segment": time.monotonic() - decoded}
        encoded = self._session.encoded if message is not None or requests else 0
        self._handle(Result(header, image, instances, rejected, needless, seconds, encoded))

    def _add(self, request: Request, header: Header) -> bool:
        """Adds a prompt on the image that it was made on, when that is still there.

        Returns whether the request adds anything.
        """
        session, now = self._session, stamp_of(header)
        with self._work:
            past = [m for m in self._kept if stamp_of(m.header) == request.stamp]
        if request.stamp == (0, 0) or request.stamp >= now or not past:
            prompt = request.make(session.size, header)
            if prompt is not None:
                session.add_prompt(prompt)
            return prompt is not None
        image = image_to_rgb(past[0])
        prompt = request.make((image.shape[1], image.shape[0]), past[0].header)
        if prompt is None:
            return False
        if not prompt.complete:  # a correction of what is there now
            session.add_prompt(prompt)
            return True
        then = session.sibling()
        then.set_image(image)
        then.add_prompt(prompt)
        then.segment(self._check)
        session.adopt(then, request.object_id)
        return True

    def _check(self, done: int, count: int, object_id: int) -> None:
        if not self._running:
            raise _StoppedError
