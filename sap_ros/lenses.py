"""Puts the images of two lenses together that come on two topics, each with its own stamp. No ROS.

The node and a replay follow the same rule, and need no message_filters for it: rosbags has none, and its
approximate time answers a pair only when a later image has shown that there is no better one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sap_ros.core.fisheye import DualFisheye
from sap_ros.core.projection import Equirectangular, Projection, TwoFisheyes
from sap_ros.engine.events import Image
from sap_ros.messages import ImageReader

#: Largest difference between the stamps of two images that are put together, in s, by default.
TOLERANCE = 0.02
#: Number of images of a lens that wait for those of the other one.
_WAITING = 10
#: Number of intervals from image to image whose lower quartile is a lens's period: some images are lost.
_INTERVALS = 16


class LensPairs:
    """Pairs the images of the two lenses of a camera, each with the nearest one of the other lens.

    Images go together if their stamps differ by at most ``tolerance`` and by at most half of the time from image
    to image: then an image that was lost does not pair its partner with the wrong neighbour. A pair is complete
    with its second image, later ones are not waited for. Pairs are in the order of their stamps.

    Args:
        camera: describes the picture of both, side by side or one above the other. Lens 0 is its first lens.
        tell: called with a line when the lenses' stamps are too far apart.
        tolerance: in s.

    Raises:
        ValueError: the tolerance is negative.

    Attributes:
        tolerance: as given; it may be changed at any time.
        unpaired: number of images that were given up, because no image of the other lens was near enough.
    """

    def __init__(
        self, camera: DualFisheye, tell: Callable[[str], None], tolerance: float = TOLERANCE
    ) -> None:
        if not tolerance >= 0:
            raise ValueError(f"lens_tolerance is {tolerance:g} s; it must not be negative")
        self.tolerance, self.unpaired = tolerance, 0
        self._projection, self._tell = TwoFisheyes(camera), tell
        self._waiting: tuple[deque[Image], deque[Image]] = deque(), deque()
        self._last: list[int | None] = [None, None]
        self._intervals = [deque[int](maxlen=_INTERVALS), deque[int](maxlen=_INTERVALS)]
        self._told = False

    def put(self, lens: int, image: Image) -> Image | None:
        """Takes an image of a lens; returns the camera's image, if it is complete.

        Its stamp and frame are those of the first lens.

        Args:
            lens: 0 or 1.
            image: the size is its own, not that of a panorama.

        Raises:
            ValueError: the two images have different sizes, or the camera has no pictures of that size.
        """
        self._measure(lens, image.stamp)
        own, others = self._waiting[lens], self._waiting[1 - lens]
        own.append(image)
        if not others:
            self._drop(own, len(own) - _WAITING)
            return None
        near = min(others, key=lambda other: abs(other.stamp - image.stamp))
        apart = abs(near.stamp - image.stamp)
        if apart > self._limit():
            if len(own) > _WAITING:
                self._drop(own, 1)
                self._tell_apart(apart)
            return None
        self._drop(own, len(own) - 1)
        self._drop(others, others.index(near))
        own.clear()
        others.popleft()
        self._told = False
        return self._joined((near, image) if lens else (image, near))

    def _measure(self, lens: int, stamp: int) -> None:
        last, self._last[lens] = self._last[lens], stamp
        if last is not None and stamp > last:
            self._intervals[lens].append(stamp - last)

    def _limit(self) -> float:
        """Largest difference of the stamps of a pair, in ns."""
        periods = [sorted(seen)[len(seen) // 4] for seen in self._intervals if seen]
        return min([self.tolerance * 1e9, *(period / 2 for period in periods)])

    def _drop(self, images: deque[Image], count: int) -> None:
        for _ in range(count):
            images.popleft()
            self.unpaired += 1

    def _tell_apart(self, apart: int) -> None:
        if not self._told:
            self._told = True
            self._tell(
                f"the images of the two lenses cannot be put together: their stamps are {apart / 1e9:.3f} s apart, "
                f"and at most {self._limit() / 1e9:.3f} s are allowed (lens_tolerance, and half of the time from "
                "image to image)"
            )

    def _joined(self, pair: tuple[Image, Image]) -> Image:
        lenses = self._projection.camera.lenses
        if pair[0].size != pair[1].size:
            sizes = ["{}x{}".format(*image.size) for image in pair]
            raise ValueError(
                f"the image of the {lenses[0].name} lens is {sizes[0]}, that of the {lenses[1].name} lens "
                f"{sizes[1]}; they must have the same size"
            )
        apart = np.subtract(lenses[1].centre, lenses[0].centre)
        along = int(np.argmax(np.abs(apart)))  # 0: side by side
        order = (0, 1) if apart[along] > 0 else (1, 0)

        def read() -> np.ndarray:
            pictures = [_read(image, lens.name) for image, lens in zip(pair, lenses, strict=True)]
            return np.concatenate([pictures[i] for i in order], axis=1 - along)

        size = list(pair[0].size)
        size[along] *= 2
        return Image(
            self._projection.panorama_size((size[0], size[1])),
            read,
            pair[0].stamp,
            pair[0].frame_id,
        )


def _read(image: Image, name: str) -> np.ndarray:
    try:
        return image.read()
    except ValueError as error:
        raise ValueError(f"the {name} lens: {error}") from error


class TopicReader:
    """Converts the messages of a recording's images: of one topic, or of one for each lens.

    Args:
        topics: one topic, or those of the camera's first and second lens.
        projection: of the images; of the picture of both lenses, if there are two topics.
        tell: called with a line about the images.
        tolerance: see :class:`LensPairs`.

    Raises:
        ValueError: there are two topics, and the projection is not that of a camera with two lenses.
    """

    def __init__(
        self,
        topics: Sequence[str],
        projection: Projection,
        tell: Callable[[str], None],
        tolerance: float = TOLERANCE,
    ) -> None:
        self.topics = tuple(topics)
        self.pairs: LensPairs | None = None
        if len(topics) == 1:
            self._readers = [ImageReader(projection, tell)]
            return
        self.pairs = LensPairs(camera_of(projection), tell, tolerance)
        self._readers = [ImageReader(Equirectangular(), tell) for _ in topics]

    @property
    def wanted(self) -> str:
        """What it looks for, in words."""
        if self.pairs is None:
            return f"image on {self.topics[0]}"
        return (
            f"images on {' and '.join(self.topics)} whose stamps are at most {self.pairs.tolerance:g} s apart "
            "(lens_tolerance)"
        )

    def read(self, topic: str, message: Any) -> list[Image]:
        """The images that are complete with a message of one of the topics.

        Raises:
            ValueError: it cannot be read, or its image does not fit to that of the other lens.
        """
        number = self.topics.index(topic)
        return self._together(number, self._readers[number].read(message))

    def flush(self, topic: str) -> list[Image]:
        """The images that are complete with the last ones of a topic's video, which may come late.

        Raises:
            ValueError: see :meth:`read`.
        """
        number = self.topics.index(topic)
        return self._together(number, self._readers[number].flush())

    def _together(self, lens: int, images: list[Image]) -> list[Image]:
        if self.pairs is None:
            return images
        return [pair for image in images if (pair := self.pairs.put(lens, image)) is not None]


def camera_of(projection: Projection) -> DualFisheye:
    """The camera of a projection with two lenses.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(projection, TwoFisheyes):
        raise ValueError(
            "images of two lenses on two topics need the projection dual_fisheye and a camera file"
        )
    return projection.camera
