"""Labelled panoramas by pasting cut-outs of photographs and textured shapes on the sphere.

An object is a tangent-plane (gnomonic) patch at a uniformly random direction, so the seam and the poles are
as likely as any other place. Masks are exact and modal: the mask of an occluded object is its visible part.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view
from sap_ros.synthesis.dataset import DatasetWriter

_PATCH = 256  # longer side of a patch in pixels
#: Soft composites: range of the edge blur (sigma, in pixels of a patch); share of objects with a shadow.
_RIM, _SHADOWED = (0.5, 2.0), 0.4


@dataclass(frozen=True)
class Patch:
    """A picture of one object: ``image`` (h, w, 3) uint8, ``alpha`` (h, w) float32 in 0 to 1."""

    image: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class CutOuts:
    """Objects of photographs in SA-1B's format: NAME.jpg beside NAME.json with COCO RLE masks.

    Args:
        photographs: the JPEG files to choose from.
    """

    photographs: Sequence[Path]

    def draw(self, rng: Generator) -> Patch:
        """A random object that covers 1 to 50 % of its photograph."""
        from pycocotools import mask as coco_mask  # the other functions work without it

        while True:
            path = self.photographs[rng.integers(len(self.photographs))]
            annotations = _annotations(path)
            if not annotations:
                continue
            mask = coco_mask.decode(annotations[rng.integers(len(annotations))]["segmentation"])
            if 0.01 <= mask.mean() <= 0.5:
                break
        image = cv2.imread(str(path))
        x, y, w, h = cv2.boundingRect(mask)
        image, mask = image[y : y + h, x : x + w], mask[y : y + h, x : x + w]
        scale = _PATCH / max(w, h)
        size = (max(8, round(w * scale)), max(8, round(h * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        alpha = cv2.resize(mask.astype(np.float32), size, interpolation=interpolation)
        return Patch(cv2.resize(image, size, interpolation=interpolation), alpha)


@lru_cache(maxsize=4096)
def _annotations(photograph: Path) -> list[dict]:
    return json.loads(photograph.with_suffix(".json").read_text())["annotations"]


def draw_shape(rng: Generator, texture: np.ndarray) -> Patch:
    """A random ellipse, polygon or box, plain or textured with a crop of ``texture`` (h, w, 3)."""
    size = _PATCH
    alpha = np.zeros((size, size), np.uint8)
    centre, kind = (size // 2, size // 2), rng.integers(3)
    if kind == 0:
        axes = tuple(int(a) for a in rng.integers(size // 6, size // 2, 2))
        cv2.ellipse(alpha, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        corners = 4 if kind == 1 else int(rng.integers(3, 9))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        if kind == 1:
            half = rng.uniform(0.3, 1.2)
            angle = np.array([half, np.pi - half, np.pi + half, -half]) + rng.uniform(0, np.pi)
        radius = size / 2 * (rng.uniform(0.5, 1, corners) if kind == 2 else rng.uniform(0.6, 1))
        outline = np.stack([np.cos(angle), np.sin(angle)], -1) * np.reshape(radius, (-1, 1))
        cv2.fillPoly(alpha, [np.int32(outline + size / 2)], 255, cv2.LINE_AA)
    if rng.random() < 0.5:
        image = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
        shade = np.linspace(rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), size)
        image = np.clip(
            image * (shade[:, None, None] if rng.random() < 0.5 else shade[:, None]), 0, 255
        )
    else:
        side = min(*texture.shape[:2], int(rng.integers(64, 400)))
        top, left = (int(rng.integers(n - side + 1)) for n in texture.shape[:2])
        image = cv2.resize(texture[top : top + side, left : left + side], (size, size))
    return Patch(image.astype(np.uint8), alpha.astype(np.float32) / 255)


def paste(
    panorama: np.ndarray,
    instances: np.ndarray,
    patch: Patch,
    direction: np.ndarray,
    half_extent: float,
    roll: float,
    instance_id: int,
) -> None:
    """Pastes a patch into a panorama and its label image, in place.

    Args:
        panorama: (H, W, 3) uint8.
        instances: (H, W) uint16; pixels that the patch covers more than half get ``instance_id``.
        patch: the patch; its longer side spans twice ``half_extent``.
        direction: (3,) unit vector to the patch's centre.
        half_extent: half of its angular size, in rad, below pi / 2.
        roll: its rotation about ``direction``, in rad.
        instance_id: 1 to 65535.
    """
    height, width = instances.shape
    azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    side = max(patch.alpha.shape)
    reach = math.atan(math.tan(half_extent) * math.sqrt(2))
    top = max(0, math.floor((0.5 - (elevation + reach) / np.pi) * height))
    bottom = min(height, math.ceil((0.5 - (elevation - reach) / np.pi) * height))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(top, bottom) + 0.5)
    pixels = np.stack([u, v], -1)
    directions = sphere.pixel_to_direction(pixels, (width, height))
    # direction_to_view's focal length for this field of view, on a grid of side + 1 pixels.
    view = View(azimuth, elevation, 2 * half_extent)
    offset = direction_to_view(directions, view, side + 1) - (side + 1) / 2
    cos, sin = math.cos(roll), math.sin(roll)
    h, w = patch.alpha.shape
    x = offset[..., 0] * cos - offset[..., 1] * sin + w / 2 - 0.5
    y = offset[..., 0] * sin + offset[..., 1] * cos + h / 2 - 0.5
    x, y = (np.nan_to_num(a, nan=-1e4).clip(-1e4, 1e4).astype(np.float32) for a in (x, y))
    alpha = cv2.remap(patch.alpha, x, y, cv2.INTER_LINEAR, borderValue=0)
    colour = cv2.remap(patch.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rows = panorama[top:bottom]
    blended = rows + alpha[..., None] * (colour.astype(np.float32) - rows)
    panorama[top:bottom] = np.round(blended).astype(np.uint8)
    instances[top:bottom][alpha > 0.5] = instance_id


def compose(
    rng: Generator,
    backgrounds: Sequence[Path],
    cut_outs: CutOuts,
    size: tuple[int, int] = (1024, 512),
    objects: tuple[int, int] = (3, 6),
    soft: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one labelled panorama.

    Args:
        rng: the source of all random choices.
        backgrounds: panoramas to paste on; the chosen one is rolled and mirrored at random.
        cut_outs: the source of two thirds of the objects; the others are shapes by :func:`draw_shape`.
        size: (width, height) of the result.
        objects: minimum and maximum number of objects.
        soft: blurs the objects' edges and adds some shadows, so that no sharp edge gives an object away.

    Returns:
        The panorama (H, W, 3) uint8 BGR, and its instances (H, W) uint16: 0 background, 1 to n.
    """
    background = _background(backgrounds[rng.integers(len(backgrounds))], max(2048, size[0]))
    panorama = cv2.resize(background, size, interpolation=cv2.INTER_AREA)
    panorama = np.roll(panorama, int(rng.integers(size[0])), axis=1)
    if rng.random() < 0.5:
        panorama = panorama[:, ::-1]
    panorama = np.ascontiguousarray(panorama)
    instances = np.zeros((size[1], size[0]), np.uint16)
    for instance_id in range(1, int(rng.integers(objects[0], objects[1] + 1)) + 1):
        if rng.random() < 2 / 3:
            patch = cut_outs.draw(rng)
        else:
            photograph = cut_outs.photographs[rng.integers(len(cut_outs.photographs))]
            patch = draw_shape(rng, cv2.imread(str(photograph)))
        bright = np.clip(patch.image * rng.uniform(0.75, 1.2), 0, 255).astype(np.uint8)
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        half_extent = math.radians(float(np.exp(rng.uniform(np.log(3), np.log(45)))))
        roll = float(rng.normal(0, 0.3))
        alpha = patch.alpha
        if soft:
            alpha = _softened(alpha, rng)
            if rng.random() < _SHADOWED:
                _cast_shadow(panorama, instances, alpha, direction, half_extent, roll, rng)
        paste(panorama, instances, Patch(bright, alpha), direction, half_extent, roll, instance_id)
    return panorama, instances


