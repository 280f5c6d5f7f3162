"""Random rooms and yards, rendered with Blender: labelled panoramas with exact masks.

The seed determines a scene: size, surfaces, light, objects on the floor, on the walls and on the ceiling, and
the position of the camera. Instances come from Cycles' object-index pass.
Needs ``bpy`` (requirements/blender.txt: Python 3.11, a separate environment).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from pathlib import Path

import bpy
from numpy.random import Generator, default_rng

from sap_ros.core.fisheye import DualFisheye
from sap_ros.synthesis.blender import (
    Colour,
    empty_scene,
    material,
    render,
    render_fisheye,
    textured,
)
from sap_ros.synthesis.dataset import DatasetWriter

_SHAPES = (
    "sphere",
    "cube",
    "cylinder",
    "cone",
    "torus",
    "monkey",
    "blob",
    "chair",
    "table",
    "lamp",
)
_OUTSIDE = ("sphere", "cube", "cylinder", "cone", "blob", "tree", "tree", "post", "chair")


def scene_writer(
    folder: Path, size: tuple[int, int], samples: int, camera: DualFisheye | None = None
) -> Callable[[int], None]:
    """A function that writes the labelled panorama of a seed, in :mod:`sap_ros.synthesis.dataset`'s format.

    With a camera, its picture of the scene is written too.
    """
    settings = {"kind": "scene", "size": list(size), "samples": samples}
    writer = DatasetWriter(folder, settings, camera)

    def write(seed: int) -> None:
        rng = default_rng(seed)
        names, eye, heading = (_room if rng.random() < 0.6 else _yard)(rng)
        panorama, instances = render(size, samples, eye, heading)
        fisheyes = render_fisheye(camera, samples, eye, heading) if camera else None
        writer.write(f"{seed:08d}", panorama, instances, names, fisheyes)

    return write


Placed = tuple[dict[int, str], tuple[float, float, float], float]


def _room(rng: Generator) -> Placed:
    """A room with furniture; returns names by pass index, the camera's position and its heading."""
    empty_scene((0.9, 0.95, 1.0), float(rng.uniform(0.05, 0.3)))
    half_x, half_y = (float(v) for v in rng.uniform(2.2, 5.5, 2))
    height = float(rng.uniform(2.4, 4.0))
    surfaces = [_surface(rng, pale=True) for _ in range(4)]
    for place, turn, surface in (
        ((0, 0, 0), (0, 0, 0), surfaces[0]),
        ((0, 0, height), (math.pi, 0, 0), surfaces[1]),
        ((half_x, 0, 0), (0, -math.pi / 2, 0), surfaces[2]),
        ((-half_x, 0, 0), (0, math.pi / 2, 0), surfaces[2]),
        ((0, half_y, 0), (math.pi / 2, 0, 0), surfaces[3]),
        ((0, -half_y, 0), (-math.pi / 2, 0, 0), surfaces[3]),
    ):
        bpy.ops.mesh.primitive_plane_add(size=14, location=place, rotation=turn)
        bpy.context.object.data.materials.append(surface)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.8, 0.8, 2) * (half_x, half_y)
        bpy.ops.object.light_add(type="AREA", location=(x, y, height - 0.1))
        lamp = bpy.context.object.data
        lamp.energy, lamp.size = float(rng.uniform(60, 250)), float(rng.uniform(0.4, 2))
        lamp.color = colorsys.hsv_to_rgb(
            float(rng.uniform(0.05, 0.6)), float(rng.uniform(0, 0.25)), 1
        )
    eye = _eye(rng, 0.5 * half_x, 0.5 * half_y, min(1.8, height - 0.4))
    reach = (half_x - 0.4, half_y - 0.4)
    names = _furnish(rng, _SHAPES, int(rng.integers(5, 13)), reach, eye)
    # Some objects hang on the walls or from the ceiling.
    for _ in range(int(rng.integers(0, 4))):
        index = len(names) + 1
        if rng.random() < 0.6:
            side = float(rng.choice([-1, 1]))
            at = (
                side * (half_x - 0.03),
                float(rng.uniform(-0.8, 0.8) * half_y),
                float(rng.uniform(1, 2)),
            )
            bpy.ops.mesh.primitive_cube_add(size=1, location=at)
            bpy.context.object.scale = (
                0.03,
                float(rng.uniform(0.3, 1.2)),
                float(rng.uniform(0.3, 0.9)),
            )
            names[index] = "picture"
        else:
            radius = float(rng.uniform(0.15, 0.4))
            x, y = rng.uniform(-0.7, 0.7, 2) * reach
            at = (float(x), float(y), height - radius)
            bpy.ops.mesh.primitive_uv_sphere_add(radius=radius, location=at)
            bpy.ops.object.shade_smooth()
            names[index] = "ball"
        bpy.context.object.pass_index = index
        bpy.context.object.data.materials.append(_surface(rng))
    return names, eye, float(rng.uniform(0, 2 * math.pi))


