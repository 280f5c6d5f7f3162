"""The engine's answers: masks, and each object's state, bearing and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instance, Instances, State
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.ranging import Range, RangeSource
from sap_ros.engine.transforms import Transform

if TYPE_CHECKING:
    from sap_ros.core.projection import Picture

_UNKNOWN = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ObjectReport:
    """One object, with the fields of ``sap_ros/Object``. Angles in rad, lengths in m; NaN: unknown.

    Attributes:
        object_id: its value in the label image; 0: a rejected prompt for a new object, which got no id.
        label: free text.
        state: its state.
        direction: unit vector from the camera to its centroid, in the answer's ``bearing_frame``.
        azimuth, elevation: angles of ``direction``: counter-clockwise about that frame's z axis, and up
            from its x-y plane.
        azimuth_width, elevation_height: its extent on the panorama.
        solid_angle: in sr.
        score: predicted IoU of its mask, 0 to 1.
        angular_velocity: of ``direction`` about the camera, in rad/s, in ``bearing_frame``.
        range: distance from the camera.
        range_stddev: standard deviation of the range.
        range_source: what the range is from.
        position: the point in ``direction`` at this range, in ``bearing_frame``.
        angular_stddev: estimated standard deviation of the direction.
        reason: why it, or the last prompt for it, was rejected; otherwise empty.
    """

    object_id: int
    label: str
    state: State
    direction: tuple[float, float, float] = _UNKNOWN
    azimuth: float = math.nan
    elevation: float = math.nan
    azimuth_width: float = math.nan
    elevation_height: float = math.nan
    solid_angle: float = 0.0
    score: float = 0.0
    angular_velocity: tuple[float, float, float] = _UNKNOWN
    range: float = math.nan
    range_stddev: float = math.nan
    range_source: RangeSource = RangeSource.NONE
    position: tuple[float, float, float] = _UNKNOWN
    angular_stddev: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Rejection:
    """A prompt that cannot be used.

    Attributes:
        object_id: id of its object; 0: it got none.
        label: free text of the prompt.
        reason: why it was rejected, in one line.
        trace: traceback of an unexpected exception; otherwise empty.
    """

    object_id: int
    label: str
    reason: str
    trace: str = ""


@dataclass(frozen=True)
class PointsOnObjects:
    """Points on the surfaces of objects, in the image's frame at its stamp.

    Attributes:
        points: (N, 3) in m.
        ids: (N,) uint16, the id of the object that each one is on.
    """

    points: np.ndarray
    ids: np.ndarray


NO_POINTS = PointsOnObjects(np.zeros((0, 3)), np.zeros(0, np.uint16))


@dataclass(frozen=True)
class Answer:
    """The result for one panorama.

    Attributes:
        stamp, taken, frame_id: the image's.
        picture: the image; its panorama is rendered when it is asked for.
        instances: label image, and the objects in the panorama's own axes.
        objects: each id exactly once, ascending; rejected prompts without an id come first.
        bearing_frame: TF frame of directions and positions.
        camera: (3,) in m, position of the camera in that frame; NaN if TF does not have it.
        labels: labels of all objects, by id.
        rejections: prompts that were rejected.
        changed: whether objects were removed since the last answer.
        problems: one line for each operation that failed.
        traces: tracebacks of the unexpected exceptions among these.
        seconds: duration of each stage, in s.
        encoded: number of views encoded.
        points: points on the objects whose range is known; None if no range is.
    """

    stamp: int
    taken: int
    frame_id: str
    picture: Picture
    instances: Instances
    objects: tuple[ObjectReport, ...]
    bearing_frame: str
    camera: np.ndarray
    labels: Mapping[int, str]
    rejections: tuple[Rejection, ...] = ()
    changed: bool = False
    problems: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    encoded: int = 0
    points: PointsOnObjects | None = None

    @property
    def news(self) -> bool:
        """Whether there are objects, rejections or removals to publish."""
        return bool(self.objects or self.rejections or self.changed)


def report(
    instance: Instance,
    label: str,
    axes: ImageAxes,
    transform: Transform | None,
    found: Range | None = None,
    velocity: np.ndarray | None = None,
    reason: str = "",
) -> ObjectReport:
    """Converts an object on the panorama to the frame of the bearings.

    Args:
        instance: the object on the panorama.
        label: free text.
        axes: axes of the image's frame.
        transform: transform from the image's frame to that of the bearings; None: not available.
        found: its range; None: unknown.
        velocity: its angular velocity (3,) in rad/s, in the image's frame; None: unknown.
        reason: why its last prompt was rejected.
    """
    found = found or Range()
    direction, position, turning = np.full((3, 3), math.nan)
    azimuth = elevation = math.nan
    if transform is not None:
        of_image = axes.to_frame(instance.direction)
        direction = transform.vectors(of_image)
        position = transform.points(found.distance * of_image)
        if velocity is not None:
            turning = transform.vectors(velocity)
        azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    return ObjectReport(
        instance.object_id,
        label,
        instance.state,
        direction=_triple(direction),
        azimuth=azimuth,
        elevation=elevation,
        azimuth_width=instance.azimuth_width,
        elevation_height=instance.elevation_max - instance.elevation_min,
        solid_angle=instance.solid_angle,
        score=instance.score,
        angular_velocity=_triple(turning),
        range=found.distance,
        range_stddev=found.stddev,
        range_source=found.source,
        position=_triple(position),
        angular_stddev=instance.angular_stddev,
        reason=reason,
    )


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in vector)
    return x, y, z


def reports(
    instances: Instances,
    pending: Mapping[int, str],
    labels: Mapping[int, str],
    rejections: tuple[Rejection, ...],
    axes: ImageAxes,
    transform: Transform | None,
    ranges: Mapping[int, Range],
    velocities: Mapping[int, np.ndarray],
) -> tuple[ObjectReport, ...]:
    """Reports of all objects, each id once: tracked, lost, pending and rejected ones.

    Args:
        instances: the objects on the panorama.
        pending: labels, by id, of objects that were accepted but not looked for yet.
        labels: labels of all objects, by id.
        rejections: rejected prompts; the ``reason`` of an object that exists is that of its rejection.
        axes, transform: see :func:`report`.
        ranges: ranges, by id.
        velocities: angular velocities (3,) in rad/s in the image's frame, by id.
    """
    reasons = {r.object_id: r.reason for r in rejections}
    found = {
        i.object_id: report(
            i,
            labels.get(i.object_id, ""),
            axes,
            transform,
            ranges.get(i.object_id) if i.state == State.TRACKED else None,
            velocities.get(i.object_id),
            reasons.get(i.object_id, ""),
        )
        for i in instances.objects
    }
    for object_id, label in pending.items():
        found.setdefault(object_id, ObjectReport(object_id, label, State.PENDING))
    nameless = []
    for rejection in rejections:
        rejected = ObjectReport(
            rejection.object_id, rejection.label, State.REJECTED, reason=rejection.reason
        )
        if rejection.object_id:
            found.setdefault(rejection.object_id, rejected)
        else:
            nameless.append(rejected)
    return (*nameless, *(found[i] for i in sorted(found)))
