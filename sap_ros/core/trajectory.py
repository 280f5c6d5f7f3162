"""The virtual camera's path over the sphere: which views are taken, and in which order.

The method's path is a column-first zigzag: up one column of views, down the next. Consecutive views
then differ in yaw alone or in pitch alone, and with an even number of columns the path closes into a
loop ("Segment Any 4K Panorama", arXiv 2603.12759, section on the scan).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere

Order = Literal["column_first", "row_first"]


@dataclass(frozen=True)
class View:
    """One square pinhole view.

    Attributes:
        yaw, pitch: where it looks, counter-clockwise and up, in rad.
        fov: field of view, horizontal and vertical, in degrees.
    """

    yaw: float
    pitch: float
    fov: float = 90.0

    @cached_property
    def rotation(self) -> sphere.Array:
        """Optical frame to body frame, (3, 3)."""
        return sphere.view_rotation(self.yaw, self.pitch)


@dataclass(frozen=True)
class Trajectory:
    """The views that a scan visits.

    Args:
        fov: field of view of a view, horizontal and vertical, in degrees, 30 to 120.
        overlap: share of a view that the next one sees again, 0 to below 1.
        order: ``column_first`` (the method: a zigzag up one column and down the next, closed) or
            ``row_first`` (ablation: row by row from the bottom, cannot close).

    The yaw step is ``fov * (1 - overlap)``, made smaller where needed so that the number of columns
    is whole and even. Rows span the pitches at which a view's edge touches a pole; their step is no
    larger than the yaw step's, and there are as many as it takes to leave no direction unseen. The
    defaults give 8 columns and 3 rows at -45, 0, +45 degrees, a 30 degree step gives 12 and 4 (both
    published), no overlap gives 4 and 3.

    Raises:
        ValueError: a parameter is out of range.
    """

    fov: float = 90.0
    overlap: float = 0.5
    order: Order = "column_first"

    def __post_init__(self) -> None:
        if not 30 <= self.fov <= 120:
            raise ValueError(f"fov is {self.fov} degrees; it must lie between 30 and 120")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"overlap is {self.overlap}; it must lie between 0 and 0.9")
        if self.order not in ("column_first", "row_first"):
            raise ValueError(f"order is {self.order!r}; it must be 'column_first' or 'row_first'")

    @cached_property
    def yaws(self) -> tuple[float, ...]:
        """Yaw of each column, in rad, from straight ahead to the right."""
        step = self.fov * (1 - self.overlap)
        columns = 2 * math.ceil(180 / step - 1e-9)
        return tuple(-2 * math.pi * i / columns for i in range(columns))

    @cached_property
    def pitches(self) -> tuple[float, ...]:
        """Pitch of each row, in rad, from the lowest to the highest."""
        step = self.fov * (1 - self.overlap)
        rows = math.ceil((180 - self.fov) / step - 1e-9) + 1
        top = math.radians(180 - self.fov) / 2
        while not self._covers(np.linspace(-top, top, rows)):
            rows += 1
        return tuple(np.linspace(-top, top, rows).tolist())

    def _covers(self, pitches: np.ndarray) -> bool:
        """Whether columns with these pitches leave no gap: it would open half-way between columns."""
        half_step = math.pi / len(self.yaws)
        meridian = sphere.angles_to_direction(half_step, np.linspace(-np.pi / 2, np.pi / 2, 361))
        seen = np.zeros(len(meridian), bool)
        for pitch in pitches:
            seen |= sees(View(0.0, float(pitch), self.fov), meridian, slack=1e-9)
        return bool(seen.all())

    @cached_property
    def views(self) -> tuple[View, ...]:
        """All views, in order."""
        if self.order == "column_first":
            return tuple(
                View(yaw, pitch, self.fov)
                for i, yaw in enumerate(self.yaws)
                for pitch in (self.pitches if i % 2 == 0 else self.pitches[::-1])
            )
        return tuple(
            View(yaw, pitch, self.fov)
            for j, pitch in enumerate(self.pitches)
            for yaw in (self.yaws if j % 2 == 0 else self.yaws[::-1])
        )

    def __len__(self) -> int:
        return len(self.views)

    def nearest(self, direction: ArrayLike) -> int:
        """Index of the view whose centre is nearest a direction (3,)."""
        axes = np.stack([view.rotation[:, 2] for view in self.views])
        return int(np.argmax(axes @ np.asarray(direction, np.float64)))

    def window(self, start: int, length: int | None = None) -> tuple[int, ...]:
        """Indices of ``length`` consecutive views (default: all) from ``start``, round the loop.

        This is a window of the path written twice, which is how training draws one: with the full
        length, every window sees the whole sphere.
        """
        n = len(self)
        return tuple((start + i) % n for i in range(n if length is None else length))


def focal_length(size: int, fov: float) -> float:
    """Focal length, in pixels, of a square view of ``size`` pixels and ``fov`` degrees.

    The field of view spans the centres of the outermost pixels, as in the paper: 511.5 for 1024
    pixels and 90 degrees.
    """
    return (size - 1) / (2 * math.tan(math.radians(fov) / 2))


def view_to_direction(pixel: ArrayLike, view: View, size: int) -> sphere.Array:
    """Pixels (..., 2) of a view of ``size`` pixels, centres at +0.5, to unit vectors (..., 3)."""
    offset = (np.asarray(pixel, np.float64) - size / 2) / focal_length(size, view.fov)
    rays = np.concatenate([offset, np.ones((*offset.shape[:-1], 1))], axis=-1) @ view.rotation.T
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def direction_to_view(direction: ArrayLike, view: View, size: int) -> sphere.Array:
    """Directions (..., 3) to view pixels (..., 2), centres at +0.5; NaN behind the camera."""
    x, y, z = np.moveaxis(np.asarray(direction, np.float64) @ view.rotation, -1, 0)
    z = np.where(z > 1e-9, z, np.nan)
    return np.stack([x / z, y / z], axis=-1) * focal_length(size, view.fov) + size / 2


def sees(view: View, direction: ArrayLike, slack: float = 0.0) -> np.ndarray:
    """Whether a view sees each direction (..., 3): in front of it and within its image (...)."""
    x, y, z = np.moveaxis(np.asarray(direction, np.float64) @ view.rotation, -1, 0)
    limit = z * math.tan(math.radians(view.fov) / 2) + slack
    return np.asarray((z > 0) & (abs(x) <= limit) & (abs(y) <= limit))


def carried(mask: np.ndarray, seen: View, view: View, size: int) -> np.ndarray:
    """What a mask in one view would be in another, by the camera's rotation alone.

    Args:
        mask: (n, n) float32, over the square of ``seen``.
        seen: the view that it was found in.
        view: the other.
        size: side of both, in pixels.

    Returns:
        (n, n) float32; ``nan`` where ``seen`` did not look.
    """
    grid = len(mask)
    v, u = (np.mgrid[:grid, :grid] + 0.5) * (size / grid)
    there = direction_to_view(view_to_direction(np.stack([u, v], -1), view, size), seen, size)
    inside = ((there >= 0) & (there <= size)).all(-1)
    x, y = np.moveaxis(np.where(inside[..., None], there * (grid / size) - 0.5, 0), -1, 0)
    taken = cv2.remap(
        mask,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.where(inside, taken, np.float32(np.nan))
