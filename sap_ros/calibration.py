"""Refines the camera file of two fisheye lenses from pictures, by what both lenses see.

Both lenses see a ring around the camera. Each picture's ring is rendered from either lens as a strip; corners
of one strip are found in the other by normalised cross-correlation; and the lenses' focal lengths and centres
and the second lens's rotation are those with which matching pixels have the same direction (robust least
squares). This is done four times, each time in strips of the camera found so far.

What the ring does not determine is held near the start by a prior: to first order, shifting both centres
looks like tilting a lens, and one focal length too long like the other too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye, Lens

#: Narrowest overlap of the lenses that can be used, in rad.
LEAST_OVERLAP = math.radians(3)
#: Fewest matches, and fewest of 8 sectors of the ring that they must lie in.
LEAST_MATCHES, LEAST_SECTORS = 40, 6
_SECTORS = 8

# By round: how far a corner is searched for in the other strip, in rad.
_SEARCH = tuple(math.radians(degrees) for degrees in (7.0, 2.5, 1.0, 1.0))
# Half of the overlap and this are the strip's half height, in rad.
_AROUND = math.radians(8)

_CORNERS = 300  # most of a picture
_CORNER_QUALITY, _CORNER_DISTANCE = 0.003, 5
_PATCH = 8  # pixels on each side of a corner that are compared
_LEAST_CORRELATION = 0.85
_UNIQUE = 0.04  # by which the best correlation must exceed the best elsewhere

# Expected errors: of a match in pixels, at best and at first, and of how many residuals otherwise, because
# errors of matches near each other are alike; of a centre, as a share of the circle's radius; of a focal length's
# logarithm, together and between the lenses; of the rotation in rad.
_BEST_MATCH, _WORST_MATCH, _RELATED = 0.1, 1.0, 3.0
_CENTRE = 0.003
_FOCAL, _FOCAL_BETWEEN = 0.03, 0.004
_ROTATION = math.radians(5)

# Pixels just beyond a circle get a direction too while its lens is being refined.
_RIM = 0.15
_LOST = 50.0  # residual in pixels of a match without one


@dataclass(frozen=True)
class Residual:
    """How far matching pixels of the two lenses are apart: the root mean square of the better 9 of 10."""

    pixels: float
    degrees: float

    def __str__(self) -> str:
        return f"{self.pixels:.2f} pixels, {self.degrees:.3f} degrees"


@dataclass(frozen=True)
class Calibration:
    """The result of :func:`calibrate`.

    Attributes:
        camera: the refined camera.
        before, after: residuals of the same matches with the start and with the refined camera.
        matches: their number.
        seam: picture (H, W, 3) uint8 RGB of the seam before and after.
    """

    camera: DualFisheye
    before: Residual
    after: Residual
    matches: int
    seam: np.ndarray


def calibrate(pictures: Sequence[np.ndarray], start: DualFisheye) -> Calibration:
    """Refines a camera from pictures (H, W, 3) uint8 RGB of one size, for which the camera is.

    Raises:
        ValueError: the lenses do not overlap, or there are too few matches.
    """
    if start.overlap < LEAST_OVERLAP:
        raise ValueError(
            f"the fields of view of the lenses overlap by {math.degrees(start.overlap):.1f} degrees; a "
            f"calibration needs {math.degrees(LEAST_OVERLAP):g}: is field_of_view right?"
        )
    camera, sigma = start, _WORST_MATCH
    for search in _SEARCH:
        ring = _Ring(camera)
        places = _matches(pictures, ring, search, first=search == _SEARCH[0])
        _check(places, ring, first=search == _SEARCH[0])
        pixels = ring.pixels(places)
        camera = _refined(start, pixels, sigma)
        # The better the matches, the less what they hardly determine is held near the start.
        last = residual(camera, pixels).pixels
        sigma = min(max(_RELATED * last, _BEST_MATCH), _WORST_MATCH)
    before, after = (residual(c, pixels) for c in (start, camera))
    seam = seam_picture(pictures[0], start, camera)
    return Calibration(camera, before, after, len(pixels[0]), seam)


def residual(camera: DualFisheye, pixels: Sequence[np.ndarray]) -> Residual:
    """The residual of matching pixels (N, 2) of the first and of the second lens."""
    seen = [
        lens.to_directions(at, camera.distance)
        for lens, at in zip(_wide(camera), pixels, strict=True)
    ]
    apart = sphere.angle_between(*seen)
    apart = np.sort(apart[np.isfinite(apart)])
    angle = float(np.sqrt(np.square(apart[: math.ceil(0.9 * len(apart))]).mean()))
    return Residual(angle * camera.resolution, math.degrees(angle))


class _Ring:
    """Strips of the ring that both lenses see, around the axis between them.

    Columns go once around, rows from behind the first lens's horizon to ahead of the second one's.
    """

    def __init__(self, camera: DualFisheye) -> None:
        self._camera = camera
        ahead = camera.lenses[0].axis - camera.lenses[1].axis
        ahead = ahead / np.linalg.norm(ahead)
        up = np.array([0.0, 0.0, 1.0]) if abs(ahead[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
        side = np.cross(ahead, up)
        side /= np.linalg.norm(side)
        self._axes = np.stack([np.cross(side, ahead), side, ahead])
        self._scale = camera.resolution
        self.columns = round(2 * math.pi * self._scale)
        self.rows = 2 * round((camera.overlap / 2 + _AROUND) * self._scale)
        v, u = np.mgrid[: self.rows, : self.columns] + 0.5
        directions = self.directions(np.stack([u, v], -1))
        self._maps = [camera.to_pixels(directions, lens) - 0.5 for lens in (0, 1)]
        #: By lens, what it sees: (rows, columns) bool.
        self.seen = [np.isfinite(at[..., 0]) for at in self._maps]

    def directions(self, at: np.ndarray) -> np.ndarray:
        """Positions (..., 2) in a strip as (column, row) to directions (..., 3)."""
        around = at[..., 0] * (2 * math.pi / self.columns)
        height = (self.rows / 2 - at[..., 1]) / self._scale
        level = np.cos(height)
        local = np.stack([level * np.cos(around), level * np.sin(around), np.sin(height)], -1)
        return np.asarray(local @ self._axes)

    def pixels(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) of both lenses at matching positions (N, 4) of their strips."""
        one, other = (
            self._camera.to_pixels(self.directions(at), lens)
            for lens, at in ((0, places[:, :2]), (1, places[:, 2:]))
        )
        good = np.isfinite(one).all(1) & np.isfinite(other).all(1)
        return one[good], other[good]

    def reach(self, angle: float) -> int:
        """An angle in rad, rounded up to pixels of a strip."""
        return math.ceil(angle * self._scale)

    def strip(self, picture: np.ndarray, lens: int) -> np.ndarray:
        """The strip of a lens, of the picture's type; black where it does not see."""
        x, y = np.moveaxis(np.nan_to_num(self._maps[lens], nan=-10).astype(np.float32), -1, 0)
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _matches(pictures: Sequence[np.ndarray], ring: _Ring, search: float, first: bool) -> np.ndarray:
    """Positions (N, 4) in the strips of the first and of the second lens that show the same.

    ``first``: the strips may be so far apart that what both lenses see is elsewhere in either.
    """
    reach = ring.reach(search)
    kernel = np.ones((2 * _PATCH + 1, 2 * _PATCH + 1), np.uint8)
    # The ring is closed: eroded with what lies beyond its ends.
    whole = [_eroded(seen, kernel) for seen in ring.seen]
    # In the end, which corners are taken must not depend on where they are found: near a border that would
    # favour errors to the inside.
    mask = (whole[0] if first else whole[0] & whole[1]).astype(np.uint8)
    allowed = whole[1] if first else ring.seen[1]
    found = []
    for picture in pictures:
        one, other = (
            cv2.cvtColor(ring.strip(picture, lens), cv2.COLOR_RGB2GRAY) for lens in (0, 1)
        )
        corners = cv2.goodFeaturesToTrack(
            one, _CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE, mask=mask
        )
        if corners is None:
            continue
        around = _PATCH + reach
        one, other = (np.pad(a, ((around, around), (around, around)), "wrap") for a in (one, other))
        for column, row in corners[:, 0].astype(int):
            at = _located(one, other, column + around, row + around, reach)
            if at is None:
                continue
            to_column, to_row = at[0] - around, at[1] - around
            if not 0 <= round(to_row) < ring.rows:
                continue
            if allowed[round(to_row), round(to_column) % ring.columns]:
                found.append((column, row, to_column, to_row))
    return np.array(found, np.float64).reshape(-1, 4) + 0.5


