"""What the node publishes of a result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sap_ros.core.instances import State
from sap_ros.core.overlay import draw_overlay
from sap_ros.messages import ImageFrame
from sap_ros.msg import ObjectArray
from sap_ros.node.convert import (
    canvas_message,
    image_from_labels,
    image_message,
    jpeg_message,
    markers,
    objects_to_message,
    rejected,
)
from sap_ros.node.frames import Transforms, bearing_quaternion
from sap_ros.node.ranging import (
    ids_of_points,
    points_of_objects,
    ranges_of_objects,
    read_points,
)
from sap_ros.node.worker import Result

_CANVAS = 800  # points of the canvas, across


class Outputs:
    """The node's publishers.

    Args:
        node: the node, being configured.
        transforms: TF.
        problem: told, in a line, of whatever cannot be published.
    """

    def __init__(
        self, node: LifecycleNode, transforms: Transforms, problem: Callable[[str], None]
    ) -> None:
        self._node, self._transforms, self._problem = node, transforms, problem
        self.canvas_frame = f"{node.get_namespace().strip('/') or 'sap'}_canvas".replace("/", "_")
        self._announced = False  # whether TF knows the canvas
        self._publishers: dict[str, Any] = {}
        for name, kind, depth in (
            ("masks", Image, 1),
            ("objects", ObjectArray, 10),
            ("overlay", Image, 1),
            ("overlay/compressed", CompressedImage, 1),
            ("canvas", PointCloud2, 1),
            ("markers", MarkerArray, 10),
            ("pose", PoseStamped, 10),
            ("object_points", PointCloud2, 1),
        ):
            options = QoSOverridingOptions.with_default_policies()
            self._publishers[name] = node.create_lifecycle_publisher(
                kind, name, depth, qos_overriding_options=options
            )
        try:
            from vision_msgs.msg import LabelInfo
        except ImportError:
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publishers["label_info"] = node.create_lifecycle_publisher(
            LabelInfo, "label_info", latched
        )

    def destroy(self) -> None:
        """Takes the publishers down."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def listened(self, *names: str) -> bool:
        """Whether somebody listens to one of these; to any of them, where none is named."""
        return any(
            publisher.get_subscription_count() > 0
            for name, publisher in self._publishers.items()
            if name in names or (not names and name != "label_info")
        )

    def publish(
        self,
        result: Result,
        values: dict[str, Any],
        labels: dict[int, str],
        cloud: PointCloud2 | None,
    ) -> dict[str, float]:
        """Publishes a result.

        Args:
            result: from the worker.
            values: the node's parameters.
            labels: free text, by id.
            cloud: the newest point cloud.

        Returns:
            How long it took, in s, by stage.
        """
        began = time.monotonic()
        somebody_only_looks = not (result.instances.objects or result.rejected or result.emptied)
        if somebody_only_looks:
            self._pictures(result, values["overlay_width"])
            return {"overlay": time.monotonic() - began}
        frame = ImageFrame(values["forward_column"], values["image_frame_convention"])
        masks = image_from_labels(result.instances.labels, values["mask_encoding"], result.header)
        self._publishers["masks"].publish(masks)
        ranges: dict[int, float] = {}
        if cloud is not None:
            ranges = self._ranges(result, cloud, frame, values["tf_timeout"])
        objects = self._objects(result, values, labels, frame, ranges)
        if objects is not None:
            objects.objects += [rejected(r.object_id, r.label) for r, _ in result.rejected]
            self._publishers["objects"].publish(objects)
            if self.listened("markers"):
                self._publishers["markers"].publish(markers(objects))
            self._poses(objects, values)
        published = time.monotonic()
        self._pictures(result, values["overlay_width"])
        return {"publish": published - began, "overlay": time.monotonic() - published}

    def label_info(self, labels: dict[int, str]) -> None:
        """Says which value of the mask is which object, to whoever comes later, too."""
        if "label_info" not in self._publishers:
            return
        from vision_msgs.msg import LabelInfo, VisionClass

        self._publishers["label_info"].publish(
            LabelInfo(
                class_map=[
                    VisionClass(class_id=i, class_name=label or f"object {i}")
                    for i, label in sorted(labels.items())
                ]
            )
        )

    def _objects(
        self,
        result: Result,
        values: dict[str, Any],
        labels: dict[int, str],
        frame: ImageFrame,
        ranges: dict[int, float],
    ) -> ObjectArray | None:
        """The objects in the target frame; None where there is no way to it."""
        target, header, turn = values["target_frame"], result.header, None
        if target and target != header.frame_id:
            try:
                turn, _ = self._transforms.lookup(
                    Header(stamp=header.stamp, frame_id=target), header, values["tf_timeout"]
                )
            except ValueError as error:
                self._problem(f"bearings are not published: {error}")
                return None
            header = Header(stamp=header.stamp, frame_id=target)
        return objects_to_message(result.instances, header, labels, frame, turn, ranges)

    def _ranges(
        self, result: Result, cloud: PointCloud2, frame: ImageFrame, timeout: float
    ) -> dict[int, float]:
        """Ranges by id, from the points on the masks; those points are published."""
        at = Header(stamp=result.header.stamp, frame_id=cloud.header.frame_id)
        try:
            points = read_points(cloud)
            turn, shift = self._transforms.lookup(result.header, at, timeout)
            seen = points @ turn.T + shift
            ids = ids_of_points(seen, result.instances.labels, frame)
            if self.listened("object_points"):
                on_objects = points_of_objects(cloud, points, ids)
                self._publishers["object_points"].publish(on_objects)
        except ValueError as error:
            self._problem(f"no ranges: {error}")
            return {}
        return ranges_of_objects(seen, ids)

    def _poses(self, objects: ObjectArray, values: dict[str, Any]) -> None:
        """A TF frame an object, and the chosen object's pose."""
        frames = []
        for thing in objects.objects:
            if thing.state != int(State.TRACKED):
                continue
            d = thing.direction
            x, y, z, w = bearing_quaternion(np.array([d.x, d.y, d.z]))
            if thing.id == values["pose_object"] and not math.isnan(thing.range):
                pose = PoseStamped(header=objects.header)
                pose.pose.position = thing.position
                turn = pose.pose.orientation
                turn.x, turn.y, turn.z, turn.w = x, y, z, w
                self._publishers["pose"].publish(pose)
            if values["broadcast_tf"]:
                frame = TransformStamped(header=objects.header, child_frame_id=f"object_{thing.id}")
                turn = frame.transform.rotation
                turn.x, turn.y, turn.z, turn.w = x, y, z, w
                if not math.isnan(thing.range):
                    place, at = frame.transform.translation, thing.position
                    place.x, place.y, place.z = at.x, at.y, at.z
                frames.append(frame)
        if frames:
            try:
                self._transforms.broadcast(frames)
            except ValueError as error:
                self._problem(str(error))

    def watched(self) -> bool:
        """Whether somebody looks at the pictures."""
        return self.listened("overlay", "overlay/compressed", "canvas")

    def _pictures(self, result: Result, width: int) -> None:
        """The pictures for people, drawn only while somebody looks."""
        if not self.watched():
            return
        image, instances = result.image, result.instances
        if image.shape[1] > width:
            size = width, width // 2
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(instances.labels, size, interpolation=cv2.INTER_NEAREST)
            instances = replace(instances, labels=labels)
        picture = draw_overlay(image, instances)
        if self.listened("overlay"):
            message = image_message(picture, "rgb8", result.header)
            self._publishers["overlay"].publish(message)
        if self.listened("overlay/compressed"):
            self._publishers["overlay/compressed"].publish(jpeg_message(picture, result.header))
        if self.listened("canvas"):
            self._canvas(picture, result.header)

    def _canvas(self, picture: np.ndarray, header: Header) -> None:
        """The picture, flat in a frame of its own: rviz2 wants TF to know it, and to be its root."""
        if not self._announced:
            self._transforms.announce(self.canvas_frame)
            self._announced = True
        small = cv2.resize(picture, (_CANVAS, _CANVAS // 2), interpolation=cv2.INTER_AREA)
        on_canvas = Header(stamp=header.stamp, frame_id=self.canvas_frame)
        self._publishers["canvas"].publish(canvas_message(small, on_canvas))
