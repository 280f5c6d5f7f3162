"""Transforms between frames, by TF."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header


class Transforms:
    """Directions and points from frame to frame, by TF where tf2_ros is there.

    Without it, or between a frame and itself, nothing is asked of TF; what cannot be done raises
    ValueError that names the frame that is missing.
    """

    def __init__(self, node: Node) -> None:
        try:
            import tf2_ros
        except ImportError:
            self._tf2: Any = None
            return
        self._tf2 = tf2_ros
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node)
        self._static = tf2_ros.StaticTransformBroadcaster(node)

    def check(self, target: str, source: str) -> None:
        """Raises ValueError where there can be no transform, whatever the time."""
        if self._tf2 is None and target and source and target != source:
            raise ValueError(
                f"a transform from {source!r} to {target!r} needs tf2_ros, which is not installed "
                "(apt install ros-jazzy-tf2-ros-py; there is no wheel of it)"
            )

    def lookup(
        self, target: Header, source: Header, timeout: float, fixed: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and translation (3,) that take points of a frame to another.

        Args:
            target: the frame to go to, and when.
            source: the frame to come from, and when.
            timeout: how long to wait, in s.
            fixed: a frame in which the world stands still, to go from one time to another by;
                without one, both are taken at the source's time.

        Raises:
            ValueError: TF does not know it, or tf2_ros is missing.
        """
        from_id, to_id = source.frame_id, target.frame_id
        if not to_id or not from_id or (to_id == from_id and (not fixed or self._tf2 is None)):
            return np.eye(3), np.zeros(3)
        self.check(to_id, from_id)
        then, limit = Time.from_msg(source.stamp), Duration(seconds=timeout)
        try:
            if fixed:
                now = Time.from_msg(target.stamp)
                stamped = self._buffer.lookup_transform_full(
                    to_id, now, from_id, then, fixed, limit
                )
            else:
                stamped = self._buffer.lookup_transform(to_id, from_id, then, limit)
        except self._tf2.TransformException as error:
            raise ValueError(
                f"no transform from {from_id!r} to {to_id!r} at "
                f"{source.stamp.sec}.{source.stamp.nanosec:09d} within {timeout:g} s: {error}"
            ) from error
        found = stamped.transform
        q, t = found.rotation, found.translation
        return _rotation(q.x, q.y, q.z, q.w), np.array([t.x, t.y, t.z])

    def broadcast(self, transforms: list[Any]) -> None:
        """Sends TransformStamped messages; ValueError without tf2_ros."""
        if self._tf2 is None:
            raise ValueError("broadcast_tf needs tf2_ros, which is not installed")
        self._broadcaster.sendTransform(transforms)

    def announce(self, frame: str) -> None:
        """Makes a frame known to TF, at the root of its own tree; nothing without tf2_ros."""
        if self._tf2 is not None:
            child = TransformStamped(child_frame_id=f"{frame}_origin")
            child.header.frame_id, child.transform.rotation.w = frame, 1.0
            self._static.sendTransform(child)


def _rotation(x: float, y: float, z: float, w: float) -> np.ndarray:
    """A unit quaternion as a rotation (3, 3)."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def bearing_quaternion(direction: np.ndarray) -> tuple[float, float, float, float]:
    """A rotation (x, y, z, w) that turns the x axis to a unit vector (3,), with no roll."""
    x, y, z = (float(value) for value in direction)
    yaw, pitch = np.arctan2(y, x), -np.arctan2(z, np.hypot(x, y))
    cy, sy, cp, sp = np.cos(yaw / 2), np.sin(yaw / 2), np.cos(pitch / 2), np.sin(pitch / 2)
    return float(-sy * sp), float(cy * sp), float(sy * cp), float(cy * cp)
