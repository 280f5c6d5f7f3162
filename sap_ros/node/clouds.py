"""Point clouds: reads and checks them, and makes the cloud of the points on objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from sap_ros.engine.answers import PointsOnObjects
from sap_ros.engine.events import Cloud
from sap_ros.messages import nanoseconds
from sap_ros.missing import apt_install
from sap_ros.node.convert import cloud_message

_DATATYPES = range(PointField.INT8, PointField.FLOAT64 + 1)


def _library() -> Any:
    try:
        from sensor_msgs_py import point_cloud2
    except ImportError:
        raise ValueError(
            "ranges need sensor_msgs_py, which is not installed "
            f"({apt_install('sensor-msgs-py')}; there is no wheel of it)"
        ) from None
    return point_cloud2


def cloud_event(message: PointCloud2) -> Cloud:
    """Converts a point cloud; its points are read only when they are needed."""
    return Cloud(
        lambda: read_points(message),
        nanoseconds(message.header.stamp),
        message.header.frame_id,
    )


def read_points(cloud: PointCloud2) -> np.ndarray:
    """A cloud's finite points but for those at its origin, (N, 3) float64 in m, in its own frame.

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
    # Drivers of organised clouds write zeros where there was no echo.
    return found[np.isfinite(found).all(1) & found.any(1)]


def points_of_objects(found: PointsOnObjects, header: Header) -> PointCloud2:
    """Points on objects, with the fields x, y, z and id; the header is the image's."""
    rows = np.zeros(len(found.ids), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("id", "<u2")])
    for i, name in enumerate("xyz"):
        rows[name] = found.points[:, i]
    rows["id"] = found.ids
    return cloud_message(rows, header)
