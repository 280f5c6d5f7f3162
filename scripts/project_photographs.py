"""Projects labelled photographs on panoramas: real objects in real surroundings, for `sap eval`.

    python scripts/project_photographs.py PANORAMAS data/projected --only bma-0 --only rathaus \
        --photographs data/sa1b_mini --index data/sa1b_mini_index.csv --photographs ... --index ...

Of each folder in SA-1B's format, up to --limit photographs of the split val; of each, up to three masks. A photograph
fills a view of 75 degrees of a panorama of 2048x1024, anywhere but near the poles.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from sap_ros.core import sphere
from sap_ros.core.camera import View
from sap_ros.synthesis.composite import find_panoramas, find_photographs
from sap_ros.synthesis.dataset import DatasetWriter, write_index

_SIZE = 2048, 1024
_FOV = math.radians(75)
_HIGHEST = 0.6  # elevation of a photograph's middle, in rad
_OBJECTS = 3
_LEAST_SHARE = 0.002  # of a photograph that a mask covers
_SHARPNESS = 1.3  # a photograph is reduced to this many times the panorama's resolution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backgrounds", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photographs", type=Path, action="append", required=True)
    parser.add_argument("--index", type=Path, action="append", required=True)
    parser.add_argument("--only", action="append", help="a part of a background's name")
    parser.add_argument("--limit", type=int, default=30)
    given = parser.parse_args()
    panoramas = find_panoramas([given.backgrounds])
    chosen = [p for p in panoramas if any(name in p.name for name in given.only or [""])]
    images = (cv2.imread(str(path)) for path in chosen)
    backgrounds = [cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA) for image in images]
    writer = DatasetWriter(
        given.out, {"kind": "projected", "backgrounds": [p.name for p in chosen]}
    )
    u, v = np.meshgrid(np.arange(_SIZE[0]) + 0.5, np.arange(_SIZE[1]) + 0.5)
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), _SIZE).astype(np.float32)
    count = 0
    for folder, index in zip(given.photographs, given.index, strict=True):
        for path in find_photographs([folder], [index], "val")[: given.limit]:
            labels = _labelled(path)
            if not labels.any():
                continue
            rng = np.random.default_rng([7, count])
            view = View(rng.uniform(-math.pi, math.pi), rng.uniform(-_HIGHEST, _HIGHEST), _FOV)
            background = backgrounds[count % len(backgrounds)]
            turned = np.roll(background, int(rng.integers(_SIZE[0])), axis=1).copy()
            instances = _project(cv2.imread(str(path)), labels, view, rays, turned)
            writer.write(f"{folder.name}_{path.stem}", turned, instances)
            count += 1
    print(f"{count} panoramas, {write_index(given.out)} objects")


def _labelled(path: Path) -> np.ndarray:
    """Up to three of a photograph's masks, smaller over larger, as a label image (H, W) uint16."""
    annotations = json.loads(path.with_suffix(".json").read_text())["annotations"]
    masks = [coco_mask.decode(each["segmentation"]).astype(bool) for each in annotations]
    masks = [mask for mask in masks if mask.mean() >= _LEAST_SHARE]
    labels = np.zeros(cv2.imread(str(path)).shape[:2], np.uint16)
    evenly = np.linspace(0, len(masks) - 1, min(_OBJECTS, len(masks))).astype(int)
    for k, i in enumerate(sorted({*evenly}, key=lambda i: -masks[i].sum()), 1):
        labels[masks[i]] = k
    return labels


def _project(
    image: np.ndarray, labels: np.ndarray, view: View, rays: np.ndarray, panorama: np.ndarray
) -> np.ndarray:
    """Draws a photograph into a panorama (H, 2H, 3), in a view; returns its labels there (H, 2H)."""
    height, width = labels.shape
    side, half = max(width, height), math.tan(view.fov / 2)
    x, y, z = np.moveaxis(rays @ view.rotation.astype(np.float32), -1, 0)
    ahead = z > 0.05
    z = np.where(ahead, z, np.float32(1))
    columns = (x / z / half * side / 2 + width / 2 - 0.5).astype(np.float32)
    rows = (y / z / half * side / 2 + height / 2 - 0.5).astype(np.float32)
    inside = ahead & (np.abs(columns - width / 2 + 0.5) <= width / 2)
    inside &= np.abs(rows - height / 2 + 0.5) <= height / 2
    scale = min(1.0, panorama.shape[1] * view.fov / (2 * math.pi) * _SHARPNESS / side)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    across, down = small.shape[1] / width, small.shape[0] / height
    shown = cv2.remap(
        small,
        (columns + 0.5) * np.float32(across) - np.float32(0.5),
        (rows + 0.5) * np.float32(down) - np.float32(0.5),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    panorama[inside] = shown[inside]
    found = cv2.remap(labels, columns, rows, cv2.INTER_NEAREST)
    return np.where(inside, found, 0).astype(np.uint16)


if __name__ == "__main__":
    main()
