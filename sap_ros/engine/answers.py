"""What the engine says: masks, and of each object its state, bearing and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instance, Instances, State
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Cloud
from sap_ros.engine.transforms import Transform

_UNKNOWN = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ObjectReport:
    """One object, as ``sap_ros/Object`` says it. Angles in rad, lengths in m; NaN: not known.

    Attributes:
        object_id: its value in the label image; 0: a rejected prompt that was given no id.
        label: free text.
        state: what has become of it.
        direction: unit vector from the camera to its centroid, in the answer's ``bearing_frame``.
        azimuth, elevation: of ``direction``: counter-clockwise about that frame's z, and up from x-y.
        azimuth_width, elevation_height: its extent on the panorama.
        solid_angle: in sr.
        score: predicted IoU of its mask, 0 to 1.
        range: from the camera.
        position: of the point at that range, in ``bearing_frame``.
        angular_stddev: of the direction.
        reason: why it, or the last prompt on it, was rejected; else empty.
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
    range: float = math.nan
    position: tuple[float, float, float] = _UNKNOWN
    angular_stddev: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Rejection:
    """A prompt that cannot be used.

    Attributes:
        object_id: of its object; 0: it was given none.
        label: free text of the prompt.
        reason: in a line.
        trace: of an exception that nobody expected, else empty.
    """

    object_id: int
    label: str
    reason: str
    trace: str = ""


@dataclass(frozen=True)
class PointsOnObjects:
    """Points of a lidar, with the object that each one lies on.

    Attributes:
        cloud: where they are from.
        points: (N, 3) m, in the cloud's frame.
        ids: (N,) uint16; 0 for none.
    """

    cloud: Cloud
    points: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What is known of a panorama.

    Attributes:
        stamp, frame_id: the image's.
        image: (H, W, 3) uint8 RGB.
        instances: label image, and the objects in the panorama's own axes.
        objects: each id exactly once, ascending; rejected prompts without an id come first.
        bearing_frame: TF frame of directions and positions.
        camera: (3,) m, where the camera is in that frame; NaN where TF does not know it.
        labels: free text, by id, of the objects there are.
        rejections: prompts that cannot be used.
        changed: objects have been removed since the last answer.
        problems: what could not be done, in a line each.
        traces: of exceptions that nobody expected among these.
        seconds: how long each stage took.
        encoded: how many views were encoded.
        points: of the lidar, where a cloud was near enough in time.
    """

    stamp: int
    frame_id: str
    image: np.ndarray
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
        """Whether there is anything to say of objects."""
        return bool(self.objects or self.rejections or self.changed)


def report(
    instance: Instance,
    label: str,
    axes: ImageAxes,
    transform: Transform | None,
    distance: float = math.nan,
    reason: str = "",
) -> ObjectReport:
    """An object on the panorama, in the frame of the bearings.

    Args:
        instance: on the panorama.
        label: free text.
        axes: of the image's frame.
        transform: from the image's frame to that of the bearings; None: it is not known.
        distance: its range in m, NaN where it is not known.
        reason: why its last prompt was rejected.
    """
    direction, position = np.full(3, math.nan), np.full(3, math.nan)
    azimuth = elevation = math.nan
    if transform is not None:
        of_image = axes.to_frame(instance.direction)
        direction = transform.vectors(of_image)
        position = transform.points(distance * of_image)
        azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    x, y, z = (float(value) for value in direction)
    px, py, pz = (float(value) for value in position)
    return ObjectReport(
        instance.object_id,
        label,
        instance.state,
        direction=(x, y, z),
        azimuth=azimuth,
        elevation=elevation,
        azimuth_width=instance.azimuth_width,
        elevation_height=instance.elevation_max - instance.elevation_min,
        solid_angle=instance.solid_angle,
        score=instance.score,
        range=distance,
        position=(px, py, pz),
        angular_stddev=instance.angular_stddev,
        reason=reason,
    )


def reports(
    instances: Instances,
    pending: Mapping[int, str],
    labels: Mapping[int, str],
    rejections: tuple[Rejection, ...],
    axes: ImageAxes,
    transform: Transform | None,
    ranges: Mapping[int, float],
) -> tuple[ObjectReport, ...]:
    """All objects, each id once: found or lost, pending, and what was rejected.

    Args:
        instances: on the panorama.
        pending: labels, by id, of accepted objects that have not been looked for.
        labels: free text, by id.
        rejections: prompts that cannot be used; one on an object that stays is its ``reason``.
        axes, transform: see :func:`report`.
        ranges: in m, by id.
    """
    reasons = {r.object_id: r.reason for r in rejections}
    found = {
        i.object_id: report(
            i,
            labels.get(i.object_id, ""),
            axes,
            transform,
            ranges.get(i.object_id, math.nan) if i.state == State.TRACKED else math.nan,
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
