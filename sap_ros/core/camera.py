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
    """A square pinhole view without roll.

    Attributes:
        yaw: azimuth of the optical axis, counter-clockwise from straight ahead, in rad.
        pitch: elevation of the optical axis, in rad.
        fov: field of view, horizontal and vertical, in rad.
    """

    yaw: float
    pitch: float
    fov: float = RIGHT_ANGLE

    @cached_property
    def rotation(self) -> sphere.Array:
        """Rotation (3, 3) from the view's optical frame to the body frame."""
        return sphere.view_rotation(self.yaw, self.pitch)

    @property
    def axis(self) -> sphere.Array:
        """Unit vector (3,) along the optical axis, in the body frame."""
        return self.rotation[:, 2]

    @property
    def solid_angle(self) -> float:
        """Solid angle of the view, in sr."""
        half = math.tan(self.fov / 2)
        return 4 * math.asin(half**2 / (1 + half**2))


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
    v, u = (np.mgrid[:grid, :grid] + 0.5) * (size / grid)
    directions = view_to_direction(np.stack([u, v], -1), target, size)
    pixels = direction_to_view(directions, source, size)
    inside = ((pixels >= 0) & (pixels <= size)).all(-1)
    x, y = np.moveaxis(np.where(inside[..., None], pixels * (grid / size) - 0.5, 0), -1, 0)
    warped = cv2.remap(
        mask,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
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
    """Directions (4 * 101, 3) along a view's border."""
    edge = np.linspace(0, size, _BORDER_POINTS)
    near, far = np.zeros_like(edge), np.full_like(edge, size)
    border = np.stack(
        [np.concatenate([edge, edge, near, far]), np.concatenate([near, far, edge, edge])], axis=-1
    )
    return view_to_direction(border, view, size)


def _poles(view: View) -> np.ndarray:
    """Whether a view contains the upper and the lower pole, (2,)."""
    return sees(view, np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), slack=_POLE_SLACK)
