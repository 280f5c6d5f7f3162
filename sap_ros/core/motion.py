"""How an object may move from one panorama to the next: limits, and geometry on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere

# An object that moves by less than this share of its radius is taken to be at rest: the centres of two
# masks of a resting object differ, too.
AT_REST = 0.2

# Directions farther from the densest place of a mask than so many radii, plus so many rad, are strays
# unless they are connected with it.
_STRAY_RADII = 3.0
_STRAY_MARGIN = 0.02

# Density is measured over this angle, in rad, at least.
_LEAST_RADIUS = 0.02

# Samples of a mask are connected when no farther apart than so many times their mean distance.
_CONNECTED_STEPS = 3.0

# Directions on a circle that stand for "outward" from a spot.
_AROUND = 8


def check_ranges(settings: object, **ranges: tuple[float, float]) -> None:
    """Raises ValueError unless each named attribute lies between two values."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; it must lie between {low} and {high:g}")


@dataclass(frozen=True)
class Following:
    """How objects are followed from one panorama to the next.

    Attributes:
        margin: how far an object may have moved since the last panorama, in degrees: its last mask,
            grown by this, is looked at.
        search: views per panorama that are visited for a lost object, beside those that show where it
            was last seen.
        min_score: a mask with a lower predicted IoU is not the object; where the object's first mask
            had less than twice this, half of that mask's predicted IoU is the limit.
        max_growth: a mask whose solid angle exceeds the object's, averaged over the last panoramas, by
            more than this factor is not the object, unless its predicted IoU is above ``sure_score``;
            a lost object is not found again in one that is larger or smaller by more than it.
        sure_score: see ``max_growth``.
        everywhere: all views are visited in every panorama, as in the first (for comparison, in
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

    @property
    def reach(self) -> float:
        """``margin`` in rad."""
        return math.radians(self.margin)


def disk_radius(solid_angle: float) -> float:
    """Radius in rad of a flat disk with a solid angle in sr."""
    return math.sqrt(solid_angle / math.pi)


def angular_radius(directions: np.ndarray) -> float:
    """Radius in rad of the disk whose points lie as far from its centre, in the mean, as directions
    (P, 3) from theirs; for an elongated object it is larger than :func:`disk_radius`."""
    away = sphere.angle_between(directions, directions.mean(0)[None])
    return float(1.5 * away.mean())  # the mean distance of a disk's points is 2/3 of its radius


def main_part(directions: np.ndarray, solid_angle: float) -> np.ndarray:
    """The main part of a mask that directions (P, 3) sample evenly; strays are left out.

    It is all that is near the densest place, for an object of that solid angle in sr, or connected
    with what is.
    """
    radius = disk_radius(solid_angle)
    apart = (1 - directions @ directions.T).astype(np.float32)  # 1 - the cosine of each angle
    density = np.exp(apart * (-2 / max(radius, _LEAST_RADIUS) ** 2)).sum(1)
    limit = min(_STRAY_RADII * radius + _STRAY_MARGIN, math.pi)
    near = apart[density.argmax()] < 1 - math.cos(limit)
    if near.all():
        return directions
    spacing = math.sqrt(solid_angle / len(directions))
    linked = apart < 1 - math.cos(min(_CONNECTED_STEPS * spacing, math.pi))
    _, part = connected_components(csr_array(linked), directed=False)  # dense ones are copied twice
    return np.asarray(directions[near | np.isin(part, part[near])])


def grown(directions: np.ndarray, margin: float) -> np.ndarray:
    """Directions (P, 3) over a region, and further ones moved outward by an angle in rad, (Q, 3)."""
    centre = directions.mean(0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-9)
    outward = directions - centre * (directions @ centre)[:, None]
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    if (length < math.sin(margin)).all():  # the region is a spot: outward is every direction
        angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
        side = np.cross(centre, [0.0, 0, 1] if abs(centre[2]) < 0.9 else [1.0, 0, 0])
        side /= np.linalg.norm(side)
        outward = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(centre, side)
        moved = math.cos(margin) * centre + math.sin(margin) * outward
        return np.concatenate([directions, moved])
    outward = outward / np.maximum(length, 1e-9)
    return np.concatenate([directions, math.cos(margin) * directions + math.sin(margin) * outward])


def rotation_between(source: np.ndarray, target: np.ndarray) -> Rotation:
    """The smallest rotation that takes the direction of one vector (3,) to that of another."""
    axis = np.cross(source, target)
    length = float(np.linalg.norm(axis))
    angle = float(sphere.angle_between(source, target))
    return Rotation.from_rotvec(axis * (angle / length if length > 1e-12 else 0.0))
