"""Between ROS messages and the core's types."""

from __future__ import annotations

import math

import numpy as np
from cv_bridge import CvBridge
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sap_ros.core.instances import Instance, Instances
from sap_ros.msg import Object, ObjectArray

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_bridge = CvBridge()


def image_to_rgb(message: Image) -> np.ndarray:
    """An image message to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an encoding that cannot be used, or sizes that contradict each other.
    """
    encoding = message.encoding.lower()
    if encoding not in _CHANNELS:
        raise ValueError(
            f"the image's encoding is {message.encoding!r}; it must be one of {', '.join(_CHANNELS)}"
        )
    if not message.width or not message.height:
        raise ValueError(f"the image is {message.width}x{message.height}; it must not be empty")
    row = message.width * _CHANNELS[encoding]
    if message.step < row:
        raise ValueError(
            f"the image's step is {message.step}; {message.width} pixels in {encoding} take {row} bytes"
        )
    if len(message.data) != message.step * message.height:
        raise ValueError(
            f"the image has {len(message.data)} bytes; {message.height} rows of {message.step} "
            f"take {message.step * message.height}"
        )
    message.encoding = encoding
    return np.asarray(_bridge.imgmsg_to_cv2(message, "rgb8"))


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
