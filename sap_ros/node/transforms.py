"""Transforms between frames, from TF."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.engine.transforms import Stamped, Transform
from sap_ros.missing import apt_install

#: After a time-out, the node does not wait for the same transform again for this long, in s.
_RETRY = 1.0


class TfTransforms:
    """The engine's transforms, from TF; without tf2_ros, lookups and broadcasts raise ValueError.

    Args:
        node: the node that listens to TF and broadcasts.

    Attributes:
        timeout: how long to wait for a transform, in s.
    """

    def __init__(self, node: Node) -> None:
        self.timeout = 0.2
        self._missed: dict[tuple[str, str], float] = {}  # by transform: time of the last time-out
        try:
            import tf2_ros
        except ImportError:
            self._tf2: Any = None
            return
        self._tf2 = tf2_ros
        # Given the node, the buffer is cleared when simulated time jumps back; Humble's is not.
        self._buffer = tf2_ros.Buffer(node=node)
        if not hasattr(self._buffer, "time_jump_callback"):
            back = JumpThreshold(
                min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
            )
            self._jump_handle = node.get_clock().create_jump_callback(
                back, post_callback=lambda jump: self._buffer.clear()
            )
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node)
        self._static = tf2_ros.StaticTransformBroadcaster(node)

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        """See :class:`sap_ros.engine.transforms.Transforms`."""
        to_id, from_id = target.frame_id, source.frame_id
        if not to_id or not from_id:
            return Transform()
        if to_id == from_id and not fixed_frame:
            return Transform()
        if self._tf2 is None:
            raise ValueError(
                f"a transform from {from_id!r} to {to_id!r} needs tf2_ros, which is not installed "
                f"({apt_install('tf2-ros-py')}; there is no wheel of it)"
            )
        then = Time(nanoseconds=source.stamp)
        # Waiting for the same missing transform again and again would block the worker.
        missed = self._missed.get((to_id, from_id), -math.inf)
        wait = self.timeout if time.monotonic() - missed > _RETRY else 0.0
        limit = Duration(seconds=wait)
        try:
            if fixed_frame:
                now = Time(nanoseconds=target.stamp)
                stamped = self._buffer.lookup_transform_full(
                    to_id, now, from_id, then, fixed_frame, limit
                )
            else:
                stamped = self._buffer.lookup_transform(to_id, from_id, then, limit)
        except self._tf2.TransformException as error:
            if wait:
                self._missed[to_id, from_id] = time.monotonic()
            seconds = f"{source.stamp // 10**9}.{source.stamp % 10**9:09d}"
            raise ValueError(
                f"no transform from {from_id!r} to {to_id!r} at {seconds} within "
                f"{self.timeout:g} s: {error}"
            ) from error
        q, t = stamped.transform.rotation, stamped.transform.translation
        return Transform(
            Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), np.array([t.x, t.y, t.z])
        )

    def broadcast(self, transforms: list[Any]) -> None:
        """Sends TransformStamped messages; ValueError without tf2_ros."""
        if self._tf2 is None:
            raise ValueError("broadcast_tf needs tf2_ros, which is not installed")
        self._broadcaster.sendTransform(transforms)

    def announce(self, frame: str) -> None:
        """Publishes a frame to TF as the root of its own tree; does nothing without tf2_ros."""
        if self._tf2 is not None:
            child = TransformStamped(child_frame_id=f"{frame}_origin")
            child.header.frame_id, child.transform.rotation.w = frame, 1.0
            self._static.sendTransform(child)


def bearing_quaternion(direction: np.ndarray) -> tuple[float, float, float, float]:
    """The quaternion (x, y, z, w) that turns the x axis to a unit vector (3,), without roll."""
    azimuth, elevation = sphere.direction_to_angles(direction)
    x, y, z, w = Rotation.from_euler("ZY", [azimuth, -elevation]).as_quat()
    return float(x), float(y), float(z), float(w)
