"""A pinhole view of the sphere: converts its pixels to directions and directions to its pixels.

Conventions are those of :mod:`sap_ros.core.sphere`. All angles of a :class:`View` are in rad; pixel
centres are at +0.5, in views as in panoramas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere

#: Field of view of the paper's views: 90 degrees.
RIGHT_ANGLE = math.pi / 2

# A pole on a view's border counts as inside in spite of rounding errors.
_POLE_SLACK = 1e-6
_BORDER_POINTS = 101  # per side


@dataclass(frozen=True)
class View:
    """A square pinhole view.

    Attributes:
        yaw: azimuth of the optical axis, counter-clockwise from straight ahead, in rad.
        pitch: elevation of the optical axis, in rad.
        fov: field of view, horizontal and vertical, in rad.
        roll: by how much the camera is turned clockwise about the optical axis, in rad; at 0 the panorama's
            z axis is upright in the view.
    """

    yaw: float
    pitch: float
    fov: float = RIGHT_ANGLE
    roll: float = 0.0

    @cached_property
    def rotation(self) -> sphere.Array:
        """Rotation (3, 3) from the view's optical frame to the body frame."""
        level = sphere.view_rotation(self.yaw, self.pitch)
        if not self.roll:
            return level
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        return level @ np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])

    @property
    def axis(self) -> sphere.Array:
        """Unit vector (3,) along the optical axis, in the body frame."""
        return self.rotation[:, 2]

    @property
    def solid_angle(self) -> float:
        """Solid angle of the view, in sr."""
        half = math.tan(self.fov / 2)
        return 4 * math.asin(half**2 / (1 + half**2))


def level_view(direction: ArrayLike, fov: float = RIGHT_ANGLE, up: sphere.Up = sphere.UP) -> View:
    """The view along a direction (3,) in which ``up`` is upright; ``fov`` in rad."""
    yaw, pitch = (float(angle) for angle in sphere.direction_to_angles(direction))
    view = View(yaw, pitch, fov)
    if up == sphere.UP:
        return view
    right, down, _ = np.array(up) @ view.rotation
    return View(yaw, pitch, fov, math.atan2(right, -down))


def focal_length(size: int, fov: float) -> float:
    """Focal length in pixels of a square view of ``size`` pixels and a field of view in rad.

    The field of view spans the centres of the outermost pixels, as in the paper (arXiv 2603.12759,
    section on the scan): 511.5 for 1024 pixels and 90 degrees.
    """
    return (size - 1) / (2 * math.tan(fov / 2))


def view_to_direction(pixel: ArrayLike, view: View, size: int) -> sphere.Array:
    """Pixels (..., 2) as (u, v) of a view of ``size`` pixels to unit vectors (..., 3)."""
    offset = (np.asarray(pixel, np.float64) - size / 2) / focal_length(size, view.fov)
    rays = np.concatenate([offset, np.ones((*offset.shape[:-1], 1))], axis=-1) @ view.rotation.T
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def direction_to_view(direction: ArrayLike, view: View, size: int) -> sphere.Array:
    """Directions (..., 3) to pixels (..., 2) of a view of ``size`` pixels; NaN behind the camera.

    Directions in front of the camera but outside its image give pixels outside 0 to ``size``.
    """
    x, y, z = np.moveaxis(np.asarray(direction, np.float64) @ view.rotation, -1, 0)
    z = np.where(z > 1e-9, z, np.nan)
    return np.stack([x / z, y / z], axis=-1) * focal_length(size, view.fov) + size / 2


def sees(view: View, direction: ArrayLike, slack: float = 0.0) -> np.ndarray:
    """Whether each direction (..., 3) is inside a view, as (...) bool.

    ``slack`` widens the image on each side, as a distance at focal length 1.
    """
    x, y, z = np.moveaxis(np.asarray(direction, np.float64) @ view.rotation, -1, 0)
    limit = z * math.tan(view.fov / 2) + slack
    return np.asarray((z > 0) & (abs(x) <= limit) & (abs(y) <= limit))


