"""Ranges of objects, from the points of a lidar that project onto their masks."""

from __future__ import annotations

import numpy as np

from sap_ros.core import sphere
from sap_ros.engine.axes import ImageAxes

_FEWEST = 3  # minimum number of points on an object for a range
_OUTLIER = 3.0  # points farther from the median, in median absolute deviations, are outliers
_LEAST_DEVIATION = 1e-3  # m, smallest median absolute deviation that is used
_AT_THE_CAMERA = 1e-6  # m, a point nearer than this has no direction


def ids_of_points(points: np.ndarray, labels: np.ndarray, axes: ImageAxes) -> np.ndarray:
    """The id of the object onto whose mask each point projects.

    Args:
        points: (N, 3) in m, in the image's frame.
        labels: (H, W) label image.
        axes: axes of the image's frame.

    Returns:
        (N,) uint16; 0 for none.
    """
    height, width = labels.shape
    pixels = sphere.direction_to_pixel(axes.from_frame(points), (width, height))
    u = pixels[:, 0].astype(int).clip(0, width - 1)
    v = pixels[:, 1].astype(int).clip(0, height - 1)
    ids = labels[v, u].astype(np.uint16)
    return np.where(np.linalg.norm(points, axis=1) > _AT_THE_CAMERA, ids, 0).astype(np.uint16)


def ranges_of_objects(points: np.ndarray, ids: np.ndarray) -> dict[int, float]:
    """The median range of the points on each object, without outliers, in m, by id.

    Points behind the object that project onto the edge of its mask are far from the median and are left out.

    Args:
        points: (N, 3) in m, in the image's frame.
        ids: (N,), see :func:`ids_of_points`.
    """
    found = {}
    for object_id in np.unique(ids[ids > 0]):
        distance = np.linalg.norm(points[ids == object_id], axis=1)
        if len(distance) < _FEWEST:
            continue
        off = np.abs(distance - np.median(distance))
        kept = distance[off <= _OUTLIER * max(float(np.median(off)), _LEAST_DEVIATION)]
        found[int(object_id)] = float(np.median(kept))
    return found
