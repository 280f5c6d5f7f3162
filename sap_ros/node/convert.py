"""Between ROS messages and the core's types.

Images are read here and not by cv_bridge: the one on PyPI takes no heed of ``step``, and breaks with
numpy 2; here it is a view of the message's bytes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sap_ros.core.instances import Instance, Instances
from sap_ros.msg import Object, ObjectArray

# Channels, and cv2's conversion to RGB.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}


def image_to_rgb(message: Image) -> np.ndarray:
    """An image message to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an encoding that cannot be used, or sizes that contradict each other.
    """
    width, height, step = message.width, message.height, message.step
    if message.encoding.lower() not in _ENCODINGS:
        raise ValueError(
            f"the image's encoding is {message.encoding!r}; it must be one of "
            f"{', '.join(_ENCODINGS)}"
        )
    channels, conversion = _ENCODINGS[message.encoding.lower()]
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
    image = rows[:, : width * channels].reshape(height, width, channels)
    return image if conversion is None else np.asarray(cv2.cvtColor(image, conversion))


def image_from_labels(labels: np.ndarray, encoding: str, header: Header) -> Image:
    """A label image (H, W) as mono8 or mono16.

    Raises:
        ValueError: an id does not fit into mono8.
    """
    if encoding == "mono8" and labels.dtype != np.uint8:
        raise ValueError("an object's id exceeds 254: set the parameter mask_encoding to mono16")
    pixels = labels.astype("<u2" if encoding == "mono16" else np.uint8, copy=False)
    message = Image(header=header, encoding=encoding, is_bigendian=0)
    message.height, message.width = labels.shape
    message.step = pixels.strides[0]
    message.data.frombytes(pixels.tobytes())
    return message


def objects_to_message(instances: Instances, header: Header) -> ObjectArray:
    """All objects, stamped like the image they were found in."""
    return ObjectArray(header=header, objects=[_object(thing) for thing in instances.objects])


def _object(thing: Instance) -> Object:
    x, y, z = (float(value) for value in thing.direction)
    return Object(
        id=thing.object_id,
        state=int(thing.state),
        direction=Vector3(x=x, y=y, z=z),
        azimuth=thing.azimuth,
        elevation=thing.elevation,
        azimuth_width=thing.azimuth_width,
        elevation_height=thing.elevation_max - thing.elevation_min,
        solid_angle=thing.solid_angle,
        score=thing.score,
        range=math.nan,
        angular_stddev=math.nan,
    )
