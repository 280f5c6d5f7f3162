"""Events for the engine: images, prompts, point clouds, removals, and changes of settings."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from sap_ros.core.motion import Following
from sap_ros.engine.axes import ImageAxes

#: Labels are free text of at most so many characters; longer ones are cut off.
MAX_LABEL = 64


class Space(IntEnum):
    """What the numbers of a prompt are; the values of ``sap_ros/Prompt.space``."""

    PIXELS = 0  # of the panorama, (u, v), pixel centres at +0.5
    DIRECTIONS = 1  # vectors of any length, in the prompt's frame
    POSITIONS = 2  # in m, in the prompt's frame


@dataclass(frozen=True, eq=False)
class Image:
    """A panorama.

    Attributes:
        size: width and height, known before it is decoded.
        read: decodes it to (H, W, 3) uint8 RGB; raises ValueError where that cannot be done.
        stamp: in ns; 0: it has none.
        frame_id: TF frame of the camera.
    """

    size: tuple[int, int]
    read: Callable[[], np.ndarray]
    stamp: int = 0
    frame_id: str = ""


@dataclass(frozen=True, eq=False)
class PromptGiven:
    """A prompt; it has the fields of ``sap_ros/Prompt``.

    Attributes:
        points: (P, 3) float64; of pixels, the third value is ignored.
        labels: (P,) 1 on the object, 0 off it; empty: all on it.
        box: (0, 3), or (2, 3): its upper left and lower right corner.
        mask: reads a mask (H, W) bool on a panorama; None: there is none.
        space: what the numbers are, a :class:`Space`.
        stamp: in ns; it is on the image that was the newest at this time; 0: on the newest of all.
        frame_id: TF frame of directions and positions; empty: the image's.
        object_id: the object it corrects, or the id of a new one; 0: a new object with a new id.
        label: free text.
        gaze: one of a stream of directions: on an object that is there it adds nothing.
        accepted: gets the object's id once the prompt is accepted, or a ValueError.
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
        """Whether it has a label and nothing that is pointed at: its object gets another label."""
        return bool(self.label) and not (len(self.points) or len(self.box) or self.mask)


@dataclass(frozen=True)
class Cloud:
    """Points of a lidar.

    Attributes:
        read: gives the finite points, (N, 3) float64 in m; raises where that cannot be done.
        stamp: in ns.
        frame_id: TF frame of the points.
        source: whatever the caller wants back with the points that lie on objects.
    """

    read: Callable[[], np.ndarray]
    stamp: int
    frame_id: str
    source: object = None


@dataclass(frozen=True, eq=False)
class Remove:
    """An object is to be forgotten.

    Attributes:
        object_id: which.
        done: gets True, or a ValueError that lists the ids there are.
    """

    object_id: int
    done: Future[bool] | None = None


@dataclass(frozen=True, eq=False)
class Reset:
    """All objects are to be forgotten, and the prompts that wait.

    Attributes:
        done: gets how many objects were forgotten.
    """

    done: Future[int] | None = None


@dataclass(frozen=True)
class Settings:
    """Limits and frames.

    Attributes:
        max_objects: further objects are rejected.
        largest_id: 254 for 8-bit masks, 65534 for 16-bit ones.
        keep_images: how many past images a late prompt may be on.
        axes: of the images' frame.
        target_frame: TF frame of bearings and positions; empty: the image's.
        fixed_frame: TF frame in which the world stands still; empty: none.
        patience: a prompt that is stamped later than the newest image waits so long for its own, in s.
        cloud_tolerance: a cloud gives ranges for images stamped at most so many s from it.
        following: what motion of an object is plausible.

    Raises:
        ValueError: a value out of its range.
    """

    max_objects: int = 32
    largest_id: int = 254
    keep_images: int = 5
    axes: ImageAxes = field(default_factory=ImageAxes)
    target_frame: str = ""
    fixed_frame: str = ""
    patience: float = 0.5
    cloud_tolerance: float = 0.1
    following: Following = field(default_factory=Following)

    def __post_init__(self) -> None:
        if self.max_objects < 1:
            raise ValueError(f"max_objects is {self.max_objects}; it must be at least 1")
        if self.keep_images < 0:
            raise ValueError(f"keep_images is {self.keep_images}; it must not be negative")
        for name in ("patience", "cloud_tolerance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)} s; it must not be negative")


@dataclass(frozen=True)
class Change:
    """The settings from now on."""

    settings: Settings


Event = Image | PromptGiven | Cloud | Remove | Reset | Change
