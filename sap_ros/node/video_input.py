"""The thread that decodes a video's packets; the callbacks only queue them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sap_ros.engine.events import Image
from sap_ros.video import Packet, VideoDecoder

#: Number of packets behind which the decoder skips to a key frame: 2 s of a camera's 30 images per second.
_MOST_BEHIND = 60


class VideoInput:
    """Decodes packets in order, and hands on the newest image of those that waited together.

    A packet cannot be left out, because the images after it refer to its image. Only if the decoder is
    hopelessly behind are packets dropped, up to the next key frame.

    Args:
        take: called with each image that is handed on, in this object's thread.
        warn: called with a line when packets were lost, damaged or dropped.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(self, take: Callable[[Image], None], warn: Callable[[str], None]) -> None:
        self._decoder = VideoDecoder(warn)
        self._take, self._warn = take, warn
        self._changed = threading.Condition()
        self._packets: deque[Packet] = deque()
        # While its quality of service changes, the node has two subscriptions.
        self._lately: deque[tuple[int, int]] = deque(maxlen=_MOST_BEHIND)
        self._restart = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sap video")
        self._thread.start()

    def put(self, packet: Packet) -> None:
        """Queues a packet, unless it was received just before."""
        received = packet.stamp, hash(packet.data)
        with self._changed:
            if received in self._lately:
                return
            self._lately.append(received)
            self._packets.append(packet)
            if len(self._packets) > _MOST_BEHIND:
                self._skip()
            self._changed.notify()

    def restart(self) -> None:
        """Packets will be missing from here on; the next image will be that of a key frame."""
        with self._changed:
            self._packets.clear()
            self._restart = True

    def stop(self) -> None:
        """Ends the thread after the current packet."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _skip(self) -> None:
        """Drops packets up to the last one that decoding can start at; all of them if there is none."""
        count = len(self._packets)
        starts = [i for i, packet in enumerate(self._packets) if packet.starts]
        for _ in range(starts[-1] if starts else count):
            self._packets.popleft()
        self._restart = True
        self._warn(
            f"the video comes faster than it can be decoded: {count - len(self._packets)} packets were "
            "dropped, up to a key frame; send smaller or fewer images"
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._packets or self._stopping):
                    self._changed.wait()
                if self._stopping:
                    return
                packets, self._packets = self._packets, deque()
                restart, self._restart = self._restart, False
            if restart:
                self._decoder.restart()
            newest = None
            for packet in packets:
                if self._stopping:
                    return
                for image in self._decode(packet):
                    newest = image
            if newest is not None:
                self._take(newest)

    def _decode(self, packet: Packet) -> list[Image]:
        try:
            return self._decoder.decode(packet)
        except Exception as error:  # no packet may end the thread
            self._decoder.restart()
            self._warn(f"a packet of the video could not be decoded: {error!r}")
            return []
