"""A camera and a detector for examples: the traced drive, its true boxes and its odometry, without weights.

Started by ``detections.launch.py``. It stands for the camera's driver and for the detector of a robot.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sap_ros.core.instances import measure
from sap_ros.missing import apt_install
from sap_ros.node.convert import image_message
from sap_ros.node.detections import pixel_box
from sap_ros.synthesis.moving import MovingScene

_SIZE = (1024, 512)
_EVERY = 5  # images from one detection to the next: detectors are slower than cameras
_LEAST = 100  # pixels that a detected object has at least


class DriveNode(Node):
    """Publishes ``image``, and the boxes of the moving scene's objects on ``prompt/detections``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sap_drive", **kwargs)
        from vision_msgs.msg import Detection2DArray

        self._rate = float(self.declare_parameter("rate", 4.0).value)
        if not self._rate > 0:
            raise ValueError(f"the parameter rate is {self._rate}; it must be positive (images/s)")
        self._frame = str(self.declare_parameter("frame_id", "camera_link").value)
        self._scene = MovingScene()
        self._names = [solid.name for solid in self._scene.solids]
        self._images = self.create_publisher(Image, "image", 1)
        self._detections = self.create_publisher(Detection2DArray, "prompt/detections", 1)
        self._broadcaster = self._make_broadcaster()
        self._count = itertools.count()
        self.create_timer(1 / self._rate, self._publish)

    def _make_broadcaster(self) -> Any:
        try:
            import tf2_ros
        except ImportError:
            self.get_logger().warning("tf2_ros is not installed: no odometry is published")
            return None
        return tf2_ros.TransformBroadcaster(self)

    def _publish(self) -> None:
        index = next(self._count)
        time = index / self._rate
        picture, labels = self._scene.render(time, _SIZE)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame)
        if self._broadcaster is not None:
            self._broadcaster.sendTransform(self._odometry(time, header))
        self._images.publish(image_message(picture, "rgb8", header))
        if index % _EVERY == 0:
            self._detections.publish(self._boxes(labels, header))

    def _odometry(self, time: float, header: Header) -> TransformStamped:
        (x, y, z), heading = self._scene.pose(time)
        moved = TransformStamped(child_frame_id=self._frame)
        moved.header.stamp, moved.header.frame_id = header.stamp, "odom"
        at, turn = moved.transform.translation, moved.transform.rotation
        at.x, at.y, at.z = float(x), float(y), float(z)
        turn.z, turn.w = float(np.sin(heading / 2)), float(np.cos(heading / 2))
        return moved

    def _boxes(self, labels: np.ndarray, header: Header) -> Any:
        from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

        message = Detection2DArray(header=header)
        for object_id, name in enumerate(self._names, 1):
            mask = labels == object_id
            if mask.sum() < _LEAST:
                continue
            left, top, width, height = pixel_box(measure(mask, object_id, 1.0), _SIZE)
            detection = Detection2D(header=header)
            detection.bbox.center.position.x = left + width / 2
            detection.bbox.center.position.y = top + height / 2
            detection.bbox.size_x, detection.bbox.size_y = width, height
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = name, 1.0
            detection.results = [result]
            message.detections.append(detection)
        return message


def main() -> None:
    """Publishes until SIGINT or SIGTERM."""
    rclpy.init()
    try:
        rclpy.spin(DriveNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"sap_drive: {error.name} is not installed ({apt_install('vision-msgs')})"
        ) from None
    finally:
        rclpy.try_shutdown()
