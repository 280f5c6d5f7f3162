"""The paper's scan: which views cover the sphere, and in which order they are visited.

The path is a column-first zigzag: up one column of views, down the next. Consecutive views differ either
in yaw or in pitch, and an even number of columns closes the path into a loop ("Segment Any 4K Panorama",
arXiv 2603.12759, section on the scan).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere
from sap_ros.core.camera import View, level_view, sees

Order = Literal["column_first", "row_first"]

# Steps in which views follow the tilt, in rad: up is off by at most 1.5 degrees.
_TILT_STEP = math.radians(2)

# Points of a meridian at which the coverage by the rows is checked: every half degree.
_MERIDIAN_POINTS = 361


@dataclass(frozen=True)
class Scan:
    """The views that a scan visits.

    Args:
        fov_degrees: field of view of a view, horizontal and vertical, in degrees, 30 to 120.
        overlap: overlap of consecutive views, as a share of the field of view, 0 to 0.9.
        order: ``column_first`` (the paper's method: a closed zigzag up one column and down the next) or
            ``row_first`` (ablation: row by row from the bottom; this path is not closed).
        up: unit vector, see :mod:`sap_ros.core.sphere`; the scan's poles are up and down, and its views upright.

    The yaw step is ``fov * (1 - overlap)``, reduced if necessary to get an even number of columns. The
    lowest and the highest row touch the poles with a view's edge; the pitch step is at most
    ``fov * (1 - overlap)``, and there are enough rows to see every direction. The defaults give 8 columns
    and 3 rows at -45, 0, +45 degrees, a 30 degree step gives 12 and 4 (both published), no overlap gives 4
    and 3.

    Raises:
        ValueError: a value is out of its range.
    """

    fov_degrees: float = 90.0
    overlap: float = 0.5
    order: Order = "column_first"
    up: sphere.Up = sphere.UP

    def __post_init__(self) -> None:
        if not 30 <= self.fov_degrees <= 120:
            raise ValueError(
                f"fov_degrees is {self.fov_degrees}; it must lie between 30 and 120 degrees"
            )
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"overlap is {self.overlap}; it must lie between 0 and 0.9")
        if self.order not in ("column_first", "row_first"):
            raise ValueError(f"order is {self.order!r}; it must be 'column_first' or 'row_first'")

    @property
    def fov(self) -> float:
        """Field of view of a view, in rad."""
        return math.radians(self.fov_degrees)

    @cached_property
    def yaws(self) -> tuple[float, ...]:
        """Yaw of each column in level axes, in rad, starting straight ahead and going right."""
        step = self.fov_degrees * (1 - self.overlap)
        columns = 2 * math.ceil(180 / step - 1e-9)
        return tuple(-2 * math.pi * i / columns for i in range(columns))

    @cached_property
    def pitches(self) -> tuple[float, ...]:
        """Pitch of each row in level axes, in rad, ascending."""
        step = self.fov_degrees * (1 - self.overlap)
        rows = math.ceil((180 - self.fov_degrees) / step - 1e-9) + 1
        top = math.radians(180 - self.fov_degrees) / 2
        while not self._covers(np.linspace(-top, top, rows)):
            rows += 1
        return tuple(np.linspace(-top, top, rows).tolist())

    def _covers(self, pitches: np.ndarray) -> bool:
        """Whether rows at these pitches leave no gap; a gap would open half-way between two columns."""
        half_step = math.pi / len(self.yaws)
        elevations = np.linspace(-np.pi / 2, np.pi / 2, _MERIDIAN_POINTS)
        meridian = sphere.angles_to_direction(half_step, elevations)
        seen = np.zeros(len(meridian), bool)
        for pitch in pitches:
            seen |= sees(View(0.0, float(pitch), self.fov), meridian, slack=1e-9)
        return bool(seen.all())

    @cached_property
    def views(self) -> tuple[View, ...]:
        """All views, in the order of the path."""
        if self.order == "column_first":
            angles = [
                (yaw, pitch)
                for i, yaw in enumerate(self.yaws)
                for pitch in (self.pitches if i % 2 == 0 else self.pitches[::-1])
            ]
        else:
            angles = [
                (yaw, pitch)
                for j, pitch in enumerate(self.pitches)
                for yaw in (self.yaws if j % 2 == 0 else self.yaws[::-1])
            ]
        if self.up == sphere.UP:
            return tuple(View(yaw, pitch, self.fov) for yaw, pitch in angles)
        axes = sphere.angles_to_direction(*np.array(angles).T) @ sphere.levelling(self.up).T
        return tuple(level_view(axis, self.fov, self.up) for axis in axes)

    def __len__(self) -> int:
        return len(self.views)

    def nearest(self, direction: ArrayLike) -> int:
        """Index of the view whose centre is nearest to a direction (3,)."""
        return int(np.argmax(self._axes @ np.asarray(direction, np.float64)))

    @cached_property
    def _axes(self) -> sphere.Array:
        return np.stack([view.axis for view in self.views])

    def window(self, start: int, length: int | None = None) -> tuple[int, ...]:
        """Indices of ``length`` consecutive views (default: all) from ``start`` on, around the loop.

        Training draws its windows in this way; a window of full length sees the whole sphere.
        """
        n = len(self)
        return tuple((start + i) % n for i in range(n if length is None else length))


#: The scan with the defaults, whose views are computed once for all sessions.
DEFAULT_SCAN = Scan()


def tilted(scan: Scan, up: sphere.Up) -> Scan:
    """The scan about another up direction."""
    return scan if scan.up == up else _tilted(scan, up)


@lru_cache(maxsize=64)
def _tilted(scan: Scan, up: sphere.Up) -> Scan:
    return replace(scan, up=up)


def steady(up: sphere.Up) -> sphere.Up:
    """An up direction to a step of two degrees; with a tilt below one degree it is :data:`sphere.UP`.

    Views are laid out about it, so that their look-up tables can be kept while the tilt changes a little. The
    steps of a camera that hangs upside down are counted from straight down.
    """
    x, y, z = up
    across = math.hypot(x, y)
    steps_across = math.atan2(across, abs(z)) / _TILT_STEP / across if across else 0.0
    forward, left = round(steps_across * x), round(steps_across * y)
    if not forward and not left:
        return sphere.UP if z >= 0 else (0.0, 0.0, -1.0)
    steps = math.hypot(forward, left)
    sine, cosine = math.sin(steps * _TILT_STEP), abs(math.cos(steps * _TILT_STEP))
    return sine * forward / steps, sine * left / steps, math.copysign(cosine, z)
