"""Renders the demo panorama with Blender: a room with plain objects, and their true masks.

    pip install -r requirements/blender.txt        # Python 3.11, in a separate environment
    python -m sap_ros.synthesis.demo_scene --out sap_ros/data/demo

Writes ``panorama.jpg``, ``instances.png`` (uint8 ids, exact: Cycles' object-index pass) and
``objects.json`` (id, name, and a click on each object). The ball behind the camera lies across the seam; the
lamp hangs near the upper pole.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import bpy
import cv2
import numpy as np

from sap_ros.synthesis.blender import empty_scene, material, render, textured

_EYE = (0.0, 0.0, 1.5)  # the camera, m above the floor


def _room() -> None:
    """Floor, four walls and a ceiling, 8 x 8 x 3.6 m, the camera in the middle; no instance."""
    wood = textured(
        material("floor", (1, 1, 1), 0.6),
        "brick",
        [(0.32, 0.2, 0.12), (0.42, 0.28, 0.17), (0.2, 0.12, 0.07)],
        scale=0.9,
    )
    plaster = material("wall", (0.72, 0.7, 0.66), 0.9)
    blue = material("blue wall", (0.45, 0.55, 0.62), 0.9)
    white = material("ceiling", (0.85, 0.85, 0.83), 0.9)
    for place, turn, surface in (
        ((0, 0, 0), (0, 0, 0), wood),
        ((0, 0, 3.6), (math.pi, 0, 0), white),
        ((4, 0, 1.8), (0, -math.pi / 2, 0), plaster),
        ((-4, 0, 1.8), (0, math.pi / 2, 0), plaster),
        ((0, 4, 1.8), (math.pi / 2, 0, 0), blue),
        ((0, -4, 1.8), (-math.pi / 2, 0, 0), blue),
    ):
        bpy.ops.mesh.primitive_plane_add(size=8, location=place, rotation=turn)
        bpy.context.object.data.materials.append(surface)


def _objects() -> dict[int, str]:
    """The instances, with their ids as Blender's pass index; x forward, y left, as REP-103."""
    add = bpy.ops.mesh
    made: dict[int, str] = {}

    def keep(name: str, surface: bpy.types.Material, smooth: bool = True) -> None:
        thing = bpy.context.object
        thing.name, thing.pass_index = name, len(made) + 1
        thing.data.materials.append(surface)
        if smooth:
            bpy.ops.object.shade_smooth()
        made[thing.pass_index] = name

    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=0.55, location=(-2.4, 0.06, 0.55)
    )
    keep("red ball", material("red", (0.6, 0.02, 0.02), 0.35))
    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=0.42, location=(0.45, -0.35, 3.0)
    )
    keep("lamp", material("orange", (0.85, 0.3, 0.02), 0.5))
    add.primitive_cube_add(
        size=1, location=(2.6, -1.1, 0.45), rotation=(0, 0, 0.5), scale=(0.9, 0.9, 0.9)
    )
    keep("blue box", material("blue", (0.02, 0.08, 0.45), 0.5), smooth=False)
    add.primitive_cylinder_add(vertices=64, radius=0.4, depth=1.7, location=(0.9, 2.5, 0.85))
    keep("yellow column", material("yellow", (0.75, 0.5, 0.03), 0.5))
    add.primitive_cone_add(vertices=64, radius1=0.55, depth=1.3, location=(-0.6, -2.5, 0.65))
    keep("green cone", material("green", (0.02, 0.3, 0.05), 0.6))
    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=1, location=(-1.8, 1.8, 1.5), scale=(0.45, 0.45, 0.3)
    )
    keep("violet balloon", material("violet", (0.25, 0.03, 0.4), 0.4))
    return made


def _click(mask: np.ndarray) -> list[float]:
    """A pixel (u, v) well inside a mask, which may lie across the seam."""
    for shift in (0, mask.shape[1] // 2):
        image = np.roll(mask, shift, axis=1)
        if not (image[:, 0].any() and image[:, -1].any()):
            break
    distance = cv2.distanceTransform(image.astype(np.uint8), cv2.DIST_L2, 5)
    v, u = np.unravel_index(distance.argmax(), distance.shape)
    return [float((u - shift) % mask.shape[1]) + 0.5, float(v) + 0.5]


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the demo panorama.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=32)
    arguments = parser.parse_args()
    empty_scene((0.9, 0.95, 1), 0.15)
    _room()
    names = _objects()
    for place, power in (((2.5, 2.2, 3.3), 150), ((-2.2, -1.8, 3.3), 150)):
        bpy.ops.object.light_add(type="AREA", location=place)
        bpy.context.object.data.energy, bpy.context.object.data.size = power, 1.5
    panorama, instances = render((arguments.width, arguments.width // 2), arguments.samples, _EYE)
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(arguments.out / "panorama.jpg"), panorama, [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(arguments.out / "instances.png"), instances.astype(np.uint8))
    objects = [
        {"id": i, "name": name, "click": _click(instances == i)} for i, name in names.items()
    ]
    (arguments.out / "objects.json").write_text(json.dumps(objects, indent=2) + "\n")


if __name__ == "__main__":
    main()
