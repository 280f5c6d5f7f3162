"""The camera's images for the engine: from one topic, or from one for each of two lenses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from sap_ros.core.projection import Equirectangular, Projection
from sap_ros.engine.events import Image
from sap_ros.lenses import LensPairs, camera_of
from sap_ros.messages import image_event, packet_of, with_projection
from sap_ros.missing import how_to_install
from sap_ros.node.image_input import ImageInput
from sap_ros.node.video_input import VideoInput

#: Topics of the images of a camera's first and second lens.
LENS_TOPICS = ("image_front", "image_back")


class CameraInput:
    """Subscribes to the camera's images, decodes packets of video, and puts two lenses' images together.

    Args:
        node: the node.
        transport: see :class:`ImageInput`.
        projection: of the images.
        lens_topics: whether each lens has a topic.
        take: called with each image, in the executor's thread or in that of a video.
        came: called with each message; returns whether it is of use.
        warn: called with a line about what cannot be used.

    Raises:
        ValueError: each lens has a topic, and the projection is not that of a camera with two lenses.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        projection: Projection,
        lens_topics: bool,
        take: Callable[[Image], None],
        came: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        self._take, self._came, self._warn = take, came, warn
        self.pairs: LensPairs | None = None
        self._pairing = threading.Lock()  # each lens's video has a thread
        self._projection = projection
        topics: tuple[str, ...] = ("image",)
        if lens_topics:
            camera = camera_of(projection)
            self.pairs, self._projection = LensPairs(camera, warn), Equirectangular()
            self._names, topics = [lens.name for lens in camera.lenses], LENS_TOPICS
        self._videos: dict[int, VideoInput] = {}  # by lens, from its first packet on
        self._last = [time.monotonic() for _ in topics]
        self._inputs = [
            ImageInput(node, topic, transport, partial(self._receive, number), warn)
            for number, topic in enumerate(topics)
        ]

    @property
    def topics(self) -> str:
        """The topics' full names."""
        return " and ".join(source.topic for source in self._inputs)

    def silent_lens(self, seconds: float) -> str:
        """A line about a lens that has sent nothing for longer than this while the other one has; or empty."""
        ages = [time.monotonic() - last for last in self._last]
        if self.pairs is None or min(ages) > seconds or max(ages) <= seconds:
            return ""
        lens = ages.index(max(ages))
        return (
            f"the {self._names[lens]} lens has sent nothing for {ages[lens]:.1f} s "
            f"({self._inputs[lens].topic})"
        )

    def follow_drivers(self) -> None:
        """Adapts the reliability to the current publishers."""
        for source in self._inputs:
            source.follow_drivers()

    def restart(self) -> None:
        """Packets of a video will be missing from here on."""
        for video in self._videos.values():
            video.restart()

    def destroy(self) -> None:
        """Ends the subscriptions and the decoding."""
        for source in self._inputs:
            source.destroy()
        for video in self._videos.values():
            video.stop()

    def _receive(self, lens: int, message: Any) -> None:
        """Takes a sensor_msgs Image or CompressedImage, or an FFMPEGPacket."""
        self._last[lens] = time.monotonic()
        if not self._came():
            return
        try:
            packet = packet_of(message)
            if packet is None:
                self._hand_on(lens, image_event(message, self._projection))
                return
            if lens not in self._videos:
                self._videos[lens] = VideoInput(partial(self._decoded, lens), self._warn)
            self._videos[lens].put(packet)
        except ValueError as error:
            self._warn(str(error))
        except ModuleNotFoundError as error:
            self._warn(f"the images are packets of a video: {how_to_install(error)}")

    def _decoded(self, lens: int, image: Image) -> None:
        """Called in the thread of a video."""
        try:
            self._hand_on(lens, with_projection(image, self._projection))
        except ValueError as error:
            self._warn(str(error))

    def _hand_on(self, lens: int, image: Image) -> None:
        if self.pairs is None:
            self._take(image)
            return
        with self._pairing:
            pair = self.pairs.put(lens, image)
        if pair is not None:
            self._take(pair)
