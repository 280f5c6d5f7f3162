"""Converts directions between the panorama's axes and the TF frame of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONVENTIONS = ("body", "optical")

# Body axes (x forward, y left, z up) to optical ones (x right, y down, z forward), REP-103.
_BODY_TO_OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])


@dataclass(frozen=True)
class ImageAxes:
    """Orientation of a panorama, whose middle column is along x, in the TF frame of its header.

    Attributes:
        forward_column: the column that is straight ahead, as a share of the panorama's width, 0 to 1.
        convention: ``body`` (x forward, y left, z up) or ``optical`` (z forward, x right, y down).

    Raises:
        ValueError: a value is out of its range.
    """

    forward_column: float = 0.5
    convention: str = "body"

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ValueError(f"the convention is {self.convention!r}; it must be body or optical")
        if not 0 <= self.forward_column <= 1:
            raise ValueError(
                f"forward_column is {self.forward_column}; it must lie between 0 and 1"
            )

    @property
    def rotation(self) -> np.ndarray:
        """Rotation (3, 3) from the panorama's axes to the header's frame."""
        yaw = 2 * np.pi * (self.forward_column - 0.5)
        cos, sin = np.cos(yaw), np.sin(yaw)
        ahead = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return _BODY_TO_OPTICAL @ ahead if self.convention == "optical" else ahead

    def to_frame(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (..., 3) from the panorama's axes to the header's frame."""
        return np.asarray(vectors) @ self.rotation.T

    def from_frame(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (..., 3) from the header's frame to the panorama's axes."""
        return np.asarray(vectors) @ self.rotation