def warp_mask(mask: np.ndarray, source: View, target: View, size: int) -> np.ndarray:
    """Warps a mask from one view to another view of the same panorama.

    Args:
        mask: (n, n) float32, over the square of ``source``.
        source: the view of the mask.
        target: the view to warp it to.
        size: side of both views, in pixels.

    Returns:
        (n, n) float32; NaN where the directions of ``target`` are outside of ``source``.
    """
    grid = len(mask)
    offset = ((np.arange(grid) + 0.5) * (size / grid) - size / 2) / focal_length(size, target.fov)
    # A ray of the target is linear in its column and row, and so is it in the axes of the source.
    right, down, ahead = (source.rotation.T @ target.rotation).T[..., None, None]
    x, y, z = right * offset + down * offset[:, None] + ahead
    z[z < 1e-9] = np.nan
    scale = focal_length(size, source.fov)
    x, y = x / z * scale + size / 2, y / z * scale + size / 2
    inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) <= size)  # False where NaN
    columns, rows = (
        np.where(inside, p * (grid / size) - 0.5, 0).astype(np.float32) for p in (x, y)
    )
    warped = cv2.remap(mask, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(inside, warped, np.float32(np.nan))


def row_span(view: View, size: int, height: int) -> tuple[int, int]:
    """The panorama rows that a view of ``size`` pixels shows, as (first, last + 1)."""
    _, elevation = sphere.direction_to_angles(_border(view, size))
    up, down = _poles(view)
    top = np.pi / 2 if up else elevation.max()
    low = -np.pi / 2 if down else elevation.min()
    return (
        max(0, math.floor((0.5 - top / np.pi) * height) - 1),
        min(height, math.ceil((0.5 - low / np.pi) * height) + 1),
    )


def column_span(view: View, size: int, width: int) -> tuple[int, int]:
    """The panorama columns that a view of ``size`` pixels shows, as (first, last + 1).

    If the view crosses the seam, the first is negative or the last is beyond the width.
    """
    if _poles(view).any():
        return 0, width
    azimuth, _ = sphere.direction_to_angles(_border(view, size))
    off = np.mod(azimuth - view.yaw + np.pi, 2 * np.pi) - np.pi
    left = math.floor((0.5 - (view.yaw + off.max()) / (2 * np.pi)) * width) - 1
    right = math.ceil((0.5 - (view.yaw + off.min()) / (2 * np.pi)) * width) + 1
    return (left, right) if right - left < width else (0, width)


def _border(view: View, size: int) -> np.ndarray:
    """Directions (P, 3) along a view's border, with its highest and lowest ones."""
    edge = np.linspace(0, size, _BORDER_POINTS)
    near, far = np.zeros_like(edge), np.full_like(edge, size)
    border = np.stack(
        [np.concatenate([edge, edge, near, far]), np.concatenate([near, far, edge, edge])], axis=-1
    )
    directions = view_to_direction(border, view, size)
    return np.concatenate([directions, _apexes(view, size)]) if view.roll else directions


def _apexes(view: View, size: int) -> np.ndarray:
    """Where the sides of a view are highest or lowest, if that is between its corners, (P, 3).

    Without roll these are corners or the middles of the sides. A side is an arc of a great circle.
    """
    half = size / 2 / focal_length(size, view.fov)
    normals = np.array([[1, 0, -half], [1, 0, half], [0, 1, -half], [0, 1, half]]) @ view.rotation.T
    normals /= math.hypot(1, half)
    highest = np.array(sphere.UP) - normals * normals[:, 2:]
    length = np.linalg.norm(highest, axis=1, keepdims=True)
    highest = highest[length[:, 0] > _POLE_SLACK] / length[length[:, 0] > _POLE_SLACK]
    both = np.concatenate([highest, -highest])
    pixels = direction_to_view(both, view, size)
    # Comparisons with NaN, behind the view, are False.
    inside = ((pixels > -_POLE_SLACK) & (pixels < size + _POLE_SLACK)).all(1)
    return np.asarray(both[inside])


def _poles(view: View) -> np.ndarray:
    """Whether a view contains the upper and the lower pole, (2,)."""
    return sees(view, np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), slack=_POLE_SLACK)
