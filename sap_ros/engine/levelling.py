"""Which way is up for the camera, from TF or from an IMU, so that views are laid out level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from sap_ros.engine.events import Attitude, Image, Settings
from sap_ros.engine.transforms import Stamped, Transforms

#: Attitudes are kept at least this far apart, in ns: a robot hardly tilts in that time.
PERIOD = 20_000_000
_KEPT = 256  # number of attitudes, for prompts on earlier images

#: Largest difference between the stamps of an image and of the attitude that levels its views, in s.
TOLERANCE = 0.2


class Levels:
    """Keeps the latest attitudes, and gives the up direction for an image.

    Args:
        transforms: TF, or a replacement.
        problem: called with one line if the up direction is wanted and not known.
    """

    def __init__(self, transforms: Transforms, problem: Callable[[str], None]) -> None:
        self._transforms, self._problem = transforms, problem
        self._attitudes: deque[Attitude] = deque(maxlen=_KEPT)

    def take(self, attitude: Attitude) -> None:
        """Stores an attitude."""
        kept = self._attitudes
        if not kept or not attitude.stamp or abs(attitude.stamp - kept[-1].stamp) >= PERIOD:
            kept.append(attitude)

    def up(self, image: Image, settings: Settings) -> np.ndarray | None:
        """The up direction (3,) in the panorama's axes; None if it is not known, or not wanted."""
        if not (settings.level_frame or self._attitudes):
            return None
        try:
            up = self._by_tf(image, settings) if settings.level_frame else self._by_imu(image)
        except ValueError as error:
            self._problem(f"views are not levelled: {error}")
            return None
        return settings.axes.from_frame(up)

    def _by_tf(self, image: Image, settings: Settings) -> np.ndarray:
        if not image.frame_id:
            raise ValueError("the images have no frame_id")
        return self._rotation(settings.level_frame, image, image.frame_id)[2]

    def _by_imu(self, image: Image) -> np.ndarray:
        attitude = self._attitudes[-1]
        if image.taken:
            attitude = min(self._attitudes, key=lambda each: abs(each.stamp - image.taken))
            apart = abs(attitude.stamp - image.taken) / 1e9
            if apart > TOLERANCE:
                raise ValueError(
                    f"the nearest orientation of the IMU is {apart:.3g} s from the image, more than "
                    f"{TOLERANCE:g} s"
                )
        rotation = self._rotation(image.frame_id, image, attitude.frame_id)
        return np.asarray(rotation @ attitude.up)

    def _rotation(self, target: str, image: Image, source: str) -> np.ndarray:
        """Rotation (3, 3) from one frame to another when the image was taken."""
        rotation = self._transforms.lookup(
            Stamped(target, image.taken), Stamped(source, image.taken)
        ).rotation
        if not np.isfinite(rotation).all():
            raise ValueError(f"the rotation from {source!r} to {target!r} is not finite")
        return rotation
