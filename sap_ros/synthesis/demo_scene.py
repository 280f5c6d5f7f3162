"""Renders the demo panorama with Blender: a room with plain objects, and their true masks.

    pip install -r requirements/blender.txt        # Python 3.11, in an environment of its own
    python -m sap_ros.synthesis.demo_scene --out sap_ros/data/demo

Writes ``panorama.jpg``, ``instances.png`` (uint8 ids, exact: Cycles' object-index pass) and
``objects.json`` (id, name, and a click at each object). The ball straight behind lies across the
seam, the lamp hangs near the upper pole.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import bpy
import cv2
import numpy as np

_EYE = (0.0, 0.0, 1.5)  # the camera, m above the floor


def _material(
    name: str, colour: tuple[float, float, float], roughness: float = 0.5, metallic: float = 0.0
) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*colour, 1)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    return material


def _planks(
    material: bpy.types.Material, colours: list[tuple[float, float, float]], scale: float
) -> bpy.types.Material:
    """Gives a material Blender's brick texture, in two colours with joints of a third."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    place, texture = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeTexBrick")
    links.new(place.outputs["Object"], texture.inputs["Vector"])
    texture.inputs["Scale"].default_value = scale
    texture.inputs["Mortar Size"].default_value = 0.01
    for name, value in zip(("Color1", "Color2", "Mortar"), colours, strict=True):
        texture.inputs[name].default_value = (*value, 1)
    links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return material


def _room() -> None:
    """Floor, four walls and a ceiling, 8 x 8 x 3.6 m, the camera in the middle; no instance."""
    wood = _planks(
        _material("floor", (1, 1, 1), 0.6),
        [(0.32, 0.2, 0.12), (0.42, 0.28, 0.17), (0.2, 0.12, 0.07)],
        scale=0.9,
    )
    plaster = _material("wall", (0.72, 0.7, 0.66), 0.9)
    blue = _material("blue wall", (0.45, 0.55, 0.62), 0.9)
    white = _material("ceiling", (0.85, 0.85, 0.83), 0.9)
    for place, turn, material in (
        ((0, 0, 0), (0, 0, 0), wood),
        ((0, 0, 3.6), (math.pi, 0, 0), white),
        ((4, 0, 1.8), (0, -math.pi / 2, 0), plaster),
        ((-4, 0, 1.8), (0, math.pi / 2, 0), plaster),
        ((0, 4, 1.8), (math.pi / 2, 0, 0), blue),
        ((0, -4, 1.8), (-math.pi / 2, 0, 0), blue),
    ):
        bpy.ops.mesh.primitive_plane_add(size=8, location=place, rotation=turn)
        bpy.context.object.data.materials.append(material)


def _objects() -> dict[int, str]:
    """The instances, with their ids as Blender's pass index; x forward, y left, as REP-103."""
    add = bpy.ops.mesh
    made: dict[int, str] = {}

    def keep(name: str, material: bpy.types.Material, smooth: bool = True) -> None:
        thing = bpy.context.object
        thing.name, thing.pass_index = name, len(made) + 1
        thing.data.materials.append(material)
        if smooth:
            bpy.ops.object.shade_smooth()
        made[thing.pass_index] = name

    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=0.55, location=(-2.4, 0.06, 0.55)
    )
    keep("red ball", _material("red", (0.6, 0.02, 0.02), 0.35))
    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=0.42, location=(0.45, -0.35, 3.0)
    )
    keep("lamp", _material("orange", (0.85, 0.3, 0.02), 0.5))
    add.primitive_cube_add(
        size=1, location=(2.6, -1.1, 0.45), rotation=(0, 0, 0.5), scale=(0.9, 0.9, 0.9)
    )
    keep("blue box", _material("blue", (0.02, 0.08, 0.45), 0.5), smooth=False)
    add.primitive_cylinder_add(vertices=64, radius=0.4, depth=1.7, location=(0.9, 2.5, 0.85))
    keep("yellow column", _material("yellow", (0.75, 0.5, 0.03), 0.5))
    add.primitive_cone_add(vertices=64, radius1=0.55, depth=1.3, location=(-0.6, -2.5, 0.65))
    keep("green cone", _material("green", (0.02, 0.3, 0.05), 0.6))
    add.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=1, location=(-1.8, 1.8, 1.5), scale=(0.45, 0.45, 0.3)
    )
    keep("violet balloon", _material("violet", (0.25, 0.03, 0.4), 0.4))
    return made


def _render(size: tuple[int, int], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The panorama (H, W, 3) uint8 BGR, and the object index of each pixel (H, W) uint8."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = True
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    camera = bpy.data.cameras.new("panorama")
    camera.type, camera.panorama_type = "PANO", "EQUIRECTANGULAR"
    # Blender's camera looks along -z with y up: turn it to look along x with z up.
    holder = bpy.data.objects.new("panorama", camera)
    holder.location, holder.rotation_euler = _EYE, (math.pi / 2, 0, -math.pi / 2)
    scene.collection.objects.link(holder)
    scene.camera = holder
    layer = scene.view_layers[0]
    layer.use_pass_object_index = True
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    with tempfile.TemporaryDirectory() as folder:
        output = nodes.new("CompositorNodeOutputFile")
        output.base_path = folder
        output.format.file_format, output.format.color_depth = "OPEN_EXR", "32"
        output.file_slots[0].path = "index"
        links.new(nodes["Render Layers"].outputs["IndexOB"], output.inputs[0])
        scene.render.image_settings.file_format = "PNG"
        scene.render.filepath = f"{folder}/colour.png"
        bpy.ops.render.render(write_still=True)
        colour = cv2.imread(f"{folder}/colour.png")
        index = bpy.data.images.load(str(next(Path(folder).glob("index*.exr"))))
        pixels = np.empty(4 * size[0] * size[1], np.float32)
        index.pixels.foreach_get(pixels)
    ids = pixels.reshape(size[1], size[0], 4)[::-1, :, 0]
    return colour, np.round(ids).astype(np.uint8)


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
    bpy.ops.wm.read_factory_settings(use_empty=True)
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.9, 0.95, 1, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.15
    _room()
    names = _objects()
    for place, power in (((2.5, 2.2, 3.3), 150), ((-2.2, -1.8, 3.3), 150)):
        bpy.ops.object.light_add(type="AREA", location=place)
        bpy.context.object.data.energy, bpy.context.object.data.size = power, 1.5
    panorama, instances = _render((arguments.width, arguments.width // 2), arguments.samples)
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(arguments.out / "panorama.jpg"), panorama, [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(arguments.out / "instances.png"), instances)
    objects = [
        {"id": i, "name": name, "click": _click(instances == i)} for i, name in names.items()
    ]
    (arguments.out / "objects.json").write_text(json.dumps(objects, indent=2) + "\n")


if __name__ == "__main__":
    main()
