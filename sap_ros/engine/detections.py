"""Detections of another program: which boxes start an object, which start a lost one anew, which add nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instances, State
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import DetectedBox, Detections, Image
from sap_ros.engine.transforms import Transform

#: IoU from which on a box and an object are the same.
SAME = 0.3
_IMAGES = 32  # number of images of which the objects' boxes are kept
_LEAST = 1e-6  # rad, smallest side of a box


@dataclass(frozen=True)
class AngularBox:
    """A box on the sphere, in the panorama's axes. Angles in rad.

    Attributes:
        left: azimuth of its left border.
        width: to the right, at most 2 pi.
        top, bottom: elevations.
    """

    left: float
    width: float
    top: float
    bottom: float

    @property
    def corners(self) -> np.ndarray:
        """(2, 3) directions to its upper left and lower right corner, as a prompt has them."""
        return sphere.angles_to_direction(
            [self.left, self.left - self.width], [self.top, self.bottom]
        )

    def iou(self, other: AngularBox) -> float:
        """Intersection over union of the solid angles."""
        height = math.sin(min(self.top, other.top)) - math.sin(max(self.bottom, other.bottom))
        # Of two arcs, the later one begins at an offset to the right of the earlier one.
        offset = (self.left - other.left) % (2 * math.pi)
        across = _overlap(other.width, offset, self.width)
        shared = max(0.0, height) * across
        return shared / max(self._area + other._area - shared, 1e-12)

    @property
    def _area(self) -> float:
        return self.width * (math.sin(self.top) - math.sin(self.bottom))


def _overlap(width: float, offset: float, other: float) -> float:
    """Overlap of the arcs [0, width] and [-offset, -offset + other] of a circle, to the right, in rad."""
    begin = (-offset) % (2 * math.pi)
    straight = min(width, begin + other) - begin
    around = min(width, begin + other - 2 * math.pi)
    return max(0.0, straight) + max(0.0, around)


def box_of_outline(directions: np.ndarray) -> AngularBox:
    """The smallest box of azimuths and elevations that contains a closed outline (N, 3).

    Raises:
        ValueError: the outline encloses a pole, or nothing.
    """
    azimuths, elevations = sphere.direction_to_angles(directions)
    along = np.unwrap(np.append(azimuths, azimuths[0]))
    if abs(along[-1] - along[0]) > math.pi:
        raise ValueError("it encloses a pole of the panorama; a box cannot")
    left, right = float(along.max()), float(along.min())
    if min(left - right, float(np.ptp(elevations))) < _LEAST:
        raise ValueError("it is empty, or outside its camera's image")
    return AngularBox(
        left,
        min(left - right, 2 * math.pi - _LEAST),
        float(elevations.max()),
        float(elevations.min()),
    )


def angular_box(
    outline: np.ndarray, image: Image, axes: ImageAxes, transform: Transform
) -> AngularBox:
    """A detected box on a panorama.

    Args:
        outline: of the box, (N, 2) pixels or (N, 3) directions, see :class:`DetectedBox`.
        image: the panorama.
        axes: axes of its frame.
        transform: from the frame of directions to the image's.

    Raises:
        ValueError: the box cannot be used.
    """
    if not np.isfinite(outline).all():
        raise ValueError(
            "its corners are not finite, or too far from the optical axis of their camera (89 degrees)"
        )
    if outline.shape[1] == 3:
        return box_of_outline(axes.from_frame(transform.vectors(outline)))
    width, height = image.size
    (left, top), (right, bottom) = outline.min(0), outline.max(0)
    if bottom <= 0 or top >= height or right <= left or right - left > width or top >= bottom:
        raise ValueError(
            f"it spans columns {left:g} to {right:g} and rows {top:g} to {bottom:g}; it must overlap the "
            f"rows of the {width}x{height} panorama and be at most as wide"
        )
    angles = 2 * math.pi / width
    return AngularBox(
        math.pi - left * angles,
        min((right - left) * angles, 2 * math.pi - _LEAST),
        (0.5 - max(top, 0.0) / height) * math.pi,
        (0.5 - min(bottom, float(height)) / height) * math.pi,
    )


class DetectedObjects:
    """The objects that detections have started, and since when objects are lost."""

    def __init__(self) -> None:
        self._started: dict[int, AngularBox | None] = {}  # None: it was found since
        self._lost: dict[int, int] = {}  # by id: stamp of the first image without it
        # Boxes of tracked objects on the last images, by the images' stamps.
        self._boxes: deque[tuple[int, dict[int, AngularBox]]] = deque(maxlen=_IMAGES)

    def found(self, instances: Instances, stamp: int) -> None:
        """Stores the latest instances; ``stamp`` is their image's, in ns."""
        boxes = {
            i.object_id: AngularBox(
                i.azimuth_centre + i.azimuth_width / 2,
                i.azimuth_width,
                i.elevation_max,
                i.elevation_min,
            )
            for i in instances.objects
            if i.state == State.TRACKED
        }
        if (
            self._boxes and self._boxes[-1][0] >= stamp
        ):  # answered again, or the clock has jumped back
            self._boxes.pop()
        self._boxes.append((stamp, boxes))
        lost = [i.object_id for i in instances.objects if i.state == State.LOST]
        self._lost = {i: self._lost.get(i, stamp) for i in lost}
        for object_id in [*boxes, *lost]:
            if object_id in self._started:
                self._started[object_id] = None

    def forget(self, object_id: int) -> None:
        """Forgets a removed object."""
        self._started.pop(object_id, None)
        self._lost.pop(object_id, None)
        for _, boxes in self._boxes:
            boxes.pop(object_id, None)

    def clear(self) -> None:
        """Forgets all objects."""
        self._started.clear()
        self._lost.clear()
        self._boxes.clear()

    def start(self, object_id: int, box: AngularBox) -> None:
        """Stores that a box has started an object, or a lost one anew."""
        self._started[object_id] = box
        self._lost.pop(object_id, None)

    @property
    def count(self) -> int:
        """Number of objects that were started by detections and are not lost."""
        return len(self._started.keys() - self._lost.keys())

    def object_of(
        self,
        box: AngularBox,
        label: str,
        labels: Mapping[int, str],
        stamp: int,
        image_stamp: int,
        restart: float,
    ) -> int | None:
        """The object that a box prompts: 0: a new one; None: none, the box adds nothing.

        Args:
            box: the box.
            label: its class.
            labels: labels of all objects, by id.
            stamp: of the newest image, in ns.
            image_stamp: of the image of the box; it is compared with the objects as they were then, and as
                they are now.
            restart: time in s that an object must have been lost before a box of its label prompts it
                again; 0: a box never does.
        """
        known = [other for other in self._started.values() if other is not None]
        if self._boxes:
            then = min(self._boxes, key=lambda each: abs(each[0] - image_stamp))
            known += [*then[1].values(), *self._boxes[-1][1].values()]
        if any(box.iou(other) >= SAME for other in known):
            return None
        lost = {i: since for i, since in self._lost.items() if labels.get(i) == label and label}
        if not lost or not restart:
            return 0
        longest = min(lost, key=lambda i: lost[i])
        return longest if stamp - lost[longest] >= restart * 1e9 else None


def chosen(detections: Detections, classes: Iterable[str], min_score: float) -> list[DetectedBox]:
    """The boxes of the wanted classes (none: of all) with at least this score, best first."""
    wanted = set(classes)
    boxes = [
        box
        for box in detections.boxes
        if box.score >= min_score and (not wanted or box.label in wanted)
    ]
    return sorted(boxes, key=lambda box: -box.score)
