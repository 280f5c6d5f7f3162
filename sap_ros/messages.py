"""Converts ROS messages, from rclpy or from rosbags in a replay, to the engine's events.

ROS is not needed. Images are not read by cv_bridge, because the one on PyPI ignores ``step`` and breaks
with numpy 2. Here an image is a view of the message's bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from sap_ros.camera_info import CameraModel
from sap_ros.engine.answers import ObjectReport
from sap_ros.engine.events import (
    Attitude,
    Depth,
    DetectedBox,
    Detections,
    Image,
    PromptGiven,
    Remove,
    Reset,
    Space,
)
from sap_ros.files import image_size
from sap_ros.missing import how_to_install
from sap_ros.video import Packet, VideoDecoder, codec_of

if TYPE_CHECKING:
    from sap_ros.core.projection import Projection

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

#: Maximum number of boxes in a message with detections.
MAX_DETECTIONS = 1000
# Points along each side of a detected box: a straight side in a camera is not straight on a panorama.
_SIDE = 8


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time in ns; 0: no stamp."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def image_event(message: Any, projection: Projection) -> Image:
    """Converts a sensor_msgs Image or CompressedImage with a projection.

    Raises:
        ValueError: a compressed image is too large, or its header cannot be read; or the projection does
            not take images of that size.
    """
    head = message.header
    size = _compressed_size(message) if hasattr(message, "format") else None
    return Image(
        projection.panorama_size(size or (message.width, message.height)),
        lambda: image_to_rgb(message),
        nanoseconds(head.stamp),
        head.frame_id,
    )


def packet_of(message: Any) -> Packet | None:
    """The video packet in a sensor_msgs/CompressedImage or an ffmpeg_image_transport_msgs/FFMPEGPacket.

    None: the message is an image by itself.

    Raises:
        ValueError: an FFMPEGPacket has another codec than h264, h265 and av1.
    """
    name = getattr(message, "format", "") if not hasattr(message, "pts") else message.encoding
    codec = codec_of(name)
    if not codec:
        if hasattr(message, "pts"):
            raise ValueError(f"the video's encoding is {name!r}; it must be h264, hevc or av1")
        return None
    head = message.header
    return Packet(codec, bytes(message.data), nanoseconds(head.stamp), head.frame_id)


def with_projection(image: Image, projection: Projection) -> Image:
    """A decoded image of a video, whose size becomes that of its panorama.

    Raises:
        ValueError: the projection does not take images of that size.
    """
    return replace(image, size=projection.panorama_size(image.size))


class ImageReader:
    """Converts the messages of a topic of images in their order, whether images or packets of a video.

    Args:
        projection: of the images.
        tell: called with a line about a video that starts in its middle or is damaged.
    """

    def __init__(self, projection: Projection, tell: Callable[[str], None]) -> None:
        self._projection, self._tell = projection, tell
        self._decoder: VideoDecoder | None = None

    def read(self, message: Any) -> list[Image]:
        """The images that are complete with this message: one, or for packets of a video also none or more.

        Raises:
            ValueError: it cannot be read, or is a packet of a video and PyAV is not installed.
        """
        packet = packet_of(message)
        if packet is None:
            return [image_event(message, self._projection)]
        if self._decoder is None:
            try:
                self._decoder = VideoDecoder(self._tell)
            except ModuleNotFoundError as error:
                raise ValueError(
                    f"the images are packets of a video ({packet.codec}): {how_to_install(error)}"
                ) from error
        return self._projected(self._decoder.decode(packet))

    def flush(self) -> list[Image]:
        """The last images of a video, which may come late."""
        return self._projected(self._decoder.flush()) if self._decoder is not None else []

    def _projected(self, images: list[Image]) -> list[Image]:
        return [with_projection(image, self._projection) for image in images]


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


def from_detections(message: Any, camera: CameraModel | None) -> Detections:
    """Converts a vision_msgs/Detection2DArray; of a box's results, the one with the highest score counts.

    Args:
        message: the message.
        camera: the camera whose pixels the boxes are in; None: they are pixels of the panorama.

    Raises:
        ValueError: there are too many boxes.
    """
    if len(message.detections) > MAX_DETECTIONS:
        raise ValueError(
            f"there are {len(message.detections)} detections; at most {MAX_DETECTIONS} are allowed"
        )
    boxes = []
    for detection in message.detections:
        results = [result.hypothesis for result in detection.results]
        best = max(results, key=lambda result: float(result.score), default=None)
        outline = _outline(detection.bbox)
        if camera is not None:
            outline = camera.directions(outline.clip(0, camera.size))
        label, score = ("", 1.0) if best is None else (best.class_id, float(best.score))
        boxes.append(DetectedBox(outline, label, score))
    return Detections(
        tuple(boxes),
        Space.PIXELS if camera is None else Space.DIRECTIONS,
        nanoseconds(message.header.stamp),
        message.header.frame_id,
    )


def _outline(box: Any) -> np.ndarray:
    """Points (N, 2) along the border of a vision_msgs/BoundingBox2D, which may be rotated."""
    along = np.linspace(-0.5, 0.5, _SIDE, endpoint=False)
    side = np.stack([along, np.full(_SIDE, -0.5)], -1)  # the upper one, from the left
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    unit = np.concatenate([side @ np.linalg.matrix_power(quarter, k) for k in range(4)])
    cos, sin = np.cos(box.center.theta), np.sin(box.center.theta)
    points = unit * (box.size_x, box.size_y) @ np.array([[cos, sin], [-sin, cos]])
    centre = np.array([box.center.position.x, box.center.position.y])
    return np.asarray(points + centre)


def depth_event(message: Any) -> Depth:
    """Converts a sensor_msgs/Image of distances: 32FC1 in m, or 16UC1 in mm (REP 118)."""
    return Depth(
        (message.width, message.height),
        lambda: _distances(message),
        nanoseconds(message.header.stamp),
    )


def _distances(message: Any) -> np.ndarray:
    kinds = {"32FC1": (np.float32, 1.0), "16UC1": (np.uint16, 1e-3)}
    if message.encoding not in kinds:
        raise ValueError(
            f"the depth panorama's encoding is {message.encoding!r}; it must be 32FC1 (in m) or "
            "16UC1 (in mm)"
        )
    kind, unit = kinds[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    width, height, step = message.width, message.height, message.step
    least = width * dtype.itemsize
    if step < least or step % dtype.itemsize or len(message.data) != step * height:
        raise ValueError(
            f"the depth panorama has {len(message.data)} bytes and a step of {step}; "
            f"{width}x{height} in {message.encoding} need rows of at least {least}"
        )
    rows = np.frombuffer(message.data, dtype).reshape(height, step // dtype.itemsize)
    return rows[:, :width].astype(np.float32) * np.float32(unit)


def attitude_event(message: Any) -> Attitude:
    """Converts a sensor_msgs/Imu, whose orientation is that of its frame in one whose z axis is up (REP 145).

    Raises:
        ValueError: it has no orientation, or an invalid one.
    """
    if message.orientation_covariance[0] == -1:
        raise ValueError(
            "views are not levelled: the IMU gives no orientation (orientation_covariance[0] is -1); take the "
            "output of a filter, such as imu_filter_madgwick"
        )
    q = message.orientation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if not np.isfinite(quaternion).all() or not quaternion.any():
        raise ValueError(
            f"views are not levelled: the IMU's orientation is {tuple(quaternion.tolist())}; it must be a "
            "quaternion (x, y, z, w) that is finite and not zero"
        )
    up = Rotation.from_quat(quaternion).as_matrix()[2]
    return Attitude(up, nanoseconds(message.header.stamp), message.header.frame_id)


def from_remove(message: Any) -> Remove | Reset:
    """Converts a std_msgs/UInt16 of the topic ``remove``: an object's id; 0: all objects."""
    return Remove(message.data) if message.data else Reset()


def _vector(message: Any) -> np.ndarray:
    return np.array([[message.x, message.y, message.z]], np.float64)


def object_fields(report: ObjectReport) -> dict[str, Any]:
    """The fields of a sap_ros/Object without those that are messages: directions and positions."""
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
        "range_stddev": report.range_stddev,
        "range_source": int(report.range_source),
        "angular_stddev": report.angular_stddev,
        "reason": report.reason,
    }
