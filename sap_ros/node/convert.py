"""Converts answers to ROS messages; :mod:`sap_ros.messages` has the conversions that need no ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sap_ros.core.instances import State
from sap_ros.core.overlay import colour
from sap_ros.engine.answers import ObjectReport
from sap_ros.messages import CANVAS_WIDTH, object_fields
from sap_ros.msg import Object, ObjectArray

# Length of a bearing's arrow if the range is unknown, in m.
_ARROW = 2.0


def image_from_labels(labels: np.ndarray, encoding: str, header: Header) -> Image:
    """Converts a label image (H, W) to mono8 or mono16.

    Raises:
        ValueError: an id does not fit into mono8.
    """
    if encoding == "mono8" and labels.dtype != np.uint8 and labels.max(initial=0) > 254:
        raise ValueError("an object's id exceeds 254: set the parameter mask_encoding to mono16")
    return image_message(
        labels.astype("<u2" if encoding == "mono16" else np.uint8, copy=False), encoding, header
    )


def static_mask(labels: np.ndarray, header: Header) -> Image:
    """A mono8 image (H, W): 255 where a label image has no object, 0 on objects."""
    return image_message(np.where(labels == 0, np.uint8(255), np.uint8(0)), "mono8", header)


def image_message(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """Pixels (H, W) or (H, W, channels), C-contiguous, as an image message."""
    message = Image(header=header, encoding=encoding, is_bigendian=0)
    message.height, message.width = pixels.shape[:2]
    message.step = pixels.strides[0]
    message.data.frombytes(pixels.tobytes())
    return message


def jpeg_message(image: np.ndarray, header: Header) -> CompressedImage:
    """RGB (H, W, 3) as a JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    message = CompressedImage(header=header, format="jpeg")
    message.data.frombytes(data.tobytes())
    return message


def canvas_message(image: np.ndarray, header: Header) -> PointCloud2:
    """Converts a picture (H, 2H, 3) uint8 RGB to coloured points in a plane.

    This shows the panorama in the 3D views of rviz2 and Foxglove, which can be clicked, while their image
    views cannot. The upper left corner is the origin, u is along x and v along -y, and the width is
    ``CANVAS_WIDTH`` metres.
    """
    height, width = image.shape[:2]
    step = CANVAS_WIDTH / width
    points = np.zeros((height, width), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    points["x"] = (np.arange(width) + 0.5) * step
    points["y"] = -(np.arange(height)[:, None] + 0.5) * step
    points["rgb"] = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return cloud_message(points.ravel(), header)


def cloud_message(rows: np.ndarray, header: Header) -> PointCloud2:
    """A structured array (N,), little-endian and without gaps, as a point cloud with its fields."""
    kinds = {
        "<f4": PointField.FLOAT32,
        "<u4": PointField.FLOAT32,  # rgb: four bytes in a float, by convention
        "<u2": PointField.UINT16,
    }
    message = PointCloud2(header=header, height=1, width=len(rows), is_dense=True)
    fields = rows.dtype.fields or {}
    message.fields = [
        PointField(name=name, offset=field[1], datatype=kinds[field[0].str], count=1)
        for name, field in fields.items()
    ]
    message.point_step = rows.dtype.itemsize
    message.row_step = message.point_step * len(rows)
    message.data.frombytes(rows.tobytes())
    return message


def objects_message(objects: Iterable[ObjectReport], header: Header) -> ObjectArray:
    """Converts objects to a message; the header is that of their bearings."""
    return ObjectArray(header=header, objects=[_object(o) for o in objects])


def _object(report: ObjectReport) -> Object:
    (x, y, z), (px, py, pz) = report.direction, report.position
    wx, wy, wz = report.angular_velocity
    return Object(
        direction=Vector3(x=x, y=y, z=z),
        angular_velocity=Vector3(x=wx, y=wy, z=wz),
        position=Point(x=px, y=py, z=pz),
        **object_fields(report),
    )


def no_markers() -> MarkerArray:
    """A message that deletes all markers."""
    return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def markers(objects: ObjectArray, camera: np.ndarray) -> MarkerArray:
    """Bearings as arrows from the camera (3,) with their ids, for rviz2 and Foxglove."""
    found = [Marker(header=objects.header, action=Marker.DELETEALL)]
    for tracked in objects.objects:
        d = tracked.direction
        if tracked.state != int(State.TRACKED) or math.isnan(d.x):
            continue
        length = _ARROW if math.isnan(tracked.range) else tracked.range
        start, end = camera, camera + length * np.array([d.x, d.y, d.z])
        tail, tip = (Point(x=x, y=y, z=z) for x, y, z in (start.tolist(), end.tolist()))
        red, green, blue = (channel / 255 for channel in colour(tracked.id))
        shade = ColorRGBA(r=red, g=green, b=blue, a=1.0)
        arrow = Marker(
            header=objects.header, ns="bearing", id=tracked.id, type=Marker.ARROW, color=shade
        )
        arrow.points = [tail, tip]
        arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.03, 0.08, 0.12
        arrow.pose.orientation.w = 1.0
        text = Marker(
            header=objects.header, ns="id", id=tracked.id, type=Marker.TEXT_VIEW_FACING, color=shade
        )
        text.pose.position, text.pose.orientation.w, text.scale.z = tip, 1.0, 0.2
        text.text = f"{tracked.id} {tracked.label}".strip()
        found += [arrow, text]
    return MarkerArray(markers=found)
