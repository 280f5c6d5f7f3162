"""The engine's events: images, prompts, detections, clouds, depths, attitudes, removals, settings."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from sap_ros.core.motion import Following
from sap_ros.engine.axes import ImageAxes

#: Maximum number of characters in a label; longer labels are truncated.
MAX_LABEL = 64

#: Maximum number of classes of detections that are chosen.
MAX_CLASSES = 256


class Space(IntEnum):
    """Kind of a prompt's coordinates; the values of ``sap_ros/Prompt.space``."""

    PIXELS = 0  # (u, v) on the panorama, pixel centres at +0.5
    DIRECTIONS = 1  # vectors of any length, in the prompt's frame
    POSITIONS = 2  # in m, in the prompt's frame


@dataclass(frozen=True, eq=False)
class Image:
    """An image of the camera.

    Attributes:
        size: width and height of its panorama, known before it is decoded.
        read: decodes it to (H, W, 3) uint8 RGB; raises ValueError if it cannot be decoded.
        stamp: the camera's, in ns; 0: no stamp. Answers carry it, and prompts refer to their image by it.
        frame_id: TF frame of the camera.
        delay: by how much ``stamp`` is later than the image was taken, in ns.
    """

    size: tuple[int, int]
    read: Callable[[], np.ndarray]
    stamp: int = 0
    frame_id: str = ""
    delay: int = 0

    @property
    def taken(self) -> int:
        """When it was taken, in ns, for TF and point clouds; 0: no stamp."""
        return max(0, self.stamp - self.delay) if self.stamp else 0

    def time_for(self, space: int, frame_id: str) -> int:
        """Its time, in ns, on the clock of the stamp of a prompt in this space and frame.

        Pixels, and directions and positions in the image's own frame, come from someone who was shown the
        image, with its stamp. Those in other frames come from other sensors, whose stamps are right.
        """
        own = space == Space.PIXELS or frame_id in ("", self.frame_id)
        return self.stamp if own else self.taken


@dataclass(frozen=True, eq=False)
class PromptGiven:
    """A received prompt, with the fields of ``sap_ros/Prompt``.

    Attributes:
        points: (P, 3) float64; the third value of a pixel is ignored.
        labels: (P,) 1 on the object, 0 off it; empty: all on it.
        box: (0, 3), or (2, 3): upper left and lower right corner.
        mask: reads a mask (H, W) bool on a panorama; None: no mask.
        space: kind of the coordinates, a :class:`Space`.
        stamp: in ns; the prompt applies to the image that was the newest at this time; 0: to the newest
            of all.
        frame_id: TF frame of directions and positions; empty: the image's.
        object_id: the object to correct, or the id of a new object; 0: a new object with a new id.
        label: free text.
        gaze: whether it is one of a stream of directions; a gaze on an existing object adds nothing.
        accepted: gets the object's id when the prompt is accepted, or a ValueError.
    """

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    box: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    mask: Callable[[], np.ndarray] | None = None
    space: int = Space.PIXELS
    stamp: int = 0
    frame_id: str = ""
    object_id: int = 0
    label: str = ""
    gaze: bool = False
    accepted: Future[int] | None = None

    @property
    def renames(self) -> bool:
        """Whether it only changes its object's label: it has a label and no points, box or mask."""
        return bool(self.label) and not (len(self.points) or len(self.box) or self.mask)


