"""What a person points at, validated once, here.

Points are kept as directions: a click on the panorama, a gaze and a point of another camera are then
the same thing, and neither the seam nor a pole is a special place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere

#: Label images hold ids; 0 is background, 255 (in 8 bit) and 65535 are reserved.
MAX_OBJECT_ID = 65534

POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Prompt:
    """Points on and off one object.

    Args:
        object_id: 1 to 65534 without 255: the object's value in the label image.
        directions: (P, 3) vectors in the body frame, of any length; unit vectors once made.
        labels: (P,), ``POSITIVE`` on the object or ``NEGATIVE`` off it.

    Raises:
        ValueError: which value is wrong, and what would be right.
    """

    object_id: int
    directions: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if not 1 <= self.object_id <= MAX_OBJECT_ID or self.object_id == 255:
            raise ValueError(
                f"object id is {self.object_id}; it must lie in 1 to {MAX_OBJECT_ID} and not be 255"
            )
        directions = np.asarray(self.directions, np.float64)
        labels = np.asarray(self.labels)
        if directions.ndim != 2 or directions.shape[1] != 3 or labels.shape != directions.shape[:1]:
            raise ValueError(
                f"directions have the shape {directions.shape} and labels {labels.shape}; "
                "they must be (P, 3) and (P,)"
            )
        if not np.isfinite(directions).all():
            raise ValueError(
                f"a point is not finite: {_first(directions, ~np.isfinite(directions))}"
            )
        length = np.linalg.norm(directions, axis=1)
        if (length < 1e-9).any():
            raise ValueError(f"a direction has no length: {_first(directions, length < 1e-9)}")
        known = np.isin(labels, (POSITIVE, NEGATIVE))
        if not known.all():
            raise ValueError(
                f"a point's label is {labels[~known][0]}; it must be 1 (on the object) or 0 (off it)"
            )
        if not (labels == POSITIVE).any():
            raise ValueError(
                f"object {self.object_id} has no positive point; it needs at least one"
            )
        object.__setattr__(self, "directions", directions / length[:, None])
        object.__setattr__(self, "labels", labels.astype(np.int32))

    @property
    def anchor(self) -> np.ndarray:
        """Direction (3,) of the first positive point: where the scan begins."""
        return np.asarray(self.directions[self.labels == POSITIVE][0])

    def extended(self, other: Prompt) -> Prompt:
        """This prompt with another's points after its own."""
        return Prompt(
            self.object_id,
            np.concatenate([self.directions, other.directions]),
            np.concatenate([self.labels, other.labels]),
        )


def from_pixels(
    object_id: int,
    pixels: ArrayLike,
    size: tuple[int, int],
    labels: Sequence[int] | np.ndarray | None = None,
) -> Prompt:
    """A prompt from panorama pixels.

    Args:
        object_id: see :class:`Prompt`.
        pixels: (P, 2) as (u, v), 0 to width and 0 to height; pixel centres are at +0.5.
        size: the panorama's (width, height).
        labels: (P,), see :class:`Prompt`; None: all positive.

    Raises:
        ValueError: a pixel outside the image, or what :class:`Prompt` does not take.
    """
    points = np.asarray(pixels, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"pixels have the shape {points.shape}; it must be (P, 2), as (u, v)")
    if not np.isfinite(points).all():
        raise ValueError(f"a point is not finite: {_first(points, ~np.isfinite(points))}")
    outside = ((points < 0) | (points > np.array(size))).any(1)
    if outside.any():
        raise ValueError(
            f"point {_first(points, outside)} lies outside the panorama of {size[0]}x{size[1]}"
        )
    return Prompt(
        object_id,
        sphere.pixel_to_direction(points, size),
        np.ones(len(points), np.int32) if labels is None else np.asarray(labels),
    )


def _first(points: np.ndarray, wrong: np.ndarray) -> tuple[float, ...]:
    """The first point that is wrong; ``wrong`` has the points' shape, or one value a point."""
    row = int(np.flatnonzero(wrong.reshape(len(points), -1).any(1))[0])
    return tuple(float(f"{value:.6g}") for value in points[row])
