"""How objects are followed from one panorama to the next: limits, and geometry on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def check_ranges(settings: object, **ranges: tuple[float, float]) -> None:
    """Raises ValueError unless each attribute that is named lies between two values."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; it must lie between {low} and {high:g}")


@dataclass(frozen=True)
class Following:
    """How objects are followed from one panorama to the next.

    Attributes:
        margin: how far an object may have moved since the last panorama, in degrees: its mask grown
            by this is looked at.
        search: frames that are looked through, a panorama, for a lost object, beside those where
            it was last seen.
        min_score: a mask of lower predicted quality is not the object; or of half of the first one's,
            where that is less.
        max_growth: a mask that grows by more than this factor from one panorama to the next is not
            the object, unless its predicted quality is above ``sure_score``.
        sure_score: see ``max_growth``.
        everywhere: all of a scan is looked through in every panorama, as in the first (a peer, for
            benchmarks).

    Raises:
        ValueError: a value out of its range.
    """

    margin: float = 8.0
    search: int = 2
    min_score: float = 0.3
    max_growth: float = 3.0
    sure_score: float = 0.8
    everywhere: bool = False

    def __post_init__(self) -> None:
        check_ranges(
            self,
            margin=(0, 90),
            search=(0, 24),
            min_score=(0, 1),
            max_growth=(1, math.inf),
            sure_score=(0, 1),
        )


def main_part(directions: np.ndarray, solid_angle: float) -> np.ndarray:
    """Of directions (P, 3) all over a mask, those about its densest place; strays are left out."""
    radius = math.sqrt(solid_angle / math.pi)
    cosines = directions @ directions.T
    near = np.exp((cosines - 1) * 2 / max(radius, 0.02) ** 2)
    densest = near.sum(1).argmax()
    return np.asarray(directions[cosines[densest] > math.cos(min(3 * radius + 0.02, math.pi))])


def grown(directions: np.ndarray, margin: float) -> np.ndarray:
    """Directions (P, 3) all over a region, and as many again, moved outward by an angle in rad."""
    centre = directions.mean(0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-9)
    outward = directions - centre * (directions @ centre)[:, None]
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    if (length < math.sin(margin)).all():  # a spot: outward is all round
        turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        side = np.cross(centre, [0.0, 0, 1] if abs(centre[2]) < 0.9 else [1.0, 0, 0])
        side /= np.linalg.norm(side)
        outward = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * np.cross(centre, side)
        moved = math.cos(margin) * centre + math.sin(margin) * outward
        return np.concatenate([directions, moved])
    outward = outward / np.maximum(length, 1e-9)
    return np.concatenate([directions, math.cos(margin) * directions + math.sin(margin) * outward])


def smallest_rotation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that turns one vector (3,) to the direction of another."""
    a, b = (v / max(float(np.linalg.norm(v)), 1e-9) for v in (one, other))
    x, y, z = np.cross(a, b)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / max(1 + float(a @ b), 1e-6))