def _softened(alpha: np.ndarray, rng: Generator) -> np.ndarray:
    """Alpha (h, w) with a soft edge; eroded first, so that none of the old background is visible."""
    inner = cv2.erode(alpha, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.GaussianBlur(inner, (0, 0), rng.uniform(*_RIM)))


def _cast_shadow(
    panorama: np.ndarray,
    instances: np.ndarray,
    alpha: np.ndarray,
    direction: np.ndarray,
    half_extent: float,
    roll: float,
    rng: Generator,
) -> None:
    """Darkens a panorama, in place, beside and below the position of an object that is pasted next."""
    wide = cv2.GaussianBlur(np.pad(alpha, _PATCH // 8), (0, 0), _PATCH / 32)
    side = sphere.angles_to_direction(rng.uniform(-np.pi, np.pi), 0.0)
    offset = np.array([0.0, 0.0, -1.0]) + 0.7 * side
    place = direction + 0.15 * math.tan(min(half_extent, 0.7)) * offset
    # Alpha stays below one half: the shadow does not change the labels.
    dark = Patch(np.zeros((*wide.shape, 3), np.uint8), wide * rng.uniform(0.15, 0.45))
    reach = math.atan(math.tan(half_extent) * max(wide.shape) / max(alpha.shape))
    paste(panorama, instances, dark, place / np.linalg.norm(place), reach, roll, 0)


@lru_cache(maxsize=64)
def _background(path: Path, width: int) -> np.ndarray:
    image = cv2.imread(str(path))
    return cv2.resize(image, (width, width // 2), interpolation=cv2.INTER_AREA)


def composite_writer(
    folder: Path,
    backgrounds: Sequence[Path],
    cut_outs: CutOuts,
    size: tuple[int, int] = (1024, 512),
    objects: tuple[int, int] = (3, 6),
    soft: bool = False,
) -> Callable[[int], None]:
    """A function that writes the labelled panorama of a seed, named after it.

    The format is that of :mod:`sap_ros.synthesis.dataset`.

    Raises:
        ValueError: there are no photographs or backgrounds, or the folder was made with other settings.
    """
    for what, files in (("panorama", backgrounds), ("photograph", cut_outs.photographs)):
        if not files:
            raise ValueError(f"there is no {what} to make composites from")
    settings: dict[str, object] = {
        "kind": "composite",
        "size": list(size),
        "objects": list(objects),
        "backgrounds": sorted(path.name for path in backgrounds),
        "photographs": sorted(path.name for path in cut_outs.photographs),
    }
    if soft:
        settings["soft"] = True
    writer = DatasetWriter(folder, settings)

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        writer.write(f"{seed:08d}", *compose(rng, backgrounds, cut_outs, size, objects, soft))

    return write


def find_photographs(
    folders: Iterable[Path], indices: Sequence[Path] = (), split: str = "", leave_out: str = ""
) -> list[Path]:
    """Finds photographs in SA-1B's format in folders, optionally those of a split by index csv files.

    Args:
        folders: folders with NAME.jpg and NAME.json.
        indices: csv files with the columns ``name``, ``split`` and ``source``.
        split: the split to use.
        leave_out: regular expression; photographs whose ``source`` matches it are not used. Empty: all are
            used.

    Raises:
        ValueError: a folder has no such photograph.
    """
    chosen: set[str] = set()
    left_out = re.compile(leave_out or r"(?!)")  # (?!) matches nothing
    for index in indices:
        with index.open(newline="") as file:
            chosen |= {
                row["name"]
                for row in csv.DictReader(file)
                if row["split"] == split and not left_out.search(row.get("source", ""))
            }
    photographs: list[Path] = []
    for folder in folders:
        found = sorted(p for p in folder.glob("*.jpg") if p.with_suffix(".json").exists())
        if indices:
            found = [p for p in found if p.stem in chosen]
        if not found:
            raise ValueError(
                f"{folder} holds no NAME.jpg with a NAME.json beside it (SA-1B's format)"
            )
        photographs += found
    return photographs


def find_panoramas(folders: Iterable[Path]) -> list[Path]:
    """All image files in folders and their subfolders.

    Raises:
        ValueError: there are none.
    """
    endings = {".jpg", ".jpeg", ".png", ".webp"}
    found = sorted(p for d in folders for p in d.rglob("*") if p.suffix.lower() in endings)
    if not found:
        raise ValueError(f"no panorama was found in {', '.join(str(d) for d in folders)}")
    return found
