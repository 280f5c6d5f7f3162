"""Motion of an object from one panorama to the next: limits, and geometry on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere

# An object that moves by less than this share of its radius counts as at rest, because the mask centres of
# a resting object also vary.
AT_REST = 0.2

# Directions farther from the densest place of a mask than this many radii plus this angle (rad) are strays,
# unless they are connected with it.
_STRAY_RADII = 3.0
_STRAY_MARGIN = 0.02

# Smallest scale, in rad, at which density is measured.
_LEAST_RADIUS = 0.02

# Samples of a mask are connected if they are closer than this multiple of their mean spacing.
_CONNECTED_STEPS = 3.0

# Number of outward directions around a region that is as small as a spot.
_AROUND = 8

# Two panoramas are compared at one column per degree and so many rows, between -45 and 45 degrees; steps of
# brightness are clipped to this, so that the edges of a few moving objects do not outweigh the background.
_TURN_SHAPE = (360, 24)
_TURN_CLIP = 3.0

# The correlation at the best rotation below which no rotation is known.
_TURN_SURE = 0.3


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
        margin: largest motion of an object since the last panorama, in degrees: it is searched for in the
            region of its last mask, grown by this angle.
        search: number of views that are searched on each panorama for a lost object, besides those that
            cover its last position.
        min_score: a mask with a lower predicted IoU is rejected; if the object's prompted mask had less
            than twice this value, the limit is half of that mask's predicted IoU.
        max_growth: a mask is rejected if its solid angle exceeds the object's, averaged over the last
            panoramas, by more than this factor, unless its predicted IoU is above ``sure_score``; a lost
            object is found again only by a mask that is not larger than the whole object, and not smaller than
            its last masks, by more than this factor.
        sure_score: see ``max_growth``.
        everywhere: all views are visited on every panorama, as on the first (for comparison, in
            benchmarks).

    Raises:
        ValueError: a value is out of its range.
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
    """Radius in rad of a flat disk with the given solid angle in sr."""
    return math.sqrt(solid_angle / math.pi)


def angular_radius(directions: np.ndarray) -> float:
    """Radius in rad of the disk with the same mean distance to its centre as directions (P, 3); larger
    than :func:`disk_radius` for an elongated object."""
    away = sphere.angle_between(directions, directions.mean(0)[None])
    return float(1.5 * away.mean())  # the mean distance of a disk's points is 2/3 of its radius


def main_part(directions: np.ndarray, solid_angle: float) -> np.ndarray:
    """The main part of a mask, given as directions (P, 3) that sample it evenly, without strays.

    It consists of the directions near the densest place, at the scale of the mask's solid angle in sr, and
    of those connected with them.
    """
    radius = disk_radius(solid_angle)
    farthest = min(_STRAY_RADII * radius + _STRAY_MARGIN, math.pi)
    limit = 1 - math.cos(farthest)
    centre = directions.mean(0)
    if sphere.angle_between(directions, centre).max() < farthest / 2:
        return directions  # no two are farther apart
    apart = (1 - directions @ directions.T).astype(np.float32)  # 1 - the cosine of each angle
    if apart.max() < limit:
        return directions
    density = np.exp(apart * (-2 / max(radius, _LEAST_RADIUS) ** 2)).sum(1)
    near = apart[density.argmax()] < limit
    if near.all():
        return directions
    spacing = math.sqrt(solid_angle / len(directions))
    linked = apart < 1 - math.cos(min(_CONNECTED_STEPS * spacing, math.pi))
    _, part = connected_components(
        csr_array(linked), directed=False
    )  # scipy copies a dense array twice
    return np.asarray(directions[near | np.isin(part, part[near])])


def grown(directions: np.ndarray, margin: float) -> np.ndarray:
    """Directions (P, 3) of a region, and further ones that are moved outward by an angle in rad, (Q, 3)."""
    centre = directions.mean(0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-9)
    outward = directions - centre * (directions @ centre)[:, None]
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    if (length < math.sin(margin)).all():  # a spot: every direction is outward
        angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
        side = np.cross(centre, [0.0, 0, 1] if abs(centre[2]) < 0.9 else [1.0, 0, 0])
        side /= np.linalg.norm(side)
        outward = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(centre, side)
        moved = math.cos(margin) * centre + math.sin(margin) * outward
        return np.concatenate([directions, moved])
    outward = outward / np.maximum(length, 1e-9)
    return np.concatenate([directions, math.cos(margin) * directions + math.sin(margin) * outward])


def rotation_between(source: np.ndarray, target: np.ndarray) -> Rotation:
    """The smallest rotation from the direction of one vector (3,) to that of another."""
    (x, y, z), (u, v, w) = source.tolist(), target.tolist()
    axis = y * w - z * v, z * u - x * w, x * v - y * u
    across, along = math.hypot(*axis), x * u + y * v + z * w
    if across < 1e-12:  # also where no smallest rotation is known
        return Rotation.identity()
    length = math.hypot(across, along)
    # length + along, which loses its digits where the two are almost opposite.
    half = length + along if along > 0 else across * across / (length - along)
    return Rotation.from_quat([*axis, half])


def turn_between(before: np.ndarray, after: np.ndarray) -> float:
    """How far everything has turned about the vertical axis from one panorama to the next, because the camera turned.

    Args:
        before, after: (H, 2H, 3) uint8, level.

    Returns:
        The change of all azimuths in rad, to a degree; 0 if the panoramas do not show it.
    """
    one, other = (_steps(image) for image in (before, after))
    spectra = np.conj(np.fft.rfft(one, axis=1)) * np.fft.rfft(other, axis=1)
    correlation = np.fft.irfft(spectra.sum((0, 2)), _TURN_SHAPE[0])
    columns = int(correlation.argmax())
    if correlation[columns] <= _TURN_SURE * float(np.linalg.norm(one) * np.linalg.norm(other)):
        return 0.0
    # Columns count to the right, azimuth to the left.
    return math.remainder(-2 * math.pi * columns / _TURN_SHAPE[0], 2 * math.pi)


def turned(image: np.ndarray, rotation: Rotation, labels: bool = False) -> np.ndarray:
    """A panorama (H, W) or (H, W, channels), with everything in it rotated; ``labels``: without interpolation."""
    height, width = image.shape[:2]
    back = rotation.as_matrix().T
    x, y, z = sphere.grid_dot((0, height), (0, width), (width, height), back)
    u, v = sphere.components_to_pixel(x, y, z, (width, height))
    columns, rows = (u - 0.5).astype(np.float32), (v - 0.5).clip(0, height - 1).astype(np.float32)
    how = cv2.INTER_NEAREST if labels else cv2.INTER_LINEAR
    return np.asarray(cv2.remap(image, columns, rows, how, borderMode=cv2.BORDER_WRAP))


def _steps(image: np.ndarray) -> np.ndarray:
    """The differences of neighbouring columns of a small panorama."""
    quarter = len(image) // 4
    small = cv2.resize(image[quarter:-quarter], _TURN_SHAPE, interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    return np.clip(np.roll(small, -1, axis=1) - small, -_TURN_CLIP, _TURN_CLIP)
