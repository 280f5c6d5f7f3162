"""Point clouds: reads and checks messages, and makes the cloud of the points on objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField

from sap_ros.engine.answers import PointsOnObjects
from sap_ros.engine.events import Cloud
from sap_ros.messages import nanoseconds
from sap_ros.node.convert import image_from_labels

_DATATYPES = range(PointField.INT8, PointField.FLOAT64 + 1)


def _library() -> Any:
    try:
        from sensor_msgs_py import point_cloud2
    except ImportError:
        raise ValueError(
            "ranges need sensor_msgs_py, which is not installed (apt install "
            "ros-jazzy-sensor-msgs-py; there is no wheel of it)"
        ) from None
    return point_cloud2


def cloud_event(message: PointCloud2) -> Cloud:
    """Converts a point cloud; its points are read only when they are needed."""
    return Cloud(
        lambda: read_points(message),
        nanoseconds(message.header.stamp),
        message.header.frame_id,
        message,
    )


def read_points(cloud: PointCloud2) -> np.ndarray:
    """A cloud's finite points, (N, 3) float64 in m, in its own frame.

    Raises:
        ValueError: the cloud has no x, y and z, an invalid datatype, or fewer bytes than it declares.
    """
    names = {field.name for field in cloud.fields}
    if not {"x", "y", "z"} <= names:
        raise ValueError(f"the point cloud has the fields {sorted(names)}; it needs x, y and z")
    for field in cloud.fields:
        if field.datatype not in _DATATYPES:
            raise ValueError(
                f"the point cloud's field {field.name!r} has the datatype {field.datatype}; "
                f"it must be from 1 to {PointField.FLOAT64}"
            )
    least = max(cloud.row_step, cloud.width * cloud.point_step) * cloud.height
    if len(cloud.data) < least:
        raise ValueError(
            f"the point cloud has {len(cloud.data)} bytes; {cloud.height} rows of {cloud.width} "
            f"points need {least}"
        )
    points = _library().read_points(cloud, field_names=("x", "y", "z"), skip_nans=True)
    found = np.stack([points[name].ravel() for name in "xyz"], -1).astype(np.float64)
    return found[np.isfinite(found).all(1)]


def points_of_objects(found: PointsOnObjects) -> PointCloud2:
    """The points on objects, with fields x, y, z and id, with the cloud's frame and stamp."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    fields.append(PointField(name="id", offset=12, datatype=PointField.UINT16, count=1))
    on = found.ids > 0
    rows = np.zeros(int(on.sum()), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("id", "<u2")])
    for i, name in enumerate("xyz"):
        rows[name] = found.points[on, i]
    rows["id"] = found.ids[on]
    source: Any = found.cloud.source
    return _library().create_cloud(source.header, fields, rows)


def ids_of_object_points(found: PointsOnObjects, encoding: str) -> Image:
    """The ids of :func:`points_of_objects`, as an image of one row with a pixel a point, with its header.

    Nav2's semantic segmentation layer takes such a pair: a mask, and a cloud with a point for each of its
    pixels.
    """
    ids = found.ids[found.ids > 0][None]
    source: Any = found.cloud.source
    return image_from_labels(ids, encoding, source.header)