def _yard(rng: Generator) -> Placed:
    """A yard under the sky; returns the same as :func:`_room`."""
    empty_scene((0.6, 0.75, 1.0), float(rng.uniform(0.5, 1.0)))
    bpy.ops.mesh.primitive_plane_add(size=120)
    bpy.context.object.data.materials.append(_surface(rng, pale=True))
    bpy.ops.object.light_add(type="SUN", location=(0, 0, 10))
    sun = bpy.context.object
    sun.data.energy, sun.data.angle = float(rng.uniform(1.5, 4)), 0.02
    sun.rotation_euler = (float(rng.uniform(0.2, 1.1)), 0, float(rng.uniform(0, 2 * math.pi)))
    for _ in range(int(rng.integers(2, 6))):  # houses around the yard, which are background
        angle, away = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(14, 30))
        bpy.ops.mesh.primitive_cube_add(
            size=1, location=(away * math.cos(angle), away * math.sin(angle), 3)
        )
        bpy.context.object.scale = tuple(float(v) for v in rng.uniform((4, 4, 5), (12, 12, 10)))
        bpy.context.object.data.materials.append(_surface(rng, pale=True))
    eye = _eye(rng, 2, 2, 2.0)
    names = _furnish(rng, _OUTSIDE, int(rng.integers(6, 14)), (8.0, 8.0), eye)
    return names, eye, float(rng.uniform(0, 2 * math.pi))


def _eye(rng: Generator, x: float, y: float, highest: float) -> tuple[float, float, float]:
    return (
        float(rng.uniform(-x, x)), float(rng.uniform(-y, y)), float(rng.uniform(0.6, highest)),
    )  # fmt: skip


def _furnish(
    rng: Generator,
    shapes: tuple[str, ...],
    count: int,
    reach: tuple[float, float],
    eye: tuple[float, float, float],
) -> dict[int, str]:
    """Puts objects on the floor, apart from each other and from the camera; returns names by pass index."""
    names: dict[int, str] = {}
    taken = [(eye[0], eye[1], 0.45)]
    for _ in range(20 * count):
        if len(names) == count:
            break
        size = float(rng.uniform(0.3, 1.3))
        x, y = (float(v) for v in rng.uniform(-1, 1, 2) * reach)
        if any(math.hypot(x - a, y - b) < 0.6 * size + r for a, b, r in taken):
            continue
        taken.append((x, y, 0.6 * size))
        shape, index = str(rng.choice(shapes)), len(names) + 1
        for part in _shape(rng, shape, size, (x, y)):
            part.pass_index = index
        names[index] = shape
    return names


