"""Ranges of objects: from the points of a lidar, from a depth panorama, or from the ground they stand on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instance, State
from sap_ros.engine.axes import ImageAxes

_FEWEST = 3  # minimum number of points on an object for a range
_OUTLIER = 3.0  # points farther from the median, in median absolute deviations, are outliers
_LEAST_DEVIATION = 1e-3  # m, smallest median absolute deviation that is used
_AT_THE_CAMERA = 1e-6  # m, a point nearer than this has no direction
_NORMAL = 1.4826  # standard deviation of a normal distribution, in median absolute deviations
_FACE = 8  # points along each side of a face
_UPRIGHT = 0.1  # least cosine of a bearing's elevation at which the ground gives a range


class RangeSource(IntEnum):
    """What a range is from; the values of ``sap_ros/Object.range_source``."""

    NONE = 0
    LIDAR = 1
    DEPTH = 2
    GROUND = 3


@dataclass(frozen=True)
class Range:
    """Distance from the camera to an object, in the direction of its centroid.

    Attributes:
        distance: in m; NaN: unknown.
        stddev: standard deviation of the distance, in m; NaN: unknown.
        source: what it is from.
    """

    distance: float = math.nan
    stddev: float = math.nan
    source: RangeSource = RangeSource.NONE


@dataclass(frozen=True)
class Ground:
    """The ground, a plane.

    Attributes:
        up: (3,) its normal as a unit vector, in the panorama's axes.
        height: distance of the camera from it, in m.
    """

    up: np.ndarray
    height: float


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


def ranges_of_points(
    distances: np.ndarray, ids: np.ndarray, source: RangeSource
) -> tuple[dict[int, Range], np.ndarray]:
    """The median distance on each object, without outliers.

    Points behind the object that project onto the edge of its mask are far from the median and are left out.

    Args:
        distances: (N,) in m, from the camera.
        ids: (N,), see :func:`ids_of_points`.
        source: where the points are from.

    Returns:
        The ranges, by id; and (N,) bool, the points that they are from.
    """
    found, used = {}, np.zeros(len(ids), bool)
    for object_id in np.unique(ids[ids > 0]):
        index = np.flatnonzero(ids == object_id)
        if len(index) < _FEWEST:
            continue
        off = np.abs(distances[index] - np.median(distances[index]))
        index = index[off <= _OUTLIER * max(float(np.median(off)), _LEAST_DEVIATION)]
        used[index] = True
        kept = distances[index]
        middle = float(np.median(kept))
        spread = _NORMAL * float(np.median(np.abs(kept - middle)))
        found[int(object_id)] = Range(middle, spread, source)
    return found, used


def ranges_on_ground(
    labels: np.ndarray, objects: Iterable[Instance], ground: Ground, max_stddev: float
) -> dict[int, Range]:
    """Ranges of objects that stand on the ground, by id.

    The lowest point of an object's mask is taken to touch the ground, and the object to stand upright over
    it: its horizontal distance is ``height / tan(depression of that point)``. An object has no such range if
    its lowest point is at or above the horizon, borders on another object's mask (which then hides its
    foot), lies in the panorama's last row, or if an error of one pixel moves it by more than ``max_stddev``.

    Args:
        labels: (H, W) label image.
        objects: the objects on it.
        ground: the ground.
        max_stddev: largest standard deviation, in m.
    """
    height, width = labels.shape
    pixel = math.pi / height  # rad
    found = {}
    for instance in objects:
        if instance.state != State.TRACKED:
            continue
        foot = _foot(labels, instance, ground)
        if foot is None:
            continue
        depression = math.asin(-float(foot @ ground.up)) + pixel / 2  # to the pixel's lower edge
        upright = math.cos(math.asin(float(np.clip(instance.direction @ ground.up, -1, 1))))
        if depression <= pixel or upright < _UPRIGHT:
            continue
        below = foot - math.sin(1.5 * pixel) * ground.up
        u, v = sphere.direction_to_pixel(below, (width, height)).astype(int)
        if labels[min(v, height - 1), min(u, width - 1)] not in (0, instance.object_id):
            continue
        distance = ground.height / math.tan(depression) / upright
        stddev = ground.height / math.sin(depression) ** 2 * pixel / upright
        if stddev <= max_stddev:
            found[instance.object_id] = Range(distance, stddev, RangeSource.GROUND)
    return found


def face(instance: Instance, distance: float) -> np.ndarray:
    """Points (N, 3) in m, in the panorama's axes, on an upright face that fills the object's box.

    They stand for the surface of an object of which only the range is known.

    Args:
        instance: the object.
        distance: its range in m.
    """
    half = instance.azimuth_width / 2
    elevation, off = np.meshgrid(
        np.linspace(instance.elevation_min, instance.elevation_max, _FACE),
        np.linspace(-half, half, _FACE),
    )
    rays = sphere.angles_to_direction(instance.azimuth_centre + off, elevation).reshape(-1, 3)
    level = distance * math.cos(instance.elevation)
    return np.asarray(rays * level / np.maximum(np.cos(elevation.ravel()), _UPRIGHT)[:, None])


def _foot(labels: np.ndarray, instance: Instance, ground: Ground) -> np.ndarray | None:
    """Direction (3,) of the mask's lowest pixel; None if it is in the panorama's last row or not below level."""
    height, width = labels.shape
    top = max(0, round((0.5 - instance.elevation_max / math.pi) * height) - 1)
    bottom = min(height, round((0.5 - instance.elevation_min / math.pi) * height) + 1)
    mask = (labels[top:bottom] == instance.object_id).astype(np.uint8)
    if bottom == height and mask[-1].any():
        return None
    edge = cv2.subtract(mask, cv2.erode(mask, np.ones((3, 3), np.uint8)))
    v, u = np.nonzero(edge)
    if not len(v):
        return None
    directions = sphere.pixel_to_direction(np.stack([u + 0.5, v + top + 0.5], -1), (width, height))
    lowest = np.asarray(directions[(directions @ ground.up).argmin()])
    return lowest if lowest @ ground.up < 0 else None
