"""Two fisheye lenses in one picture: from directions to pixels of the picture and back.

A lens is modelled as in OpenCV (``cv2.fisheye``): a ray at an angle theta to the optical axis falls on the
picture at the distance ``f * (theta + k1 theta^3 + k2 theta^5 + k3 theta^7 + k4 theta^9)`` from the centre;
without k1 to k4 the lens is equidistant. Unlike in OpenCV, rays may be at more than 90 degrees to the axis,
and the centre of the first pixel is (0.5, 0.5), as everywhere in this package: OpenCV's cx and cy are
smaller by 0.5.

Directions, angles and axes are those of :mod:`sap_ros.core.sphere`. They are seen from the origin of the
*rig*, the frame of the panorama; each lens has a position in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere

_NARROWEST, _WIDEST = math.radians(120), math.radians(280)  # field of view of a lens

# A lens's circle may extend beyond the picture by this share of its radius, as it does after a calibration.
_BEYOND_PICTURE = 0.03

# Points of the radius at which the model is checked, and steps of Newton's method that invert it.
_RADIUS_POINTS = 200
_NEWTON_STEPS = 12

# The two positions of the lenses must be nearer to the rig's origin than this share of the distance.
_NEAREST = 0.5

_SMALLEST_PANORAMA, _LARGEST_PANORAMA = 512, 8192  # width of a panorama, in pixels

#: A number, an array or a tensor.
Numbers = TypeVar("Numbers", float, np.ndarray, Any)

#: Widest band along the border between two lenses in which both are blended, by default: 4 degrees.
BLEND = math.radians(4)


@dataclass(frozen=True)
class Lens:
    """A fisheye lens, and the part of the picture that it fills.

    Attributes:
        name: for messages.
        centre: pixel (u, v) of the picture on which the optical axis falls.
        focal_length: in pixels per rad at the centre, to the right and down.
        fov: field of view in rad; what lies outside of it is not used.
        distortion: k1 to k4.
        yaw, pitch: azimuth and elevation of the optical axis, in rad.
        roll: angle in rad by which the lens's picture has to be turned clockwise to be upright.
        translation: position of the lens in the rig's frame (x forward, y left, z up), in m.

    Raises:
        ValueError: a value is impossible.
    """

    name: str
    centre: tuple[float, float]
    focal_length: tuple[float, float]
    fov: float
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (
            *self.centre, *self.focal_length, self.fov, *self.distortion,
            self.yaw, self.pitch, self.roll, *self.translation,
        )  # fmt: skip
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"the {self.name} lens has a value that is not finite")
        if min(self.focal_length) <= 0:
            raise ValueError(
                f"focal_length of the {self.name} lens is {_listed(self.focal_length)}; it must be "
                "above 0 pixels"
            )
        if not _NARROWEST <= self.fov <= _WIDEST:
            raise ValueError(
                f"field_of_view of the {self.name} lens is {math.degrees(self.fov):g} degrees; it must "
                f"lie between {math.degrees(_NARROWEST):g} and {math.degrees(_WIDEST):g}"
            )
        if abs(self.pitch) > math.pi / 2:
            raise ValueError(
                f"pitch of the {self.name} lens is {math.degrees(self.pitch):g} degrees; it must lie "
                "between -90 and 90"
            )
        theta = np.linspace(0, self.fov / 2, _RADIUS_POINTS)
        falling = theta[self._slope(theta) <= 0]
        if len(falling):
            raise ValueError(
                f"distortion of the {self.name} lens is {_listed(self.distortion)}: from "
                f"{math.degrees(falling[0]):.0f} degrees on, rays fall nearer to the centre instead of "
                f"farther, and its field_of_view reaches to {math.degrees(self.fov / 2):g} degrees"
            )

    @cached_property
    def rotation(self) -> sphere.Array:
        """Rotation (3, 3) from the lens's optical frame (x right, y down in its picture) to the rig's."""
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        return sphere.view_rotation(self.yaw, self.pitch) @ turn

    @property
    def axis(self) -> sphere.Array:
        """Unit vector (3,) along the optical axis, in the rig's frame."""
        return self.rotation[:, 2]

    @property
    def radii(self) -> tuple[float, float]:
        """Half of the width and of the height of the lens's circle, in pixels."""
        rim = float(self.radius(self.fov / 2))
        return self.focal_length[0] * rim, self.focal_length[1] * rim

    def radius(self, theta: Numbers) -> Numbers:
        """Distance from the centre at focal length 1 of rays at angles theta in rad; the type is kept."""
        k1, k2, k3, k4 = self.distortion
        if not any(self.distortion):
            return theta
        square = theta * theta
        return theta * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))

    def _slope(self, theta: ArrayLike) -> sphere.Array:
        square = np.square(np.asarray(theta, np.float64))
        k1, k2, k3, k4 = self.distortion
        return 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4)))

    def angle(self, radius: ArrayLike) -> sphere.Array:
        """The inverse of :meth:`radius`; NaN beyond the field of view."""
        distance = np.asarray(radius, np.float64)
        theta = np.minimum(distance, self.fov / 2)
        for _ in range(_NEWTON_STEPS):
            step = (self.radius(theta) - distance) / self._slope(theta)
            theta = (theta - step).clip(0, self.fov / 2)
        return np.where(distance <= self.radius(self.fov / 2) + 1e-9, theta, np.nan)

    def project(self, rays: ArrayLike) -> sphere.Array:
        """Rays (..., 3) in the lens's optical frame, of any length, to pixels (..., 2) of the picture.

        NaN outside of the field of view.
        """
        x, y, z = np.moveaxis(np.asarray(rays, np.float64), -1, 0)
        across = np.hypot(x, y)
        theta = np.arctan2(across, z)
        scale = self.radius(theta) / np.maximum(across, 1e-300)
        pixels = np.stack([x * scale, y * scale], -1) * self.focal_length + self.centre
        return np.where((theta <= self.fov / 2 + 1e-9)[..., None], pixels, np.nan)

    def unproject(self, pixels: ArrayLike) -> sphere.Array:
        """Pixels (..., 2) of the picture to unit rays (..., 3) in the lens's frame; NaN outside its circle."""
        offset = (np.asarray(pixels, np.float64) - self.centre) / self.focal_length
        distance = np.linalg.norm(offset, axis=-1)
        theta = self.angle(distance)
        scale = np.sin(theta) / np.maximum(distance, 1e-300)
        return np.concatenate([offset * scale[..., None], np.cos(theta)[..., None]], axis=-1)

    def to_pixels(self, directions: ArrayLike, distance: float) -> sphere.Array:
        """Directions (..., 3) from the rig's origin to pixels (..., 2); NaN outside of the field of view.

        The pixel is that of the point at ``distance`` in the direction, in m.
        """
        unit = np.asarray(directions, np.float64)
        unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
        return self.project((unit - np.array(self.translation) / distance) @ self.rotation)

    def to_directions(self, pixels: ArrayLike, distance: float) -> sphere.Array:
        """Pixels (..., 2) to unit vectors (..., 3) from the rig's origin; NaN outside of the lens's circle.

        The vector points to where the pixel's ray reaches ``distance``, in m.
        """
        rays = self.unproject(pixels) @ self.rotation.T
        offset = np.array(self.translation) / distance
        along = rays @ offset
        far = np.sqrt(along**2 - offset @ offset + 1) - along
        return np.asarray(offset + far[..., None] * rays)

    def scaled(self, across: float, down: float) -> Lens:
        """The same lens in a picture that is resized by two factors."""
        return replace(
            self,
            centre=(self.centre[0] * across, self.centre[1] * down),
            focal_length=(self.focal_length[0] * across, self.focal_length[1] * down),
        )


