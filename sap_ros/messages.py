"""Converts ROS messages, from rclpy or from rosbags in a replay, to the engine's events.

ROS is not needed. Images are not read by cv_bridge, because the one on PyPI ignores ``step`` and breaks
with numpy 2. Here an image is a view of the message's bytes.
"""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from sap_ros.engine.answers import ObjectReport
from sap_ros.engine.events import Image, PromptGiven, Remove, Reset, Space
from sap_ros.files import image_size

# By encoding: number of channels, and cv2's conversion to RGB.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}

#: Width of the canvas, which shows the panorama flat in a 3D view, in m; suffix of its frame's name.
CANVAS_WIDTH = 10.0
CANVAS_SUFFIX = "_canvas"

_VIDEO = ("h264", "h265", "hevc", "av1", "vp9")


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time in ns; 0: no stamp."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def image_event(message: Any) -> Image:
    """Converts a sensor_msgs Image or CompressedImage.

    Raises:
        ValueError: a compressed image is too large, or its header cannot be read.
    """
    head = message.header
    size = _compressed_size(message) if hasattr(message, "format") else None
    return Image(
        size or (message.width, message.height),
        lambda: image_to_rgb(message),
        nanoseconds(head.stamp),
        head.frame_id,
    )


def image_to_rgb(message: Any) -> np.ndarray:
    """Converts a sensor_msgs Image or CompressedImage to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the encoding is not supported, or the sizes contradict each other.
    """
    if hasattr(message, "format"):
        return _decoded(message)
    conversion = _ENCODINGS.get(message.encoding.lower(), (0, None))[1]
    image = pixels_of(message, tuple(_ENCODINGS))
    return image if conversion is None else np.asarray(cv2.cvtColor(image, conversion))


def pixels_of(message: Any, encodings: tuple[str, ...]) -> np.ndarray:
    """The pixels of a raw image, (H, W, channels), as a view of the message's bytes.

    Raises:
        ValueError: the encoding is none of ``encodings``, or the sizes contradict each other.
    """
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


def _compressed_size(message: Any) -> tuple[int, int]:
    """Width and height of a JPEG or PNG, read from its header without decoding."""
    name = message.format.lower()
    if any(video in name for video in _VIDEO):
        raise ValueError(
            f"the image's format is {message.format!r}, a video format, which cannot be decoded image by "
            "image; republish it as raw or jpeg: ros2 run image_transport republish ffmpeg raw"
        )
    try:
        return image_size(bytes(message.data))
    except ValueError as error:
        raise ValueError(
            f"the compressed image ({message.format!r}, {len(message.data)} bytes) cannot be "
            f"decoded: {error}"
        ) from error


def _decoded(message: Any) -> np.ndarray:
    """Decodes a JPEG or PNG; the message's format is `jpeg` or `png`, or in image_transport's syntax."""
    _compressed_size(message)
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(
            f"the compressed image ({message.format!r}, {len(data)} bytes) cannot be decoded; it "
            "must be jpeg or png"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def from_prompt(message: Any, accepted: Future[int] | None = None) -> PromptGiven:
    """Converts a sap_ros/Prompt; ``accepted`` gets the object's id, or a ValueError if it is rejected."""
    mask = message.mask
    has_mask = bool(mask.width or mask.height or len(mask.data))
    return PromptGiven(
        points=np.array([(p.x, p.y, p.z) for p in message.points], np.float64).reshape(-1, 3),
        labels=np.frombuffer(bytes(message.labels), np.uint8).astype(np.int32),
        box=np.array([(p.x, p.y, p.z) for p in message.box], np.float64).reshape(-1, 3),
        mask=(lambda: pixels_of(mask, ("mono8",))[..., 0] > 0) if has_mask else None,
        space=message.space,
        stamp=nanoseconds(message.header.stamp),
        frame_id=message.header.frame_id,
        object_id=message.object_id,
        label=message.label,
        accepted=accepted,
    )


def from_pixel(point: Any, stamp: int = 0) -> PromptGiven:
    """Converts a geometry_msgs/Point, a pixel of the image with the given stamp in ns; 0: of the newest image."""
    return PromptGiven(points=_vector(point), stamp=stamp)


def canvas_to_pixel(point: Any, size: tuple[int, int]) -> SimpleNamespace:
    """Converts a point on the canvas to a pixel (x, y, z = 0) of a panorama with this (width, height)."""
    scale = size[0] / CANVAS_WIDTH
    return SimpleNamespace(x=point.x * scale, y=-point.y * scale, z=0.0)


def from_point(message: Any) -> PromptGiven:
    """Converts a geometry_msgs/PointStamped, a pixel of the image with its stamp."""
    return from_pixel(message.point, nanoseconds(message.header.stamp))


def from_position(message: Any) -> PromptGiven:
    """Converts a geometry_msgs/PointStamped, a position in m in its header's frame."""
    head = message.header
    return PromptGiven(
        points=_vector(message.point),
        space=Space.POSITIONS,
        stamp=nanoseconds(head.stamp),
        frame_id=head.frame_id,
    )


def from_gaze(message: Any) -> PromptGiven:
    """Converts a geometry_msgs/Vector3Stamped, one of a stream of directions in its header's frame."""
    head = message.header
    return PromptGiven(
        points=_vector(message.vector),
        space=Space.DIRECTIONS,
        stamp=nanoseconds(head.stamp),
        frame_id=head.frame_id,
        gaze=True,
    )


def from_remove(message: Any) -> Remove | Reset:
    """Converts a std_msgs/UInt16 of the topic ``remove``: an object's id; 0: all objects."""
    return Remove(message.data) if message.data else Reset()


def _vector(message: Any) -> np.ndarray:
    return np.array([[message.x, message.y, message.z]], np.float64)


def object_fields(report: ObjectReport) -> dict[str, Any]:
    """The fields of a sap_ros/Object without ``direction`` and ``position``, which are messages."""
    return {
        "id": report.object_id,
        "label": report.label,
        "state": int(report.state),
        "azimuth": report.azimuth,
        "elevation": report.elevation,
        "azimuth_width": report.azimuth_width,
        "elevation_height": report.elevation_height,
        "solid_angle": report.solid_angle,
        "score": report.score,
        "range": report.range,
        "angular_stddev": report.angular_stddev,
        "reason": report.reason,
    }
