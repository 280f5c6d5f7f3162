"""Chooses where an object's range is from: a point cloud, else a depth panorama, else the ground."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instances
from sap_ros.engine.answers import PointsOnObjects
from sap_ros.engine.events import Cloud, Depth, Image, Settings
from sap_ros.engine.ranging import (
    Ground,
    Range,
    RangeSource,
    face,
    ids_of_points,
    ranges_of_points,
    ranges_on_ground,
)
from sap_ros.engine.transforms import Stamped, Transforms

_Source = TypeVar("_Source", Cloud, Depth)

# Ranges of objects, and points (N, 3) on them in the image's frame, by id.
_Found = tuple[dict[int, Range], dict[int, np.ndarray]]
_Find = Callable[[Image, Instances, Settings], _Found]

_POINTS = 2000  # maximum number of points on an object that are taken from a depth panorama
_KEPT = 10  # number of kept clouds and depth panoramas, from which the one nearest to an image is chosen


class RangeFinder:
    """Keeps the latest clouds and depth panoramas, and gives ranges for an image.

    Args:
        transforms: TF, or a replacement.
        problem: called with one line for each source that cannot be used.
    """

    def __init__(self, transforms: Transforms, problem: Callable[[str], None]) -> None:
        self._transforms, self._problem = transforms, problem
        self._clouds: deque[Cloud] = deque(maxlen=_KEPT)
        self._depths: deque[Depth] = deque(maxlen=_KEPT)

    def take(self, event: Cloud | Depth) -> None:
        """Stores a cloud or a depth panorama; it is read only when it is needed."""
        if isinstance(event, Cloud):
            self._clouds.append(event)
        else:
            self._depths.append(event)

    def find(
        self, image: Image, instances: Instances, settings: Settings
    ) -> tuple[dict[int, Range], PointsOnObjects | None]:
        """Ranges of the objects on an image, by id; and points on them, None if no range is known."""
        found: dict[int, Range] = {}
        points: dict[int, np.ndarray] = {}
        sources: list[_Find] = []
        if settings.ground_frame or settings.camera_height:
            sources.append(self._on_ground)
        if self._depths:
            sources.append(self._in_depth)
        if self._clouds:
            sources.append(self._on_cloud)
        for source in sources if instances.objects else ():
            ranges, on_objects = source(image, instances, settings)
            found.update(ranges)
            points.update(on_objects)
        if not points:
            return found, None
        ids = np.concatenate([np.full(len(on), i, np.uint16) for i, on in points.items()])
        return found, PointsOnObjects(np.concatenate(list(points.values())), ids)

    def _on_ground(self, image: Image, instances: Instances, settings: Settings) -> _Found:
        axes, height = settings.axes, settings.camera_height
        up = np.array([0.0, 0.0, 1.0])
        if settings.ground_frame:
            try:
                transform = self._transforms.lookup(
                    Stamped(settings.ground_frame, image.taken),
                    Stamped(image.frame_id, image.taken),
                )
            except ValueError as error:
                self._problem(f"no ranges from the ground: {error}")
                return {}, {}
            up = axes.from_frame(transform.rotation[2])
            height = height or float(transform.translation[2])
        if height <= 0:
            self._problem(
                f"no ranges from the ground: the camera is {height:g} m above the plane z = 0 of "
                f"{settings.ground_frame!r}; it must be above it"
            )
            return {}, {}
        ground = Ground(up, height)
        found = ranges_on_ground(
            instances.labels, instances.objects, ground, settings.max_range_stddev
        )
        faces = {
            i.object_id: axes.to_frame(face(i, found[i.object_id].distance))
            for i in instances.objects
            if i.object_id in found
        }
        return found, faces

    def _in_depth(self, image: Image, instances: Instances, settings: Settings) -> _Found:
        depth = self._nearest(self._depths, image, settings, "depth panorama")
        if depth is None:
            return {}, {}
        try:
            if depth.size != image.size:
                raise ValueError(
                    "the depth panorama is {}x{}; it must have the image's size, {}x{}".format(
                        *depth.size, *image.size
                    )
                )
            distances = depth.read()
        except Exception as error:  # a bad depth panorama must not prevent the bearings
            self._depths.remove(depth)
            self._unreadable(error)
            return {}, {}
        v, u = np.nonzero(np.isfinite(distances) & (distances > 0) & (instances.labels > 0))
        far, ids = distances[v, u], instances.labels[v, u]
        found, used = ranges_of_points(far, ids, RangeSource.DEPTH)
        points = {}
        for object_id in found:
            on = np.flatnonzero(used & (ids == object_id))
            on = on[:: math.ceil(len(on) / _POINTS)]
            rays = sphere.pixel_to_direction(np.stack([u[on], v[on]], -1) + 0.5, image.size)
            points[object_id] = settings.axes.to_frame(rays) * far[on, None]
        return found, points

    def _on_cloud(self, image: Image, instances: Instances, settings: Settings) -> _Found:
        cloud = self._nearest(self._clouds, image, settings, "point cloud")
        if cloud is None:
            return {}, {}
        try:
            points = cloud.read()
            transform = self._transforms.lookup(
                Stamped(image.frame_id, image.taken),
                Stamped(cloud.frame_id, cloud.stamp),
                settings.fixed_frame,
            )
        except Exception as error:  # a bad point cloud must not prevent the bearings
            self._clouds.remove(cloud)
            self._unreadable(error)
            return {}, {}
        seen = transform.points(points)
        ids = ids_of_points(seen, instances.labels, settings.axes)
        found, used = ranges_of_points(np.linalg.norm(seen, axis=1), ids, RangeSource.LIDAR)
        return found, {i: seen[used & (ids == i)] for i in found}

    def _nearest(
        self, kept: deque[_Source], image: Image, settings: Settings, name: str
    ) -> _Source | None:
        """The one that is nearest in time to an image, if it is near enough.

        message_filters is not used, because the engine works without ROS and must be deterministic.
        """
        # A depth panorama is made from the image, or by the same driver; a lidar has its own stamps.
        time = image.stamp if isinstance(kept[0], Depth) else image.taken
        nearest = min(kept, key=lambda event: abs(event.stamp - time))
        apart = abs(nearest.stamp - time) / 1e9
        if apart <= settings.cloud_tolerance:
            return nearest
        self._problem(
            f"no ranges: the nearest {name} is {apart:.3g} s from the image, more than "
            f"cloud_tolerance, {settings.cloud_tolerance:g} s"
        )
        return None

    def _unreadable(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        self._problem(f"no ranges: {reason}")