@dataclass(frozen=True)
class DualFisheye:
    """Two lenses in one picture.

    Attributes:
        lenses: the first lens and the second one.
        picture_size: width and height of the picture, in pixels.
        panorama_width: width of the panorama in pixels, which masks and pixels of prompts refer to; 0: that
            with the resolution of the lenses' centres.
        distance: in m. Views show things at this distance from the rig's origin without a step between the
            lenses; nearer and farther ones are off by their parallax, at most the distance of the lenses
            divided by the object's own distance, in rad. Without translations it has no effect.
        blend: width of the band along the lenses' border in which both are blended, in rad; at most the
            lenses' overlap.
        any_size: the values are those of a picture with this aspect ratio and any resolution.

    Raises:
        ValueError: a value is impossible; the message names it.
    """

    lenses: tuple[Lens, Lens]
    picture_size: tuple[int, int]
    panorama_width: int = 0
    distance: float = math.inf
    blend: float = BLEND
    any_size: bool = False

    def __post_init__(self) -> None:
        width, height = self.picture_size
        if min(width, height) < 1:
            raise ValueError(f"picture_size is {width}x{height}; it must be at least 1x1")
        if self.panorama_width and not (
            self.panorama_width % 2 == 0
            and _SMALLEST_PANORAMA <= self.panorama_width <= _LARGEST_PANORAMA
        ):
            raise ValueError(
                f"panorama_width is {self.panorama_width}; it must be even and lie between "
                f"{_SMALLEST_PANORAMA} and {_LARGEST_PANORAMA} pixels, or 0"
            )
        if not 0 <= self.blend <= math.pi / 2:
            raise ValueError(
                f"blend is {math.degrees(self.blend):g} degrees; it must lie between 0 and 90"
            )
        for lens in self.lenses:
            self._check_place(lens)
        one, other = self.lenses
        apart = np.subtract(one.centre, other.centre) / np.add(one.radii, other.radii)
        if np.linalg.norm(apart) < 1 - _BEYOND_PICTURE:
            raise ValueError(
                f"the circles of the two lenses overlap in the picture: their centres are "
                f"{_listed(one.centre)} and {_listed(other.centre)}, their radii {one.radii[0]:.0f} and "
                f"{other.radii[0]:.0f} pixels; correct centre, focal_length or field_of_view"
            )

    def _check_place(self, lens: Lens) -> None:
        """Checks that a lens's circle lies in the picture, and that its position is near the origin."""
        for name, middle, radius, size in zip(
            ("width", "height"), lens.centre, lens.radii, self.picture_size, strict=True
        ):
            beyond = max(radius - middle, middle + radius - size)
            if beyond > _BEYOND_PICTURE * radius:
                raise ValueError(
                    f"the circle of the {lens.name} lens, with the centre {_listed(lens.centre)} and a radius "
                    f"of {radius:.0f} pixels at {math.degrees(lens.fov / 2):g} degrees, extends {beyond:.0f} "
                    f"pixels beyond the picture's {name} of {size}; correct centre, focal_length or "
                    "field_of_view"
                )
        away = float(np.linalg.norm(lens.translation))
        if not away < _NEAREST * self.distance:
            raise ValueError(
                f"distance is {self.distance:g} m, and translation of the {lens.name} lens "
                f"{_listed(lens.translation)} m: the distance must be more than twice as large"
            )

    @property
    def resolution(self) -> float:
        """Resolution at the lenses' centres, in pixels per rad."""
        return max(max(lens.focal_length) for lens in self.lenses)

    @property
    def panorama_size(self) -> tuple[int, int]:
        """Width and height of the panorama, in pixels."""
        wanted = self.panorama_width or 2 * math.pi * self.resolution
        height = round(min(max(wanted, _SMALLEST_PANORAMA), _LARGEST_PANORAMA) / 2)
        return 2 * height, height

    @property
    def overlap(self) -> float:
        """Width of the narrowest part of the ring that both lenses see, in rad; below 0: of a gap."""
        one, other = self.lenses
        between = float(sphere.angle_between(one.axis, other.axis))
        return (one.fov + other.fov) / 2 + between - 2 * math.pi

    @property
    def parallax(self) -> float:
        """Largest angle in rad between a direction from the rig's origin and the same point's from a lens."""
        away = max(float(np.linalg.norm(lens.translation)) for lens in self.lenses)
        return math.asin(away / self.distance)

    def of_picture(self, size: tuple[int, int]) -> DualFisheye:
        """The same camera for a picture of a size.

        Raises:
            ValueError: the picture has another size, or for ``any_size`` another aspect ratio.
        """
        if size == self.picture_size:
            return self
        (width, height), (own_width, own_height) = size, self.picture_size
        if not self.any_size:
            raise ValueError(
                f"the picture is {width}x{height}, and the camera file is for {own_width}x{own_height}; "
                "set the driver to that size, or make a camera file for this one"
            )
        if width * own_height != height * own_width:
            raise ValueError(
                f"the picture is {width}x{height}; this camera's picture has an aspect ratio of "
                f"{own_width}:{own_height}"
            )
        return self.resized(size)

    def resized(self, size: tuple[int, int]) -> DualFisheye:
        """The same camera with its picture resized to (width, height)."""
        across, down = size[0] / self.picture_size[0], size[1] / self.picture_size[1]
        one, other = self.lenses
        lenses = one.scaled(across, down), other.scaled(across, down)
        return replace(self, lenses=lenses, picture_size=size)

    def to_pixels(self, directions: ArrayLike, lens: int) -> sphere.Array:
        """:meth:`Lens.to_pixels` of one of the lenses."""
        return self.lenses[lens].to_pixels(directions, self.distance)

    def to_directions(self, pixels: ArrayLike, lens: int) -> sphere.Array:
        """:meth:`Lens.to_directions` of one of the lenses."""
        return self.lenses[lens].to_directions(pixels, self.distance)


def _listed(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
