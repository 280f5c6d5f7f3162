"""Whether a tracked object is mistaken for something else, and how soon it is found again after it was hidden.

Both are counted from what each frame shows, see :class:`Sight`. Areas are solid angles, so that an object
counts the same wherever it is on the panorama.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sap_ros.core import sphere

#: An object is visible if its true mask has at least this share of its median solid angle over the frames
#: that show any of it.
VISIBLE = 0.25

#: It is tracked rightly if the IoU of its mask, on the sphere, is at least this.
RIGHT = 0.5

#: A mask is on another object if more than this share of it is, and on none of its own object if less than
#: that share of it is.
ON_OTHER = 0.5
ON_NONE = 0.1

#: An object counts as found again if it is tracked rightly within this time, in s.
SOON = 1.0


@dataclass(frozen=True)
class Sight:
    """One object in one frame: solid angles in sr.

    Attributes:
        true: of its true mask.
        found: of the answer; 0 if it does not say TRACKED.
        shared: of what both have in common.
        other: of the answer on that other object that it covers most of.
    """

    true: float
    found: float
    shared: float
    other: float

    @property
    def right(self) -> bool:
        """Whether the object is tracked rightly."""
        return self.found > 0 and self.shared >= RIGHT * (self.true + self.found - self.shared)

    @property
    def wrong(self) -> bool:
        """Whether the answer is on another object, or on none of its own."""
        return self.other > ON_OTHER * self.found or self.shared < ON_NONE * self.found


def sight(answer: np.ndarray, labels: np.ndarray, value: int) -> Sight:
    """Compares the answer for one object with the truth.

    Args:
        answer: its mask (H, 2H) bool.
        labels: the true instances (H, 2H), 0 where there is none.
        value: the object's true instance.
    """
    weights = sphere.row_solid_angles((answer.shape[1], answer.shape[0]))
    rows, columns = np.nonzero(answer)
    by_instance = np.bincount(labels[rows, columns], weights[rows], int(labels.max()) + 1)
    shared = float(by_instance[value]) if value < len(by_instance) else 0.0
    others = [angle for i, angle in enumerate(by_instance) if i not in (0, value)]
    true = float(weights @ (labels == value).sum(1))
    return Sight(true, float(by_instance.sum()), shared, float(max(others, default=0.0)))


def visible(sights: Sequence[Sight]) -> np.ndarray:
    """In which frames (N,) an object is visible."""
    true = np.array([each.true for each in sights], float)
    return true >= VISIBLE * np.median(true[true > 0]) if true.any() else true > 0


def wrong_takes(sights: Sequence[Sight]) -> int:
    """How many times an object was mistaken for something else: runs of frames with a wrong answer."""
    wrong = np.array([each.wrong for each in sights], bool)
    return int((wrong & ~np.r_[False, wrong[:-1]]).sum())


def waits(sights: Sequence[Sight], rate: float) -> list[float | None]:
    """How long it took to find an object each time that it was visible again after it was hidden.

    Args:
        sights: of the object, in the frames of a video.
        rate: frames per second.

    Returns:
        Seconds from the first frame that shows it again to the first in which it is tracked rightly; None if
        it was not before it was hidden again or the video ended. A time in view that is not longer than
        :data:`SOON` is left out.
    """
    seen = visible(sights)
    found: list[float | None] = []
    for first in np.flatnonzero(seen[1:] & ~seen[:-1]) + 1:
        hidden = np.flatnonzero(~seen[first:])
        last = first + int(hidden[0]) if len(hidden) else len(seen)
        if not seen[:first].any() or last - first <= SOON * rate:
            continue
        right = [k for k in range(first, last) if sights[k].right]
        found.append(float(right[0] - first) / rate if right else None)
    return found
