"""Between ROS messages and the core's types.

Images are read here and not by cv_bridge: the one on PyPI takes no heed of ``step``, and breaks with
numpy 2; here it is a view of the message's bytes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sap_ros.core import sphere
from sap_ros.core.instances import Instance, Instances, State
from sap_ros.core.overlay import colour
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.msg import Object, ObjectArray
from sap_ros.msg import Prompt as PromptMessage
from sap_ros.node.frames import ImageFrame

# Channels, and cv2's conversion to RGB.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}

# Length of a bearing's arrow where the range is not known, m.
_ARROW = 2.0

#: Width of the canvas, m.
CANVAS_WIDTH = 10.0


def image_to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """An image message to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an encoding that cannot be used, or sizes that contradict each other.
    """
    if isinstance(message, CompressedImage):
        return _decoded(message)
    conversion = _ENCODINGS.get(message.encoding.lower(), (0, None))[1]
    image = _pixels(message, tuple(_ENCODINGS))
    return image if conversion is None else np.asarray(cv2.cvtColor(image, conversion))


def _pixels(message: Image, encodings: tuple[str, ...]) -> np.ndarray:
    """A raw message's pixels, (H, W, channels), a view of its bytes."""
    width, height, step = message.width, message.height, message.step
    if message.encoding.lower() not in encodings:
        raise ValueError(
            f"the image's encoding is {message.encoding!r}; it must be one of "
            f"{', '.join(encodings)}"
        )
    channels, _ = _ENCODINGS[message.encoding.lower()]
    if not width or not height:
        raise ValueError(f"the image is {width}x{height}; it must not be empty")
    if step < width * channels:
        raise ValueError(
            f"the image's step is {step}; {width} pixels in {message.encoding} take "
            f"{width * channels} bytes"
        )
    if len(message.data) != step * height:
        raise ValueError(
            f"the image has {len(message.data)} bytes; {height} rows of {step} take {step * height}"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)
    return rows[:, : width * channels].reshape(height, width, channels)


def _decoded(message: CompressedImage) -> np.ndarray:
    """A JPEG or PNG; the format's name is `jpeg`, or as image_transport writes it."""
    name = message.format.lower()
    for video in ("h264", "h265", "hevc", "av1", "vp9"):
        if video in name:
            raise ValueError(
                f"the image's format is {message.format!r}, of which no single image can be "
                "decoded; republish it as raw or jpeg: ros2 run image_transport republish ffmpeg raw"
            )
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise ValueError(
            f"the compressed image ({message.format!r}, {len(data)} bytes) cannot be decoded; it "
            "must be jpeg or png"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def prompt_from_message(
    message: PromptMessage,
    object_id: int,
    size: tuple[int, int],
    frame: ImageFrame,
    turn: np.ndarray,
    shift: np.ndarray,
) -> Prompt:
    """What is pointed at, on a panorama.

    Args:
        message: the message.
        object_id: the object's id, which the message may leave open.
        size: the panorama's (width, height).
        frame: the axes of the image's frame.
        turn: (3, 3), from the message's frame to the image's, for directions and positions.
        shift: (3,), likewise in m, for positions.

    Raises:
        ValueError: what the prompt cannot be, and why.
    """
    points = np.array([(p.x, p.y, p.z) for p in message.points], np.float64).reshape(-1, 3)
    corners = np.array([(p.x, p.y, p.z) for p in message.box], np.float64).reshape(-1, 3)
    labels = np.frombuffer(bytes(message.labels), np.uint8).astype(np.int32)
    if not len(labels):
        labels = np.ones(len(points), np.int32)
    if len(labels) != len(points):
        raise ValueError(
            f"the prompt has {len(points)} points and {len(labels)} labels; it needs as many, or none"
        )
    if len(corners) not in (0, 2):
        raise ValueError(f"the prompt's box has {len(corners)} corners; it must have 2, or none")
    mask = None
    if message.mask.width or message.mask.height or len(message.mask.data):
        mask = _pixels(message.mask, ("mono8",))[..., 0] > 0
    if message.space == PromptMessage.PIXELS:
        box = corners[:, :2].ravel() if len(corners) else None
        if mask is not None and not len(points) and box is None:
            return Prompt(object_id, mask=mask)
        made = from_pixels(object_id, points[:, :2], size, labels, box)
        return made if mask is None else made.extended(Prompt(object_id, mask=mask))
    if message.space not in (PromptMessage.DIRECTIONS, PromptMessage.POSITIONS):
        raise ValueError(
            f"the prompt's space is {message.space}; it must be 0 (PIXELS), 1 (DIRECTIONS) or "
            "2 (POSITIONS)"
        )
    if message.space == PromptMessage.DIRECTIONS:
        shift = np.zeros(3)
    directions, box = (frame.from_frame(v @ turn.T + shift) for v in (points, corners))
    return Prompt(object_id, directions, labels, box if len(box) else None, mask)


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
    direction = frame.to_frame(thing.direction)
    azimuth, elevation = frame.azimuth(thing.azimuth), thing.elevation
    if turn is not None:
        direction = turn @ direction
        azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    x, y, z = (float(value) for value in direction)
    return Object(
        id=thing.object_id,
        label=label,
        state=int(thing.state),
        direction=Vector3(x=x, y=y, z=z),
        azimuth=azimuth,
        elevation=elevation,
        azimuth_width=thing.azimuth_width,
        elevation_height=thing.elevation_max - thing.elevation_min,
        solid_angle=thing.solid_angle,
        score=thing.score,
        range=distance,
        position=Point(x=x * distance, y=y * distance, z=z * distance),
        angular_stddev=thing.angular_stddev,
    )


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