def _check(places: np.ndarray, ring: _Ring, first: bool) -> None:
    """Raises ValueError unless there are enough matches, all around; at first fewer are enough."""
    sectors = len(np.unique((places[:, 0] * _SECTORS / ring.columns).astype(int)))
    share = 0.5 if first else 1
    if len(places) < share * LEAST_MATCHES or sectors < share * LEAST_SECTORS:
        raise ValueError(
            f"too few matches: {len(places)} were found in the overlap of the lenses, in {sectors} of its "
            f"{_SECTORS} sectors; {LEAST_MATCHES} in {LEAST_SECTORS} sectors are needed. Take more pictures, "
            "where there is more to see all around, or correct the camera file's layout (roll, yaw, "
            "field_of_view)"
        )


def _eroded(seen: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The positions around which the whole kernel is seen in a strip."""
    margin = len(kernel) // 2
    wide = np.pad(seen.astype(np.uint8), ((0, 0), (margin, margin)), "wrap")
    wide = np.pad(wide, ((margin, margin), (0, 0)))
    inner = slice(margin, -margin)
    return cv2.erode(wide, kernel)[inner, inner] > 0


def _located(
    one: np.ndarray, other: np.ndarray, column: int, row: int, reach: int
) -> tuple[float, float] | None:
    """Where the patch around a pixel of one strip is in the other one, as (column, row).

    None: nothing there is similar enough, or something else is nearly as similar.
    """
    patch = one[row - _PATCH : row + _PATCH + 1, column - _PATCH : column + _PATCH + 1]
    around = _PATCH + reach
    window = other[row - around : row + around + 1, column - around : column + around + 1]
    score = cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED)
    v, u = np.unravel_index(int(score.argmax()), score.shape)
    best = float(score[v, u])
    inside = 0 < v < score.shape[0] - 1 and 0 < u < score.shape[1] - 1
    if not (inside and best >= _LEAST_CORRELATION):
        return None
    elsewhere = score.copy()
    elsewhere[max(0, v - _PATCH) : v + _PATCH + 1, max(0, u - _PATCH) : u + _PATCH + 1] = -1
    if elsewhere.max() > best - _UNIQUE:
        return None
    across = _peak(score[v, u - 1], best, score[v, u + 1])
    down = _peak(score[v - 1, u], best, score[v + 1, u])
    return float(column + u - reach + across), float(row + v - reach + down)


def _peak(before: float, at: float, after: float) -> float:
    """Where a parabola through three values at -1, 0 and 1 has its peak."""
    bend = before - 2 * at + after
    return float((before - after) / (2 * bend)) if bend < 0 else 0.0


def _refined(
    start: DualFisheye, pixels: tuple[np.ndarray, np.ndarray], sigma: float
) -> DualFisheye:
    """The camera with which matching pixels agree best, near the start.

    Parameters: logarithm of the focal lengths' change, common and between the lenses; the centres' change in
    pixels; and the second lens's rotation.
    """
    radius = start.lenses[0].radii[0]
    sigmas = np.array([_FOCAL, _FOCAL_BETWEEN, *[_CENTRE * radius] * 4, *[_ROTATION] * 3])
    wide = _wide(start)

    def residuals(values: np.ndarray) -> np.ndarray:
        lenses = _moved(wide, values * sigmas)
        one, other = (
            lens.to_directions(at, start.distance) for lens, at in zip(lenses, pixels, strict=True)
        )
        apart = np.nan_to_num((one - other) * start.resolution, nan=_LOST)
        return np.concatenate([(apart / sigma).ravel(), values])

    found = least_squares(residuals, np.zeros(len(sigmas)), loss="soft_l1", x_scale="jac")
    moved = _moved(wide, found.x * sigmas)
    one, other = (_same_circle(*lenses) for lenses in zip(moved, start.lenses, strict=True))
    return replace(start, lenses=(one, other))


def _same_circle(lens: Lens, start: Lens) -> Lens:
    """A lens with the field of view of which its circle is as large in the picture as at the start."""
    rim = start.radius(start.fov / 2) * start.focal_length[0] / lens.focal_length[0]
    half = float(lens.angle(min(float(rim), float(lens.radius(lens.fov / 2)))))
    return replace(lens, fov=2 * half)


def _wide(camera: DualFisheye) -> tuple[Lens, Lens]:
    """The lenses with a wider circle, where their model allows it."""
    lenses = []
    for lens in camera.lenses:
        try:
            lenses.append(replace(lens, fov=lens.fov + 2 * _RIM))
        except ValueError:
            lenses.append(lens)
    return lenses[0], lenses[1]


def _moved(lenses: tuple[Lens, Lens], values: np.ndarray) -> tuple[Lens, Lens]:
    """Lenses changed by parameters, see :func:`_refined`."""
    moved = []
    for i, lens in enumerate(lenses):
        factor = math.exp(values[0] + (values[1] if i else -values[1]))
        across, down = values[2 + 2 * i : 4 + 2 * i]
        moved.append(
            replace(
                lens,
                centre=(lens.centre[0] + across, lens.centre[1] + down),
                focal_length=(lens.focal_length[0] * factor, lens.focal_length[1] * factor),
            )
        )
    rotation = Rotation.from_rotvec(values[6:9]).as_matrix() @ moved[1].rotation
    yaw, pitch = sphere.direction_to_angles(rotation[:, 2])
    level = sphere.view_rotation(float(yaw), float(pitch)).T @ rotation
    roll = math.atan2(level[1, 0], level[0, 0])
    moved[1] = replace(moved[1], yaw=float(yaw), pitch=float(pitch), roll=roll)
    return moved[0], moved[1]


def seam_picture(picture: np.ndarray, before: DualFisheye, after: DualFisheye) -> np.ndarray:
    """The ring where the lenses meet with two cameras, in two halves each, (H, W, 3) uint8 RGB.

    The upper part of each strip is from the first lens, the lower part from the second one.
    """
    rings = [_Ring(camera) for camera in (before, after)]
    half = min(ring.columns for ring in rings) // 2
    tall = min(ring.rows for ring in rings) // 2
    rows = []
    for name, ring in zip(("before", "after"), rings, strict=True):
        one, other = (ring.strip(picture, lens) for lens in (0, 1))
        middle = ring.rows // 2
        strip = np.concatenate([one[middle - tall : middle], other[middle : middle + tall]])
        for k in (0, 1):
            part = np.ascontiguousarray(strip[:, k * half : (k + 1) * half])
            cv2.putText(part, name, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
            rows += [part, np.zeros((4, half, 3), np.uint8)]
    return np.concatenate(rows)
