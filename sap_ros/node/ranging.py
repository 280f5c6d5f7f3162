"""Ranges from a point cloud: the points that fall on an object's mask say how far away it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from sap_ros.core import sphere
from sap_ros.messages import ImageFrame

_FEWEST = 3  # points on an object, for a range


def _library() -> Any:
    try:
        from sensor_msgs_py import point_cloud2
    except ImportError:
        raise ValueError(
            "ranges need sensor_msgs_py, which is not installed (apt install "
            "ros-jazzy-sensor-msgs-py; there is no wheel of it)"
        ) from None
    return point_cloud2


def read_points(cloud: PointCloud2) -> np.ndarray:
    """A cloud's finite points, (N, 3) float64, in its own frame; ValueError without x, y, z."""
    names = {field.name for field in cloud.fields}
    if not {"x", "y", "z"} <= names:
        raise ValueError(f"the point cloud has the fields {sorted(names)}; it needs x, y and z")
    points = _library().read_points(cloud, field_names=("x", "y", "z"), skip_nans=True)
    return np.stack([points[name].ravel() for name in "xyz"], -1).astype(np.float64)


def ids_of_points(points: np.ndarray, labels: np.ndarray, frame: ImageFrame) -> np.ndarray:
    """The object that each point (N, 3) in the image's frame falls on; (N,), 0 for none."""
    height, width = labels.shape
    pixels = sphere.direction_to_pixel(frame.from_frame(points), (width, height))
    u = pixels[:, 0].astype(int).clip(0, width - 1)
    v = pixels[:, 1].astype(int).clip(0, height - 1)
    ids = labels[v, u].astype(np.uint16)
    return np.where(np.linalg.norm(points, axis=1) > 1e-6, ids, 0).astype(np.uint16)


def ranges_of_objects(points: np.ndarray, ids: np.ndarray) -> dict[int, float]:
    """The median range of the points on each object, without outliers, in m.

    Points beside the object, seen past its rim, lie far from the median: those more than three
    median deviations off are left out.
    """
    found = {}
    for object_id in np.unique(ids[ids > 0]):
        distance = np.linalg.norm(points[ids == object_id], axis=1)
        if len(distance) < _FEWEST:
            continue
        off = np.abs(distance - np.median(distance))
        kept = distance[off <= 3 * max(float(np.median(off)), 1e-3)]
        found[int(object_id)] = float(np.median(kept))
    return found


def points_of_objects(cloud: PointCloud2, points: np.ndarray, ids: np.ndarray) -> PointCloud2:
    """The points on objects, with fields x, y, z and id, in the cloud's frame and at its stamp."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    fields.append(PointField(name="id", offset=12, datatype=PointField.UINT16, count=1))
    on = ids > 0
    rows = np.zeros(int(on.sum()), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("id", "<u2")])
    for i, name in enumerate("xyz"):
        rows[name] = points[on, i]
    rows["id"] = ids[on]
    return _library().create_cloud(cloud.header, fields, rows)
