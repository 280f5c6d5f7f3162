"""A panoramic video with true masks: a robot drives through a room with moving objects.

Rays are traced analytically, so no renderer is needed and masks are exact. The live demo, the tracking tests
and the benchmarks use it. Pillars can hide the objects for a while, and objects can have a twin that looks the
same, for the evaluation of tracking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sap_ros.camera_files import write_camera
from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye
from sap_ros.files import write_image
from sap_ros.places import make_folder

_ROOM = np.array([4.5, 4.0, 1.9])  # half its length, width and height, m; the floor is at -1.9
_EYE = -0.4  # height of the camera above the room's centre, in m
_LIGHT = np.array([1.0, 0.8, 1.6])
_COLOURS = {
    "red": (200, 45, 40),
    "orange": (230, 130, 30),
    "yellow": (225, 200, 60),
    "green": (50, 140, 60),
    "blue": (45, 75, 190),
    "violet": (130, 60, 160),
}

# Pillars: their colour, their distance from the room's middle in m (the camera's circle has 0.7), and half of
# their width relative to that of the object that is hidden, as both are seen.
_PILLAR = (125, 120, 112)
_PILLAR_DISTANCE = 1.5
_PILLAR_WIDTH = 1.1

# A pillar hides its object at a time between these, in s, for a time between those; and this many places are
# tried for it.
_HIDDEN_AT = (3.0, 15.0)
_HIDDEN_FOR = (1.0, 4.0)
_PLACES = 500

# An object of which less than this share of its width is visible counts as hidden.
_SHOWN = 0.25

# Share of an object's width that no pillar hides at the start, when it is prompted.
_START_SHOWN = 0.5

# With pillars: half of the way that an object moves to and fro, in m, and its size relative to that without them.
_WALK = 0.8
_SLIM = np.array([0.7, 0.7, 1.0])

# How far round the room a twin stands from its object, least and most, in rad.
_TWIN_AWAY = (np.radians(30), np.radians(60))


@dataclass(frozen=True)
class Solid:
    """An object of the scene.

    Attributes:
        name: its name.
        kind: its shape.
        home: (3,) the centre of its motion, in m, in the room's frame.
        half: (3,) half of its extent along the axes, in m.
        colour: RGB.
        swing: (3,) amplitude of its oscillation about ``home``, in m.
        period: period of the oscillation, in s.
    """

    name: str
    kind: Literal["ellipsoid", "box"]
    home: np.ndarray
    half: np.ndarray
    colour: tuple[int, int, int]
    swing: np.ndarray
    period: float

    def centre(self, time: float) -> np.ndarray:
        """Its position (3,) at a time in s."""
        return np.asarray(self.home + self.swing * np.sin(2 * np.pi * time / self.period))


class MovingScene:
    """A room with six objects, in which a robot drives in a circle.

    Args:
        seed: seed of all random choices.
        occluders: number of pillars from the floor to the ceiling. Each hides one object for 1 to 4 s, 3 to 15 s
            after the start, and now and then what else is behind it; at the start at most half of any object.
            Objects are then slimmer, and move by 0.8 m to either side.
        twins: the objects are three pairs of the same shape, size and colour: 1 and 4, 2 and 5, 3 and 6. The
            two of a pair stand 30 to 60 degrees apart, seen from the room's middle, and move on their own.
        tilt: rotation (3, 3) of the robot on uneven ground at a time in s, from its tilted axes to level ones
            with its heading; None: the ground is level.

    Instance ids are 1 to 6, in the order of ``solids``; pillars belong to the background.

    Raises:
        ValueError: the number of pillars is negative, or there is no place for so many.
    """

    def __init__(
        self,
        seed: int = 0,
        occluders: int = 0,
        twins: bool = False,
        tilt: Callable[[float], np.ndarray] | None = None,
    ) -> None:
        self._tilt = tilt
        if occluders < 0:
            raise ValueError(f"the number of occluders is {occluders}; it must not be negative")
        rng = np.random.default_rng(seed)
        around = rng.uniform(0, 2 * np.pi) + np.arange(6) * np.pi / 3
        boxes = rng.permutation(6) < 3
        self.solids = tuple(
            self._solid(rng, name, "box" if box else "ellipsoid", float(azimuth))
            for name, box, azimuth in zip(_COLOURS, boxes, around, strict=True)
        )
        self._phase = rng.uniform(0, 2 * np.pi, 8)
        self._start = float(rng.uniform(0, 2 * np.pi))
        # Pale colours of the walls across x, the walls across y, and the ceiling.
        self._walls = (rng.uniform(140, 215, (3, 1)) + rng.uniform(-18, 18, (3, 3))).astype(
            np.float32
        )
        if twins:
            self.solids = _paired(rng, self.solids)
        if occluders:
            self.solids = tuple(_walking(solid) for solid in self.solids)
        self.pillars = tuple(self._pillar(rng) for _ in range(occluders))

    def _pillar(self, rng: np.random.Generator) -> Solid:
        """A pillar that hides one object for a time."""
        for _ in range(_PLACES):
            time = rng.uniform(*_HIDDEN_AT)
            solid = self.solids[rng.integers(len(self.solids))]
            eye, to = self.pose(time)[0][:2], solid.centre(time)[:2]
            away = float(np.linalg.norm(to - eye))
            along = (to - eye) / away
            inward = eye @ along
            distance = -inward + np.sqrt(inward**2 - eye @ eye + _PILLAR_DISTANCE**2)
            half = _PILLAR_WIDTH * np.hypot(*solid.half[:2]) * distance / away
            # Its centre is at the camera's height, so that all of it lies in front of the camera.
            home, extent = (
                np.append(eye + distance * along, _EYE),
                np.array([half, half, 2 * _ROOM[2]]),
            )
            pillar = Solid("pillar", "box", home, extent, _PILLAR, np.zeros(3), 1.0)
            clear = all(self._shown(pillar, other, 0.0) >= _START_SHOWN for other in self.solids)
            times = np.arange(time - _HIDDEN_FOR[1], time + _HIDDEN_FOR[1], 0.1)
            hidden = 0.1 * sum(self._shown(pillar, solid, float(t)) < _SHOWN for t in times)
            if clear and _HIDDEN_FOR[0] <= hidden <= _HIDDEN_FOR[1]:
                return pillar
        raise ValueError("no place was found for a pillar; give fewer occluders, or another seed")

    def _shown(self, pillar: Solid, solid: Solid, time: float) -> float:
        """Share of a solid's width that a pillar leaves visible at a time in s, at least 0 and at most 1."""
        eye = self.pose(time)[0][:2]
        towards = [each.centre(time)[:2] - eye for each in (pillar, solid)]
        azimuths = [np.arctan2(y, x) for x, y in towards]
        one, other = (
            np.arctan(np.hypot(*each.half[:2]) / np.linalg.norm(to))
            for each, to in zip((pillar, solid), towards, strict=True)
        )
        apart = abs(np.mod(azimuths[1] - azimuths[0] + np.pi, 2 * np.pi) - np.pi)
        return float(np.clip((apart + other - one) / (2 * other), 0, 1))

    @staticmethod
    def _solid(
        rng: np.random.Generator, name: str, kind: Literal["ellipsoid", "box"], azimuth: float
    ) -> Solid:
        half = rng.uniform(0.3, 0.6, 3)
        distance = rng.uniform(2.0, 3.0)
        height = rng.uniform(-_ROOM[2] + half[2], 1.2)
        home = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])
        swing = rng.normal(size=3) * [0.3, 0.3, 0.12]
        swing[2] = np.clip(swing[2], -0.2, 0.2)
        return Solid(name, kind, home, half, _COLOURS[name], swing, float(rng.uniform(6, 12)))

    def pose(self, time: float) -> tuple[np.ndarray, float]:
        """Position (3,) of the camera at a time in s, in m in the room's frame, and its heading in rad."""
        angle = self._start + 2 * np.pi * time / 30
        position = np.array([0.7 * np.cos(angle), 0.7 * np.sin(angle), _EYE])
        return position, float(0.6 * np.sin(2 * np.pi * time / 20))

    def rotation(self, time: float) -> np.ndarray:
        """Rotation (3, 3) from the camera's axes to the room's at a time in s."""
        heading = self.pose(time)[1]
        cos, sin = np.cos(heading), np.sin(heading)
        level = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return level if self._tilt is None else level @ self._tilt(time)

    def render(self, time: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The panorama at a time in s: (H, W, 3) uint8 RGB, and its instances (H, W) uint8."""
        u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
        rays = sphere.pixel_to_direction(np.stack([u, v], -1), size).reshape(-1, 3)
        _, ids, colour = self._trace(rays, time)
        shape = size[1], size[0]
        return colour.reshape(*shape, 3), ids.reshape(shape)

    def depth(self, time: float, size: tuple[int, int]) -> np.ndarray:
        """The distances (H, W) from the camera along the panorama's pixels, in m."""
        u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
        rays = sphere.pixel_to_direction(np.stack([u, v], -1), size).reshape(-1, 3)
        return self._trace(rays, time)[0].reshape(size[1], size[0])

    def render_fisheye(self, time: float, camera: DualFisheye) -> np.ndarray:
        """The picture of a camera with two lenses at a time in s, (H, W, 3) uint8 RGB.

        The rig is where :meth:`render` has its camera. What no lens sees is black.
        """
        width, height = camera.picture_size
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([u, v], -1)
        picture = np.zeros((height, width, 3), np.uint8)
        for lens in camera.lenses:
            rays = lens.unproject(pixels)
            seen = np.isfinite(rays[..., 0])
            _, _, colour = self._trace(rays[seen] @ lens.rotation.T, time, lens.translation)
            picture[seen] = colour
        return picture

    def scan(self, time: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Simulates a lidar at the camera: points (N, 3) in m in the camera's frame, instance ids (N,)."""
        rows = 32
        azimuth = np.linspace(-np.pi, np.pi, count // rows, endpoint=False)
        elevation = np.radians(np.linspace(-35, 35, rows))
        rays = sphere.angles_to_direction(*np.meshgrid(azimuth, elevation)).reshape(-1, 3)
        depth, ids, _ = self._trace(rays, time)
        return np.asarray(rays * depth[:, None]), ids

    def _trace(
        self, rays: np.ndarray, time: float, start: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth (N,), id (N,) and RGB (N, 3) along unit vectors (N, 3) in the camera's frame.

        ``start`` is where the rays start, in m in that frame.
        """
        turn, eye = self.rotation(time), self.pose(time)[0]
        rays = (rays @ turn.T).astype(np.float32)
        eye = (eye + turn @ np.array(start)).astype(np.float32)
        depth, wall = self._room(rays, eye)
        colour = self._room_colour(eye + rays * depth[:, None], wall)
        ids = np.zeros(len(rays), np.uint8)
        for i, solid in [*enumerate(self.solids, 1), *((0, pillar) for pillar in self.pillars)]:
            centre = solid.centre(time).astype(np.float32)
            near = rays @ (centre - eye) > 0
            at, normal = _hit(solid, rays[near], eye - centre)
            index = np.flatnonzero(near)[np.isfinite(at) & (at < depth[near])]
            kept = np.isfinite(at) & (at < depth[near])
            depth[index], ids[index] = at[kept], i
            spot = eye + rays[index] * at[kept][:, None]
            towards = _LIGHT - spot
            towards /= np.linalg.norm(towards, axis=1, keepdims=True)
            light = 0.5 + 0.5 * (normal[kept] * towards).sum(1).clip(min=0)
            colour[index] = np.array(solid.colour, np.float32) * light[:, None]
        return depth, ids, colour.clip(0, 255).astype(np.uint8)

    def _room(self, rays: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the walls (N,), and the axis that each wall is perpendicular to (N,)."""
        with np.errstate(divide="ignore"):
            away = (np.copysign(_ROOM, rays) - eye).astype(np.float32) / rays
        away = np.where(np.abs(rays) < 1e-7, np.inf, away)
        wall = away.argmin(1)
        return away[np.arange(len(rays)), wall], wall

    def _room_colour(self, at: np.ndarray, wall: np.ndarray) -> np.ndarray:
        """RGB (N, 3) float32 of points on the walls: planks on the floor, mottled paint elsewhere."""
        a, b, c = at.T
        p = self._phase
        mottled = (
            np.sin(2.1 * a + p[0] + 1.5 * np.sin(1.3 * b + p[1]))
            + np.sin(2.7 * b + p[2] + 1.5 * np.sin(1.9 * c + p[3]))
            + 0.5 * np.sin(9 * c + p[4] + 2 * np.sin(5 * a + 4 * b + p[5]))
        )
        colour = self._walls[wall] * (1 + 0.06 * mottled[:, None])
        floor = (wall == 2) & (c < 0)
        plank = np.floor(a[floor] * 4)
        shift = np.mod(plank * 0.37, 1)
        board = np.floor(b[floor] * 0.8 + shift)
        tone = 0.8 + 0.2 * np.sin(plank * 12.9898 + board * 78.233)
        joint = (np.mod(a[floor] * 4, 1) < 0.05) | (np.mod(b[floor] * 0.8 + shift, 1) < 0.01)
        wood = np.array([150, 105, 70], np.float32) * tone[:, None]
        colour[floor] = np.where(joint[:, None], wood * 0.5, wood)
        return np.asarray(colour, np.float32)


def _paired(rng: np.random.Generator, solids: tuple[Solid, ...]) -> tuple[Solid, ...]:
    """The first half of the solids, spread round the room, and a twin beside each of them."""
    count = len(solids) // 2
    start, paired = rng.uniform(0, 2 * np.pi), []
    beside = rng.uniform(*_TWIN_AWAY, count) * rng.choice([-1, 1])
    for i, solid in enumerate(solids):
        one = solids[i % count]
        azimuth = start + 2 * np.pi * (i % count) / count + (beside[i % count] if i >= count else 0)
        distance = np.linalg.norm(solid.home[:2])
        height = max(solid.home[2], one.half[2] - _ROOM[2])
        home = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])
        name = one.name if i < count else f"{one.name} twin"
        paired.append(
            replace(solid, name=name, kind=one.kind, home=home, half=one.half, colour=one.colour)
        )
    return tuple(paired)


def _walking(solid: Solid) -> Solid:
    """A slimmer solid that moves to and fro across the line from the room's middle."""
    x, y = solid.home[:2]
    across = np.array([-y, x, 0]) / np.hypot(x, y)
    return replace(solid, half=solid.half * _SLIM, swing=_WALK * across + [0, 0, solid.swing[2]])


def _hit(solid: Solid, rays: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,), inf where missed, and normal (N, 3) of a solid at the origin."""
    half = solid.half.astype(np.float32)
    if solid.kind == "ellipsoid":
        o, d = eye / half, rays / half
        a, b, c = (d * d).sum(1), d @ o, float(o @ o) - 1
        root = b * b - a * c
        at = np.where(root > 0, (-b - np.sqrt(root.clip(min=0))) / a, np.inf)
        with np.errstate(invalid="ignore"):
            normal = (eye + rays * at[:, None]) / half**2
    else:
        with np.errstate(divide="ignore"):
            one, other = (-half - eye) / rays, (half - eye) / rays
        enter, leave = np.minimum(one, other), np.maximum(one, other)
        first = enter.max(1)
        at = np.where((first < leave.min(1)) & (first > 0), first, np.inf)
        normal = np.zeros_like(rays)
        face = enter.argmax(1)
        rows = np.arange(len(rays))
        normal[rows, face] = -np.sign(rays[rows, face])
    with np.errstate(invalid="ignore"):
        return at, normal / np.linalg.norm(normal, axis=1, keepdims=True)


def video_writer(
    folder: Path,
    size: tuple[int, int],
    frames: int,
    rate: float,
    occluders: int = 0,
    twins: bool = False,
    camera: DualFisheye | None = None,
) -> Callable[[int], None]:
    """A function that writes the labelled video of a seed, in DAVIS' layout (JPEGImages/VIDEO/, Annotations/VIDEO/).

    With a camera, its pictures are written too, to Fisheyes/VIDEO/, and the camera to camera.yaml. Existing
    frames are kept.

    Args:
        folder: the data set.
        size: (width, height) of a frame.
        frames: number of frames per video.
        rate: frames per second.
        occluders, twins: see :class:`MovingScene`.
        camera: a camera with two fisheye lenses in place of the panoramas' camera.
    """
    if camera:
        make_folder(folder)
        write_camera(folder / "camera.yaml", camera)

    def write(seed: int) -> None:
        scene = MovingScene(seed, occluders, twins)
        pictures, masks = (folder / part / f"{seed:08d}" for part in ("JPEGImages", "Annotations"))
        fisheyes = folder / "Fisheyes" / f"{seed:08d}"
        for path in (pictures, masks, *([fisheyes] if camera else [])):
            make_folder(path)
        for k in range(frames):
            picture = pictures / f"{k:05d}.jpg"
            if picture.exists():
                continue
            image, labels = scene.render(k / rate, size)
            if camera:
                write_image(fisheyes / f"{k:05d}.png", scene.render_fisheye(k / rate, camera))
            write_image(masks / f"{k:05d}.png", labels.astype(np.uint8))
            write_image(picture, image)

    return write