@dataclass(frozen=True, eq=False)
class DetectedBox:
    """A box of a detector.

    Attributes:
        outline: points along its border: (N, 2) pixels of the panorama, where columns may lie past the
            borders; or (N, 3) directions in the frame of the detections.
        label: its class.
        score: 0 to 1.
    """

    outline: np.ndarray
    label: str
    score: float


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of a detector in one image, on the panorama or of another camera.

    Attributes:
        boxes: the boxes.
        space: of their outlines: PIXELS or DIRECTIONS, see :class:`Space`.
        stamp: of its image, in ns; 0: the newest panorama's.
        frame_id: TF frame of its image; empty: the panorama's.
    """

    boxes: tuple[DetectedBox, ...]
    space: Space = Space.PIXELS
    stamp: int = 0
    frame_id: str = ""


@dataclass(frozen=True)
class Cloud:
    """Points of a lidar.

    Attributes:
        read: returns the finite points, (N, 3) float64 in m; raises if the cloud cannot be read.
        stamp: in ns.
        frame_id: TF frame of the points.
    """

    read: Callable[[], np.ndarray]
    stamp: int
    frame_id: str


@dataclass(frozen=True)
class Depth:
    """A depth panorama, aligned with the images.

    Attributes:
        size: width and height, known before it is read.
        read: returns the distances from the camera, (H, W) float32 in m; values that are not positive and
            finite are unknown. Raises ValueError if it cannot be read.
        stamp: in ns.
    """

    size: tuple[int, int]
    read: Callable[[], np.ndarray]
    stamp: int


@dataclass(frozen=True, eq=False)
class Attitude:
    """Which way is up, as measured by an IMU.

    Attributes:
        up: (3,) unit vector opposite to gravity, in the IMU's frame.
        stamp: in ns.
        frame_id: TF frame of the IMU; empty: the image's.
    """

    up: np.ndarray
    stamp: int
    frame_id: str


@dataclass(frozen=True, eq=False)
class Remove:
    """Removes an object.

    Attributes:
        object_id: its id.
        done: gets True, or a ValueError that lists the existing ids.
    """

    object_id: int
    done: Future[bool] | None = None


@dataclass(frozen=True, eq=False)
class Reset:
    """Removes all objects and waiting prompts.

    Attributes:
        done: gets the number of removed objects.
    """

    done: Future[int] | None = None


@dataclass(frozen=True)
class Settings:
    """Limits and frames.

    Attributes:
        max_objects: maximum number of objects; further ones are rejected.
        largest_id: 254 for 8-bit masks, 65534 for 16-bit ones.
        keep_images: number of past images that are kept for late prompts.
        axes: axes of the images' frame.
        target_frame: TF frame of bearings and positions; empty: the image's.
        fixed_frame: TF frame that is fixed in the world; empty: none.
        level_frame: TF frame whose z axis is up, in which views are level; empty: by the attitudes, if there are
            any.
        patience: how long a prompt stamped later than the newest image waits for its own image, in s.
        cloud_tolerance: largest difference between the stamps of an image and of the cloud or depth panorama
            that gives its ranges, in s.
        ground_frame: TF frame whose plane z = 0 is the ground, such as base_footprint; empty: none.
        camera_height: height of the camera above the ground in m; 0: that in ``ground_frame``. Without
            that frame the panorama is taken to be upright. If both are unset, the ground gives no ranges.
        max_range_stddev: largest standard deviation of a range from the ground, in m.
        detection_classes: classes of the detections that start objects; empty: all.
        detection_score: least score of such a detection.
        detection_objects: maximum number of objects that detections start.
        detection_restart: time in s that an object must be lost before a detection of its label prompts it
            again; 0: such a detection starts a new object at once.
        following: how objects are followed.

    Raises:
        ValueError: a value is out of its range.
    """

    max_objects: int = 32
    largest_id: int = 254
    keep_images: int = 5
    axes: ImageAxes = field(default_factory=ImageAxes)
    target_frame: str = ""
    fixed_frame: str = ""
    level_frame: str = ""
    patience: float = 0.5
    cloud_tolerance: float = 0.1
    ground_frame: str = ""
    camera_height: float = 0.0
    max_range_stddev: float = 0.5
    detection_classes: tuple[str, ...] = ()
    detection_score: float = 0.5
    detection_objects: int = 8
    detection_restart: float = 2.0
    following: Following = field(default_factory=Following)

    def __post_init__(self) -> None:
        if self.max_objects < 1:
            raise ValueError(f"max_objects is {self.max_objects}; it must be at least 1")
        if self.keep_images < 0:
            raise ValueError(f"keep_images is {self.keep_images}; it must not be negative")
        for name, unit in (
            ("patience", "s"),
            ("cloud_tolerance", "s"),
            ("camera_height", "m"),
            ("max_range_stddev", "m"),
            ("detection_restart", "s"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)} {unit}; it must not be negative")
        if len(self.detection_classes) > MAX_CLASSES:
            raise ValueError(
                f"detection_classes has {len(self.detection_classes)} classes; at most {MAX_CLASSES} are "
                "allowed (none: all classes)"
            )


@dataclass(frozen=True)
class Change:
    """Changes the settings."""

    settings: Settings


Event = Image | PromptGiven | Detections | Cloud | Depth | Attitude | Remove | Reset | Change
