"""Transforms between frames: what the engine asks of TF."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Stamped:
    """A frame at a time.

    Attributes:
        frame_id: its name; empty: not known, taken to be the other one's.
        stamp: in ns; 0: the newest that is known.
    """

    frame_id: str
    stamp: int = 0


@dataclass(frozen=True)
class Transform:
    """A rotation (3, 3), then a translation (3,) in m."""

    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3), transformed."""
        return np.asarray(points @ self.rotation.T + self.translation)

    def vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Directions (..., 3), rotated only."""
        return np.asarray(vectors @ self.rotation.T)


class Transforms(Protocol):
    """Where transforms come from: TF on a robot, nothing in a recording."""

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        """The transform that takes points of a frame to another.

        Args:
            target: the frame to go to, and when.
            source: the frame to come from, and when.
            fixed_frame: a frame in which the world stands still, to go from one time to the other
                through; without one, both frames are taken at the source's time.

        Raises:
            ValueError: it is not known; the message names what is missing.
        """


class NoTransforms:
    """For recordings without TF: a frame and itself, or one that has no name."""

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        if target.frame_id and source.frame_id and target.frame_id != source.frame_id:
            raise ValueError(
                f"it is in the frame {source.frame_id!r}, and TF is not replayed; the image's is "
                f"{target.frame_id!r}"
            )
        return Transform()
