"""The core's types as ROS messages; :mod:`sap_ros.messages` has what needs no ROS."""

from __future__ import annotations

import math

import cv2
import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sap_ros.core.instances import Instance, Instances, State
from sap_ros.core.overlay import colour
from sap_ros.messages import ImageFrame, object_fields
from sap_ros.msg import Object, ObjectArray

# Length of a bearing's arrow where the range is not known, m.
_ARROW = 2.0

#: Width of the canvas, m.
CANVAS_WIDTH = 10.0


def image_from_labels(labels: np.ndarray, encoding: str, header: Header) -> Image:
    """A label image (H, W) as mono8 or mono16.

    Raises:
        ValueError: an id does not fit into mono8.
    """
    if encoding == "mono8" and labels.dtype != np.uint8:
        raise ValueError("an object's id exceeds 254: set the parameter mask_encoding to mono16")
    return image_message(
        labels.astype("<u2" if encoding == "mono16" else np.uint8, copy=False), encoding, header
    )


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
    """A picture (H, 2H, 3) uint8 RGB laid out flat, as coloured points in a plane.

    The 3D views of rviz2 and Foxglove can be clicked, their image views cannot: this puts the
    panorama into a 3D view. Its upper left corner is the origin, u runs along x and v along -y,
    ``CANVAS_WIDTH`` metres for the whole width.
    """
    height, width = image.shape[:2]
    step = CANVAS_WIDTH / width
    points = np.zeros((height, width), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    points["x"] = (np.arange(width) + 0.5) * step
    points["y"] = -(np.arange(height)[:, None] + 0.5) * step
    points["rgb"] = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    message = PointCloud2(header=header, height=1, width=height * width, is_dense=True)
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "rgb"))
    ]
    message.point_step, message.row_step = 16, 16 * height * width
    message.data.frombytes(points.tobytes())
    return message


def canvas_to_pixels(point: Point, size: tuple[int, int]) -> Point:
    """A point on the canvas as a pixel of the panorama of that (width, height)."""
    scale = size[0] / CANVAS_WIDTH
    return Point(x=point.x * scale, y=-point.y * scale)


def objects_to_message(
    instances: Instances,
    header: Header,
    labels: dict[int, str],
    frame: ImageFrame,
    turn: np.ndarray | None = None,
    ranges: dict[int, float] | None = None,
) -> ObjectArray:
    """All objects.

    Args:
        instances: on the panorama.
        header: the image's; or with ``turn``, the target frame's.
        labels: free text, by id.
        frame: the axes of the image's frame.
        turn: (3, 3), from the image's frame to the header's.
        ranges: in m, by id.
    """
    things = [
        _object(
            thing,
            labels.get(thing.object_id, ""),
            frame,
            turn,
            (ranges or {}).get(thing.object_id, math.nan),
        )
        for thing in instances.objects
    ]
    return ObjectArray(header=header, objects=things)


def _object(
    thing: Instance, label: str, frame: ImageFrame, turn: np.ndarray | None, distance: float
) -> Object:
    direction, position, values = object_fields(thing, label, frame, turn, distance)
    x, y, z = direction
    px, py, pz = position
    return Object(direction=Vector3(x=x, y=y, z=z), position=Point(x=px, y=py, z=pz), **values)


def rejected(object_id: int, label: str) -> Object:
    """An object whose prompt cannot be used."""
    nan = math.nan
    return Object(
        id=object_id,
        label=label,
        state=int(State.REJECTED),
        direction=Vector3(x=nan, y=nan, z=nan),
        azimuth=nan,
        elevation=nan,
        azimuth_width=nan,
        elevation_height=nan,
        range=nan,
        position=Point(x=nan, y=nan, z=nan),
        angular_stddev=nan,
    )


def markers(objects: ObjectArray) -> MarkerArray:
    """Bearings as arrows with their ids, for rviz2 and Foxglove."""
    found = [Marker(header=objects.header, action=Marker.DELETEALL)]
    for thing in objects.objects:
        if thing.state != int(State.TRACKED):
            continue
        length = _ARROW if math.isnan(thing.range) else thing.range
        d = thing.direction
        tip = Point(x=d.x * length, y=d.y * length, z=d.z * length)
        red, green, blue = (channel / 255 for channel in colour(thing.id))
        shade = ColorRGBA(r=red, g=green, b=blue, a=1.0)
        arrow = Marker(
            header=objects.header, ns="bearing", id=thing.id, type=Marker.ARROW, color=shade
        )
        arrow.points = [Point(), tip]
        arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.03, 0.08, 0.12
        arrow.pose.orientation.w = 1.0
        text = Marker(
            header=objects.header, ns="id", id=thing.id, type=Marker.TEXT_VIEW_FACING, color=shade
        )
        text.pose.position, text.pose.orientation.w, text.scale.z = tip, 1.0, 0.2
        text.text = f"{thing.id} {thing.label}".strip()
        found += [arrow, text]
    return MarkerArray(markers=found)
