"""Publishes the engine's answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped, Quaternion, TransformStamped, Vector3
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sap_ros.core.instances import State
from sap_ros.core.overlay import draw_overlay
from sap_ros.engine.answers import NO_POINTS, Answer
from sap_ros.msg import ObjectArray
from sap_ros.node.clouds import points_of_objects
from sap_ros.node.convert import (
    canvas_message,
    image_from_labels,
    image_message,
    jpeg_message,
    markers,
    no_markers,
    objects_message,
    static_mask,
)
from sap_ros.node.detections import detections_3d_message, detections_message
from sap_ros.node.transforms import TfTransforms, bearing_quaternion

_CANVAS = 800  # width of the canvas, in points
_PICTURES = ("overlay", "overlay/compressed", "canvas")
# Published for each image, also without objects, if there is a subscriber.
_OF_EVERY_IMAGE = (*_PICTURES, "static_mask")


class Outputs:
    """The node's publishers.

    Args:
        node: the node, being configured.
        transforms: TF.
        problem: called with a message about what cannot be published.
    """

    def __init__(
        self, node: LifecycleNode, transforms: TfTransforms, problem: Callable[[str], None]
    ) -> None:
        self._node, self._transforms, self._problem = node, transforms, problem
        namespace = node.get_namespace().strip("/")
        self._prefix = (
            f"{namespace}/" if namespace else ""
        )  # makes TF frames of several nodes unique
        self.canvas_frame = f"{node.get_namespace().strip('/') or 'sap'}_canvas".replace("/", "_")
        self._announced = False  # whether the canvas's frame was published to TF
        self._publishers: dict[str, Any] = {}
        for name, kind, depth in (
            ("masks", Image, 1),
            ("static_mask", Image, 1),
            ("objects", ObjectArray, 10),
            ("overlay", Image, 1),
            ("overlay/compressed", CompressedImage, 1),
            ("canvas", PointCloud2, 1),
            ("markers", MarkerArray, 10),
            ("pose", PoseStamped, 10),
            ("object_points", PointCloud2, 1),
            ("object_points/mask", Image, 1),
            *self._of_vision_msgs(),
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

    @staticmethod
    def _of_vision_msgs() -> list[tuple[str, Any, int]]:
        try:
            from vision_msgs.msg import Detection2DArray, Detection3DArray
        except ImportError:
            return []
        return [("detections", Detection2DArray, 10), ("detections_3d", Detection3DArray, 10)]

    def destroy(self) -> None:
        """Destroys the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def listened(self, *names: str) -> bool:
        """Whether one of the named topics has a subscriber; without names, any topic but ``label_info``."""
        return any(
            publisher.get_subscription_count() > 0
            for name, publisher in self._publishers.items()
            if name in names or (not names and name != "label_info")
        )

    def publish(self, answer: Answer, values: Mapping[str, Any]) -> dict[str, float]:
        """Publishes an answer.

        Args:
            answer: the engine's answer.
            values: the node's parameters.

        Returns:
            The duration of each stage, in s.
        """
        began = time.monotonic()
        if answer.news:
            stamp = Time(nanoseconds=answer.stamp).to_msg()
            header = Header(stamp=stamp, frame_id=answer.frame_id)
            masks = image_from_labels(answer.instances.labels, values["mask_encoding"], header)
            self._publishers["masks"].publish(masks)
            of_bearings = Header(stamp=stamp, frame_id=answer.bearing_frame)
            objects = objects_message(answer.objects, of_bearings)
            self._publishers["objects"].publish(objects)
            # What other programs place in space by TF carries the time at which the image was taken.
            taken = Time(nanoseconds=answer.taken).to_msg()
            objects.header = of_bearings = Header(stamp=taken, frame_id=answer.bearing_frame)
            of_points = Header(stamp=taken, frame_id=answer.frame_id)
            if self.listened("markers"):
                self._publishers["markers"].publish(markers(objects, answer.camera))
            if self.listened("detections"):
                self._publishers["detections"].publish(detections_message(answer, header))
            if self.listened("detections_3d"):
                boxes = detections_3d_message(answer, of_bearings)
                self._publishers["detections_3d"].publish(boxes)
            if self.listened("object_points", "object_points/mask"):
                # Also without points: a collision monitor keeps the last cloud that it has got.
                points = answer.points or NO_POINTS
                self._publishers["object_points"].publish(points_of_objects(points, of_points))
                ids = image_from_labels(points.ids[None], values["mask_encoding"], of_points)
                self._publishers["object_points/mask"].publish(ids)
            self._poses(objects, answer.camera, values)
        if self.listened("static_mask"):
            header = Header(stamp=Time(nanoseconds=answer.stamp).to_msg(), frame_id=answer.frame_id)
            mask = static_mask(answer.instances.labels, header)
            self._publishers["static_mask"].publish(mask)
        published = time.monotonic()
        self._pictures(answer, values["overlay_width"])
        return {"publish": published - began, "overlay": time.monotonic() - published}

    def clear_markers(self) -> None:
        """Deletes all markers."""
        self._publishers["markers"].publish(no_markers())

    def label_info(self, labels: Mapping[int, str]) -> None:
        """Publishes which mask value is which object; latched, for later subscribers."""
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

    def _poses(self, objects: ObjectArray, camera: np.ndarray, values: Mapping[str, Any]) -> None:
        """Publishes a TF frame per object, and the pose of the object in the parameter ``pose_object``."""
        frames = []
        for tracked in objects.objects:
            d = tracked.direction
            if tracked.state != int(State.TRACKED) or math.isnan(d.x):
                continue
            x, y, z, w = bearing_quaternion(np.array([d.x, d.y, d.z]))
            has_range = not math.isnan(tracked.range)
            if tracked.id == values["pose_object"] and has_range:
                pose = PoseStamped(header=objects.header)
                pose.pose.position = tracked.position
                pose.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
                self._publishers["pose"].publish(pose)
            if values["broadcast_tf"]:
                at = tracked.position
                origin = (at.x, at.y, at.z) if has_range else camera.tolist()
                frame = TransformStamped(
                    header=objects.header, child_frame_id=f"{self._prefix}object_{tracked.id}"
                )
                frame.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
                frame.transform.translation = Vector3(x=origin[0], y=origin[1], z=origin[2])
                frames.append(frame)
        if frames:
            try:
                self._transforms.broadcast(frames)
            except ValueError as error:
                self._problem(str(error))

    def watched(self) -> bool:
        """Whether an output that is published for each image, also without objects, has a subscriber."""
        return self.listened(*_OF_EVERY_IMAGE)

    def _pictures(self, answer: Answer, width: int) -> None:
        """Publishes overlay and canvas; they are drawn only if one has a subscriber."""
        if not self.listened(*_PICTURES):
            return
        instances = answer.instances
        stamp = Time(nanoseconds=answer.stamp).to_msg()
        header = Header(stamp=stamp, frame_id=answer.frame_id)
        width = min(width, answer.picture.size[0])
        image = answer.picture.panorama(width)
        if width < answer.picture.size[0]:
            size = width, width // 2
            labels = cv2.resize(instances.labels, size, interpolation=cv2.INTER_NEAREST)
            instances = replace(instances, labels=labels)
        picture = draw_overlay(image, instances)
        if self.listened("overlay"):
            message = image_message(picture, "rgb8", header)
            self._publishers["overlay"].publish(message)
        if self.listened("overlay/compressed"):
            self._publishers["overlay/compressed"].publish(jpeg_message(picture, header))
        if self.listened("canvas"):
            self._canvas(picture, header)

    def _canvas(self, picture: np.ndarray, header: Header) -> None:
        """Publishes the picture flat in its own frame, which for rviz2 must be the root of a TF tree."""
        if not self._announced:
            self._transforms.announce(self.canvas_frame)
            self._announced = True
        small = cv2.resize(picture, (_CANVAS, _CANVAS // 2), interpolation=cv2.INTER_AREA)
        on_canvas = Header(stamp=header.stamp, frame_id=self.canvas_frame)
        self._publishers["canvas"].publish(canvas_message(small, on_canvas))
