"""Detections in and out, as messages of vision_msgs, which are imported where they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from sap_ros.camera_info import CameraModel
from sap_ros.core.instances import Instance, State
from sap_ros.engine.answers import Answer, ObjectReport
from sap_ros.engine.events import Detections
from sap_ros.messages import from_detections
from sap_ros.node.image_input import newest_only
from sap_ros.node.transforms import bearing_quaternion

_STEEPEST = math.radians(80)  # half the angle beyond which an object's extent is not measured


class DetectionInput:
    """Subscribes to ``prompt/detections``, and to the calibrations of the cameras that they are from.

    Args:
        node: the node.
        take: called with the boxes of each message.
        warn: called with one line for a message that cannot be used.
    """

    def __init__(
        self, node: Node, take: Callable[[Detections], None], warn: Callable[[str], None]
    ) -> None:
        self._node, self._take, self._warn = node, take, warn
        self._cameras: dict[str, CameraModel] = {}  # by frame
        self._subscriptions: list[Any] = []
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError:
            return
        self._subscriptions = [
            node.create_subscription(
                Detection2DArray, "prompt/detections", self._take_detections, newest_only()
            ),
            node.create_subscription(
                CameraInfo, "prompt/camera_info", self._take_camera, newest_only()
            ),
        ]

    def destroy(self) -> None:
        """Destroys the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _take_camera(self, message: CameraInfo) -> None:
        try:
            self._cameras[message.header.frame_id] = CameraModel.from_message(message)
        except ValueError as error:
            self._warn(str(error))

    def _take_detections(self, message: Any) -> None:
        try:
            event = from_detections(message, self._cameras.get(message.header.frame_id))
        except ValueError as error:
            self._warn(str(error))
        else:
            self._take(event)


def detections_message(answer: Answer, header: Header) -> Any:
    """The boxes of tracked objects on the panorama, as a Detection2DArray; the header is the image's."""
    from vision_msgs.msg import Detection2D, Detection2DArray

    height, width = answer.instances.labels.shape
    found = Detection2DArray(header=header)
    for instance in answer.instances.objects:
        if instance.state != State.TRACKED:
            continue
        label = answer.labels.get(instance.object_id, "")
        detection = Detection2D(header=header, id=str(instance.object_id))
        detection.results = [_hypothesis(label, instance.score)]
        left, top, across, down = pixel_box(instance, (width, height))
        detection.bbox.center.position.x = left + across / 2
        detection.bbox.center.position.y = top + down / 2
        detection.bbox.size_x, detection.bbox.size_y = across, down
        found.detections.append(detection)
    return found


def pixel_box(instance: Instance, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A tracked object's box as (left, top, width, height) in pixels.

    ``left`` is in [0, W); a box across the seam extends past the right border.
    """
    width, height = size
    across = instance.azimuth_width / (2 * math.pi) * width
    centre = (0.5 - instance.azimuth_centre / (2 * math.pi)) * width
    top = (0.5 - instance.elevation_max / math.pi) * height
    bottom = (0.5 - instance.elevation_min / math.pi) * height
    left = round((centre - across / 2) % width, 6)  # masks end between pixels
    return left % width, top, across, bottom - top


def detections_3d_message(answer: Answer, header: Header) -> Any:
    """The objects whose range is known, as a Detection3DArray; the header is that of the bearings.

    A box is at the object's position, turned so that its x axis is along the bearing. Its y and z sizes are
    the object's extent on the panorama at its range; its x size is 0: the thickness is unknown.
    """
    from vision_msgs.msg import Detection3D, Detection3DArray

    found = Detection3DArray(header=header)
    for tracked in answer.objects:
        if tracked.state != State.TRACKED or math.isnan(tracked.range):
            continue
        if math.isnan(tracked.direction[0]):
            continue
        pose = _pose(tracked)
        detection = Detection3D(header=header, id=str(tracked.object_id))
        hypothesis = _hypothesis(tracked.label, tracked.score)
        hypothesis.pose = PoseWithCovariance(pose=pose, covariance=_covariance(tracked))
        detection.results = [hypothesis]
        detection.bbox.center = pose
        detection.bbox.size = Vector3(
            y=_extent(tracked.range * math.cos(tracked.elevation), tracked.azimuth_width),
            z=_extent(tracked.range, tracked.elevation_height),
        )
        found.detections.append(detection)
    return found


def _hypothesis(label: str, score: float) -> Any:
    from vision_msgs.msg import ObjectHypothesisWithPose

    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = label, score
    return hypothesis


def _pose(tracked: ObjectReport) -> Pose:
    x, y, z, w = bearing_quaternion(np.array(tracked.direction))
    px, py, pz = tracked.position
    return Pose(position=Point(x=px, y=py, z=pz), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _covariance(tracked: ObjectReport) -> np.ndarray:
    """(36,) row-major covariance of position and rotation, in the bearings' frame; 0: unknown."""
    turn = Rotation.from_quat(bearing_quaternion(np.array(tracked.direction))).as_matrix()
    across = tracked.range * tracked.angular_stddev
    full = np.zeros((6, 6))
    full[:3, :3] = turn @ np.diag(np.square([tracked.range_stddev, across, across])) @ turn.T
    return np.nan_to_num(full).ravel()


def _extent(distance: float, angle: float) -> float:
    """Width in m of something that spans an angle in rad at a distance in m."""
    return 2 * distance * math.tan(min(angle / 2, _STEEPEST))