def _shape(
    rng: Generator, shape: str, size: float, at: tuple[float, float]
) -> list[bpy.types.Object]:
    """Makes an object that stands on the floor at ``at``; returns its parts."""
    mesh, (x, y) = bpy.ops.mesh, at
    turn = (0, 0, float(rng.uniform(0, 2 * math.pi)))
    surface, parts = _surface(rng), []

    def keep(smooth: bool = True, other: bpy.types.Material | None = None) -> bpy.types.Object:
        part = bpy.context.object
        part.data.materials.append(other or surface)
        if smooth:
            bpy.ops.object.shade_smooth()
        parts.append(part)
        return part

    def box(offset: tuple[float, float, float], extent: tuple[float, float, float]) -> None:
        cos, sin = math.cos(turn[2]), math.sin(turn[2])
        u, v, z = offset
        mesh.primitive_cube_add(
            size=1, location=(x + cos * u - sin * v, y + sin * u + cos * v, z), rotation=turn
        )
        bpy.context.object.scale = extent
        keep(smooth=False)

    half = size / 2
    if shape == "sphere":
        mesh.primitive_uv_sphere_add(radius=half, segments=48, ring_count=24, location=(x, y, half))
        keep()
    elif shape == "cube":
        mesh.primitive_cube_add(size=1, location=(x, y, half), rotation=turn)
        bpy.context.object.scale = (size, float(rng.uniform(0.3, 1)) * size, size)
        keep(smooth=False)
    elif shape in ("cylinder", "post"):
        tall = size * float(rng.uniform(1, 2)) if shape == "cylinder" else float(rng.uniform(2, 4))
        radius = half * 0.6 if shape == "cylinder" else 0.08
        mesh.primitive_cylinder_add(radius=radius, depth=tall, location=(x, y, tall / 2))
        keep()
    elif shape == "cone":
        mesh.primitive_cone_add(radius1=half, depth=1.5 * size, location=(x, y, 0.75 * size))
        keep()
    elif shape == "torus":
        mesh.primitive_torus_add(
            major_radius=half, minor_radius=half * 0.35, location=(x, y, half * 1.35),
            rotation=(math.pi / 2, 0, turn[2]),
        )  # fmt: skip
        keep()
    elif shape == "monkey":
        mesh.primitive_monkey_add(size=size, location=(x, y, half), rotation=turn)
        keep()
    elif shape == "blob":
        mesh.primitive_ico_sphere_add(subdivisions=5, radius=half, location=(x, y, half))
        blob = keep()
        texture = bpy.data.textures.new("blob", "CLOUDS")
        texture.noise_scale = float(rng.uniform(0.3, 0.9)) * size
        displace = blob.modifiers.new("displace", "DISPLACE")
        displace.texture, displace.strength = texture, 0.8 * size
        displace.texture_coords = "GLOBAL"
    elif shape == "chair":
        seat, wide = float(rng.uniform(0.4, 0.5)), 0.42
        box((0, 0, seat), (wide, wide, 0.05))
        box((-wide / 2, 0, seat + 0.28), (0.05, wide, 0.5))
        for u in (-0.18, 0.18):
            for v in (-0.18, 0.18):
                box((u, v, seat / 2), (0.04, 0.04, seat))
    elif shape == "table":
        wide, deep, top = size * 1.1, size * 0.7, float(rng.uniform(0.6, 0.8))
        box((0, 0, top), (wide, deep, 0.05))
        for u in (-0.45, 0.45):
            for v in (-0.42, 0.42):
                box((u * wide, v * deep, top / 2), (0.06, 0.06, top))
    elif shape == "lamp":
        tall = float(rng.uniform(1.1, 1.7))
        mesh.primitive_cylinder_add(radius=0.02, depth=tall, location=(x, y, tall / 2))
        keep()
        mesh.primitive_cone_add(radius1=0.25, radius2=0.12, depth=0.3, location=(x, y, tall + 0.1))
        keep()
    elif shape == "tree":
        tall = float(rng.uniform(1.5, 3.5))
        mesh.primitive_cylinder_add(radius=0.07 * tall, depth=tall, location=(x, y, tall / 2))
        keep()
        leaves = material("leaves", _colour(rng, 0.2, 0.4, 0.5), 0.9)
        for _ in range(int(rng.integers(3, 7))):
            u, v, z = rng.normal(0, 0.25 * tall, 3)
            mesh.primitive_ico_sphere_add(
                subdivisions=3, radius=float(rng.uniform(0.2, 0.4)) * tall,
                location=(x + u, y + v, tall + abs(z)),
            )  # fmt: skip
            keep(other=leaves)
    return parts


def _surface(rng: Generator, pale: bool = False) -> bpy.types.Material:
    """A random material, plain or textured."""
    shade = (0.0, 1.0, 0.25) if pale else (0.0, 1.0, 0.9)
    colours = [_colour(rng, *shade) for _ in range(3)]
    made = material(
        "surface", colours[0], float(rng.uniform(0.2, 0.95)), float(rng.random() < 0.12)
    )
    kind = str(rng.choice(["plain", "plain", "brick", "checker", "noise"]))
    if kind != "plain":
        textured(made, kind, colours, float(rng.uniform(0.8, 6)))
    return made


def _colour(rng: Generator, low: float, high: float, saturation: float) -> Colour:
    """A random colour with a hue from ``low`` to ``high`` and at most the given saturation."""
    red, green, blue = colorsys.hsv_to_rgb(
        float(rng.uniform(low, high)),
        float(rng.uniform(0, saturation)),
        float(rng.uniform(0.1, 0.85)),
    )
    return red, green, blue
