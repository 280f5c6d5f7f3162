"""Angular velocities of objects, from their directions in the last images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sap_ros.core.instances import Instances, State
from sap_ros.core.motion import rotation_between
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Image
from sap_ros.engine.transforms import Stamped, Transforms

#: Time over which a velocity is averaged, in s: directions move by a fraction of a pixel from image to image.
WINDOW = 0.5
_MOST = 64  # number of kept directions of an object


@dataclass(frozen=True)
class _Seen:
    stamp: int  # ns
    frame_id: str
    direction: np.ndarray  # (3,) in the image's frame


class AngularVelocities:
    """Keeps the last directions of each object.

    Args:
        transforms: TF, or a replacement.
        problem: called with one line if TF lacks the camera's rotation.
    """

    def __init__(self, transforms: Transforms, problem: Callable[[str], None]) -> None:
        self._transforms, self._problem = transforms, problem
        self._seen: dict[int, deque[_Seen]] = {}

    def forget(self, object_id: int) -> None:
        """Forgets an object's directions: it was removed, or a prompt has changed its mask."""
        self._seen.pop(object_id, None)

    def clear(self) -> None:
        """Forgets all objects."""
        self._seen.clear()

    def update(
        self, image: Image, instances: Instances, axes: ImageAxes, fixed_frame: str
    ) -> dict[int, np.ndarray]:
        """Stores the objects' directions on an image.

        Args:
            image: the image.
            instances: the objects on it.
            axes: axes of the image's frame.
            fixed_frame: a TF frame that is fixed in the world; empty: the camera's own rotation is not
                taken off.

        Returns:
            By id, (3,) in rad/s, in the image's frame: the axis of the rotation that moves the object's
            direction, times its rate. An object has none in its first image, or if TF lacks the rotation.
        """
        found = {}
        tracked = {i.object_id: i for i in instances.objects if i.state == State.TRACKED}
        self._seen = {i: seen for i, seen in self._seen.items() if i in tracked}
        turned: dict[tuple[int, str], np.ndarray | None] = {}  # camera's rotation, by earlier image
        for object_id, instance in tracked.items():
            seen = self._seen.setdefault(object_id, deque(maxlen=_MOST))
            now = _Seen(image.taken, image.frame_id, axes.to_frame(instance.direction))
            if seen and not seen[-1].stamp < now.stamp:
                if seen[-1].stamp == now.stamp:
                    seen.pop()  # the same image, answered again
                else:
                    seen.clear()  # the clock has jumped back
            while seen and now.stamp - seen[0].stamp > WINDOW * 1e9 and len(seen) > 1:
                seen.popleft()
            if seen:
                first = seen[0]
                key = first.stamp, first.frame_id
                if key not in turned:
                    turned[key] = self._rotation(first, now, fixed_frame)
                rotation = turned[key]
                if rotation is not None:
                    moved = rotation_between(rotation @ first.direction, now.direction)
                    seconds = (now.stamp - first.stamp) / 1e9
                    found[object_id] = moved.as_rotvec() / seconds
            seen.append(now)
        return found

    def _rotation(self, first: _Seen, now: _Seen, fixed_frame: str) -> np.ndarray | None:
        """Rotation (3, 3) of directions that are fixed in the world, from the first image's frame to this one's."""
        if not fixed_frame:
            return np.eye(3)
        try:
            return self._transforms.lookup(
                Stamped(now.frame_id, now.stamp), Stamped(first.frame_id, first.stamp), fixed_frame
            ).rotation
        except ValueError as error:
            self._problem(f"no angular velocities: {error}")
            return None
