"""What messages say, whoever read them: rclpy on a robot, rosbags in a replay. No ROS is needed.

Images are read here and not by cv_bridge: the one on PyPI takes no heed of ``step``, and breaks with
numpy 2; here it is a view of the message's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instance
from sap_ros.core.prompts import Prompt, from_pixels

#: A sap_ros/Prompt's ``space``.
PIXELS, DIRECTIONS, POSITIONS = 0, 1, 2

# Channels, and cv2's conversion to RGB.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}

# Body axes (x forward, y left, z up) to optical ones (x right, y down, z forward), REP-103.
_OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])


@dataclass(frozen=True)
class ImageFrame:
    """Between the panorama's directions (its middle column along x) and the frame of its header.

    Attributes:
        forward_column: where straight ahead is, as a share of the width.
        convention: ``body`` or ``optical``.
    """

    forward_column: float = 0.5
    convention: str = "body"

    def to_frame(self, directions: np.ndarray) -> np.ndarray:
        """Directions (..., 3) of the panorama, in the header's frame."""
        return np.asarray(directions) @ self._rotation().T

    def from_frame(self, directions: np.ndarray) -> np.ndarray:
        """Directions (..., 3) of the header's frame, on the panorama."""
        return np.asarray(directions) @ self._rotation()

    def azimuth(self, azimuth: float) -> float:
        """An azimuth of the panorama, counter-clockwise from straight ahead."""
        return float(np.pi - np.mod(np.pi - azimuth - self._turn(), 2 * np.pi))

    def _turn(self) -> float:
        return 2 * np.pi * (self.forward_column - 0.5)

    def _rotation(self) -> np.ndarray:
        cos, sin = np.cos(self._turn()), np.sin(self._turn())
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return _OPTICAL @ turn if self.convention == "optical" else turn


def image_to_rgb(message: Any) -> np.ndarray:
    """A sensor_msgs Image or CompressedImage to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an encoding that cannot be used, or sizes that contradict each other.
    """
    if hasattr(message, "format"):
        return _decoded(message)
    conversion = _ENCODINGS.get(message.encoding.lower(), (0, None))[1]
    image = pixels_of(message, tuple(_ENCODINGS))
    return image if conversion is None else np.asarray(cv2.cvtColor(image, conversion))


def pixels_of(message: Any, encodings: tuple[str, ...]) -> np.ndarray:
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


def _decoded(message: Any) -> np.ndarray:
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
    message: Any,
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
        mask = pixels_of(message.mask, ("mono8",))[..., 0] > 0
    if message.space == PIXELS:
        box = corners[:, :2].ravel() if len(corners) else None
        if mask is not None and not len(points) and box is None:
            return Prompt(object_id, mask=mask)
        made = from_pixels(object_id, points[:, :2], size, labels, box)
        return made if mask is None else made.extended(Prompt(object_id, mask=mask))
    if message.space not in (DIRECTIONS, POSITIONS):
        raise ValueError(
            f"the prompt's space is {message.space}; it must be 0 (PIXELS), 1 (DIRECTIONS) or "
            "2 (POSITIONS)"
        )
    if message.space == DIRECTIONS:
        shift = np.zeros(3)
    directions, box = (frame.from_frame(v @ turn.T + shift) for v in (points, corners))
    return Prompt(object_id, directions, labels, box if len(box) else None, mask)


def object_fields(
    thing: Instance, label: str, frame: ImageFrame, turn: np.ndarray | None, distance: float
) -> tuple[tuple[float, float, float], tuple[float, float, float], dict[str, Any]]:
    """The direction, the position, and the other fields of a sap_ros/Object.

    Args:
        thing: the object on the panorama.
        label: free text.
        frame: the axes of the image's frame.
        turn: (3, 3), from the image's frame to that of the message, where it is another.
        distance: its range in m; NaN where it is not known.
    """
    direction = frame.to_frame(thing.direction)
    azimuth, elevation = frame.azimuth(thing.azimuth), thing.elevation
    if turn is not None:
        direction = turn @ direction
        azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    x, y, z = (float(value) for value in direction)
    values = {
        "id": thing.object_id,
        "label": label,
        "state": int(thing.state),
        "azimuth": azimuth,
        "elevation": elevation,
        "azimuth_width": thing.azimuth_width,
        "elevation_height": thing.elevation_max - thing.elevation_min,
        "solid_angle": thing.solid_angle,
        "score": thing.score,
        "range": distance,
        "angular_stddev": thing.angular_stddev,
    }
    return (x, y, z), (x * distance, y * distance, z * distance), values
