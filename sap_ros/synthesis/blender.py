"""Common parts of the Blender scenes: materials, the panoramic render with its instances, and fisheyes.

Needs ``bpy`` (requirements/blender.txt: Python 3.11, a separate environment).
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import bpy
import cv2
import mathutils
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye

# Lenses are rendered beyond the border of their circle by this, in rad, for interpolation.
_RIM = 0.03

Colour = tuple[float, float, float]


def empty_scene(sky: Colour, strength: float) -> None:
    """Removes everything from the scene; leaves a background of one colour."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*sky, 1)
    background.inputs["Strength"].default_value = strength


def material(
    name: str, colour: Colour, roughness: float = 0.5, metallic: float = 0.0
) -> bpy.types.Material:
    """A plain material."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*colour, 1)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    return made


def textured(
    made: bpy.types.Material, kind: str, colours: list[Colour], scale: float
) -> bpy.types.Material:
    """Adds one of Blender's procedural textures to a material.

    Args:
        made: the material.
        kind: ``brick`` (two colours, and a third for the mortar), ``checker`` or ``noise`` (two).
        colours: see ``kind``.
        scale: scale of the texture.
    """
    nodes, links = made.node_tree.nodes, made.node_tree.links
    place = nodes.new("ShaderNodeTexCoord")
    texture = nodes.new(
        {
            "brick": "ShaderNodeTexBrick",
            "checker": "ShaderNodeTexChecker",
            "noise": "ShaderNodeTexNoise",
        }[kind]
    )
    links.new(place.outputs["Object"], texture.inputs["Vector"])
    texture.inputs["Scale"].default_value = scale
    out = texture.outputs["Color"]
    if kind == "noise":
        ramp = nodes.new("ShaderNodeValToRGB")
        ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.35, 0.65
        for element, value in zip(ramp.color_ramp.elements, colours, strict=False):
            element.color = (*value, 1)
        links.new(texture.outputs["Fac"], ramp.inputs["Fac"])
        out = ramp.outputs["Color"]
    else:
        names = ("Color1", "Color2", "Mortar") if kind == "brick" else ("Color1", "Color2")
        for name, value in zip(names, colours, strict=False):
            texture.inputs[name].default_value = (*value, 1)
        if kind == "brick":
            texture.inputs["Mortar Size"].default_value = 0.01
    links.new(out, nodes["Principled BSDF"].inputs["Base Color"])
    return made


def render(
    size: tuple[int, int], samples: int, eye: tuple[float, float, float], heading: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the scene with Cycles' equirectangular camera.

    Args:
        size: (width, height).
        samples: samples per pixel; the picture is denoised.
        eye: position of the camera, in m.
        heading: direction of the panorama's middle column, in rad from the x axis.

    Returns:
        The panorama (H, W, 3) uint8 BGR, and the exact pass index of the object in each pixel, (H, W)
        uint16, 0 for none.
    """
    camera = _camera(size, eye, _rig_rotation(heading) @ sphere.view_rotation(0, 0))
    camera.panorama_type = "EQUIRECTANGULAR"
    scene = bpy.context.scene
    return _colours(scene, samples), _indices(scene, size)


def render_fisheye(
    rig: DualFisheye, samples: int, eye: tuple[float, float, float], heading: float = 0.0
) -> np.ndarray:
    """Renders the picture of a camera with two lenses with Cycles' equidistant fisheye camera.

    Args:
        rig: the camera; its distortion is applied by interpolation.
        samples: see :func:`render`.
        eye: position of the rig's origin, in m.
        heading: direction of the rig's x axis, in rad from the x axis.

    Returns:
        The picture (H, W, 3) uint8 BGR; black outside of the lenses' circles.
    """
    width, height = rig.picture_size
    v, u = np.mgrid[:height, :width] + 0.5
    picture = np.zeros((height, width, 3), np.uint8)
    turn = _rig_rotation(heading)
    for lens in rig.lenses:
        rays = lens.unproject(np.stack([u, v], -1))
        seen = np.isfinite(rays[..., 0])
        theta = np.arccos(rays[..., 2].clip(-1, 1))
        focal = max(lens.focal_length)
        side = 2 * math.ceil(focal * (lens.fov / 2 + _RIM))
        at = tuple(np.array(eye) + turn @ np.array(lens.translation))
        camera = _camera((side, side), at, turn @ lens.rotation)
        camera.panorama_type, camera.fisheye_fov = "FISHEYE_EQUIDISTANT", side / focal
        shown = _colours(bpy.context.scene, samples)
        scale = focal * theta / np.maximum(np.hypot(rays[..., 0], rays[..., 1]), 1e-12)
        x, y = (
            np.where(seen, rays[..., i] * scale + (side / 2 - 0.5), 0).astype(np.float32)
            for i in (0, 1)
        )
        picture[seen] = cv2.remap(shown, x, y, cv2.INTER_LINEAR)[seen]
    return picture


def _rig_rotation(heading: float) -> np.ndarray:
    cos, sin = math.cos(heading), math.sin(heading)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _camera(
    size: tuple[int, int], eye: tuple[float, float, float], rotation: np.ndarray
) -> bpy.types.Camera:
    """A panoramic camera, which renders from now on; ``rotation`` is that from its optical frame."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    camera = bpy.data.cameras.new("panorama")
    camera.type = "PANO"
    holder = bpy.data.objects.new("panorama", camera)
    pose = np.eye(4)
    # Blender's camera points along -z with y up, the optical frame has z forward and y down.
    pose[:3, :3], pose[:3, 3] = rotation @ np.diag([1, -1, -1]), eye
    holder.matrix_world = mathutils.Matrix(pose.tolist())
    scene.collection.objects.link(holder)
    scene.camera = holder
    return camera


def _colours(scene: bpy.types.Scene, samples: int) -> np.ndarray:
    scene.cycles.samples = samples
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.use_nodes = False
    scene.render.image_settings.file_format = "PNG"
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = f"{folder}/colour.png"
        bpy.ops.render.render(write_still=True)
        return cv2.imread(scene.render.filepath)


def _indices(scene: bpy.types.Scene, size: tuple[int, int]) -> np.ndarray:
    """The object-index pass, rendered with one sample and one matt material, so that glass counts too."""
    layer = scene.view_layers[0]
    layer.material_override = material("matt", (0.5, 0.5, 0.5))
    layer.use_pass_object_index = True
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    nodes.clear()
    layers = nodes.new("CompositorNodeRLayers")
    links.new(layers.outputs["Image"], nodes.new("CompositorNodeComposite").inputs["Image"])
    with tempfile.TemporaryDirectory() as folder:
        output = nodes.new("CompositorNodeOutputFile")
        output.base_path = folder
        output.format.file_format, output.format.color_depth = "OPEN_EXR", "32"
        output.file_slots[0].path = "index"
        links.new(layers.outputs["IndexOB"], output.inputs[0])
        bpy.ops.render.render()
        index = bpy.data.images.load(str(next(Path(folder).glob("index*.exr"))))
        pixels = np.empty(4 * size[0] * size[1], np.float32)
        index.pixels.foreach_get(pixels)
    layer.material_override = None
    ids = pixels.reshape(size[1], size[0], 4)[::-1, :, 0]
    return np.round(ids).astype(np.uint16)
