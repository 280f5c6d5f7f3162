"""Directions, panorama pixels, and view rotations: the only module with longitude formulas.

Frames and units, used everywhere in the package:

- A *direction* is a unit vector in the body frame of REP-103: x forward, y left, z up.
- *Azimuth* is counter-clockwise from x (left is positive), in (-pi, pi]; *elevation* is up from the
  horizon, in [-pi/2, pi/2]. Radians.
- A *pixel* of an equirectangular panorama is (u, v), continuous, u to the right in [0, W), v down in
  [0, H]; the centre of the pixel in column i, row j is (i + 0.5, j + 0.5). The middle of the
  panorama, u = W / 2, looks along x; u = 0 and u = W are both straight behind: the seam.
- A *view* is a pinhole camera in the optical frame: x right, y down, z along the optical axis.
- *Up* is the unit vector opposite to gravity, in the panorama's axes: z, unless the camera is tilted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: An up direction; a tuple, to be compared and hashed.
Up = tuple[float, float, float]

#: That of a camera that is not tilted.
UP: Up = (0.0, 0.0, 1.0)

# Up directions that are closer to straight down than this (as 1 + z) count as straight down.
_UPSIDE_DOWN = 1e-12


def angles_to_direction(azimuth: ArrayLike, elevation: ArrayLike) -> Array:
    """Azimuth and elevation in rad, broadcast to shape (...), to unit vectors (..., 3)."""
    azimuth, elevation = np.broadcast_arrays(
        np.asarray(azimuth, np.float64), np.asarray(elevation, np.float64)
    )
    horizontal = np.cos(elevation)
    return np.stack(
        [horizontal * np.cos(azimuth), horizontal * np.sin(azimuth), np.sin(elevation)], axis=-1
    )


def direction_to_angles(direction: ArrayLike) -> tuple[Array, Array]:
    """Vectors (..., 3) of any length to azimuth in (-pi, pi] and elevation, each (...), in rad.

    The type of float32 vectors is kept; others give float64.
    """
    x, y, z = np.moveaxis(_floats(direction), -1, 0)
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def _floats(values: ArrayLike) -> Array:
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def pixel_to_direction(pixel: ArrayLike, size: tuple[int, int]) -> Array:
    """Panorama pixels (..., 2) as (u, v) to unit vectors (..., 3); ``size`` is (width, height)."""
    u, v = np.moveaxis(np.asarray(pixel, np.float64), -1, 0)
    width, height = size
    return angles_to_direction((0.5 - u / width) * 2 * np.pi, (0.5 - v / height) * np.pi)


def direction_to_pixel(direction: ArrayLike, size: tuple[int, int]) -> Array:
    """Vectors (..., 3) to panorama pixels (..., 2), u in [0, W); ``size`` is (width, height)."""
    x, y, z = np.moveaxis(_floats(direction), -1, 0)
    return np.stack(components_to_pixel(x, y, z, size), axis=-1)


def components_to_pixel(
    x: Array,
    y: Array,
    z: Array,
    size: tuple[int, int],
    arctan2: Callable[[Array, Array], Array] = np.arctan2,
) -> tuple[Array, Array]:
    """:func:`direction_to_pixel` for vectors given by components (...); faster for many vectors.

    Args:
        x, y, z: the components, of any length.
        size: the panorama's (width, height).
        arctan2: computes numpy's arctan2, on which most of the time is spent.
    """
    width, height = size
    u = np.asarray(arctan2(y, x))
    u *= -1 / (2 * np.pi)
    u += 0.5
    u -= np.floor(u)  # np.mod takes ten times as long
    u *= width
    u[u >= width] = 0  # rounding errors next to the seam
    v = np.asarray(arctan2(z, np.sqrt(x * x + y * y)))
    v *= -height / np.pi
    v += height / 2
    return u, v


def view_rotation(yaw: float, pitch: float) -> Array:
    """Rotation (3, 3) from a view's optical frame to the body frame.

    ``yaw`` turns the optical axis counter-clockwise (left), ``pitch`` turns it up, both in rad; the
    view has no roll, so its x axis is horizontal.
    """
    sine, cosine, up, level = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    # Columns: right, down, forward.
    return np.array(
        [
            [sine, up * cosine, level * cosine],
            [-cosine, up * sine, level * sine],
            [0.0, -level, up],
        ]
    )


def levelling(up: ArrayLike) -> Array:
    """The smallest rotation (3, 3) from level axes, in which z is up, to those in which ``up`` (3,) is up.

    If ``up`` is straight down, it is half a turn about x.
    """
    x, y, z = np.asarray(up, np.float64)
    if 1 + z < _UPSIDE_DOWN:
        return np.diag([1.0, -1.0, -1.0])
    k = 1 / (1 + z)
    return np.array([[1 - x * x * k, -x * y * k, x], [-x * y * k, 1 - y * y * k, y], [-x, -y, z]])


def row_solid_angles(size: tuple[int, int]) -> Array:
    """Exact solid angle of one pixel of each panorama row, (H,), in sr; W times its sum is 4 pi."""
    width, height = size
    edges = np.sin((0.5 - np.arange(height + 1) / height) * np.pi)
    return (edges[:-1] - edges[1:]) * (2 * np.pi / width)


def angle_between(a: ArrayLike, b: ArrayLike) -> Array:
    """Angle between vectors (..., 3), in rad; exact for small and for opposite directions too."""
    (x, y, z), (u, v, w) = (np.moveaxis(np.asarray(each, np.float64), -1, 0) for each in (a, b))
    # By components: np.cross takes several times as long for single vectors.
    across = np.sqrt((y * w - z * v) ** 2 + (z * u - x * w) ** 2 + (x * v - y * u) ** 2)
    return np.arctan2(across, x * u + y * v + z * w)


def grid_dot(
    rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int], vectors: ArrayLike
) -> NDArray[np.float32]:
    """Dot products of the pixel directions in a rectangle of the panorama with vectors.

    A direction is a product of terms of its row and terms of its column, so no trigonometry is needed per
    pixel.

    Args:
        rows, columns: (first, last + 1); columns may be negative or beyond the width.
        size: the panorama's (width, height).
        vectors: (K, 3).

    Returns:
        (K, rows, columns).
    """
    width, height = size
    azimuth = (0.5 - (np.arange(*columns) + 0.5) / width) * 2 * np.pi
    elevation = (0.5 - (np.arange(*rows) + 0.5) / height) * np.pi
    x, y, z = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)[..., None]
    level = (x * np.cos(azimuth) + y * np.sin(azimuth)).astype(np.float32)
    products = np.cos(elevation).astype(np.float32)[None, :, None] * level[:, None]
    products += (z * np.sin(elevation)).astype(np.float32)[:, :, None]
    return np.asarray(products)
