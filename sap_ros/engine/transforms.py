"""Transforms between frames: the interface through which the engine uses TF."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Stamped:
    """A frame at a time.

    Attributes:
        frame_id: its name; empty: unknown, assumed to be the same as the other frame.
        stamp: in ns; 0: the latest available.
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
    """A source of transforms: TF on a robot, what a bag has recorded in a replay."""

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        """Returns the transform of points from the source frame to the target frame.

        Args:
            target: target frame and time.
            source: source frame and time.
            fixed_frame: a frame that is fixed in the world, through which the transform goes from the
                source's time to the target's; empty: both frames at the source's time.

        Raises:
            ValueError: the transform is not available; the message says what is missing.
        """


class NoTransforms:
    """In place of TF where there is none: knows only the identity, for equal or unnamed frames."""

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        if target.frame_id and source.frame_id and target.frame_id != source.frame_id:
            raise ValueError(
                f"no transform from {source.frame_id!r} to {target.frame_id!r}: there is no TF"
            )
        return Transform()
