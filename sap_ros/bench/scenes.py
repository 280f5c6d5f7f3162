"""Labelled panoramas for the benchmarks, generated from data shipped with the package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from sap_ros.core import sphere
from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.folding import fold
from sap_ros.core.loading import Backend, FixedBackend, load_model, usable_device
from sap_ros.core.model import Model
from sap_ros.evaluation.clicks import centre_click
from sap_ros.files import read_panorama
from sap_ros.synthesis.composite import draw_shape, paste
from sap_ros.synthesis.moving import MovingScene

DEMO = Path(__file__).parents[1] / "data" / "demo" / "panorama.jpg"


@dataclass(frozen=True)
class Labelled:
    """A panorama and its instances, (H, 2H, 3) uint8 RGB and (H, 2H) uint16."""

    image: np.ndarray
    labels: np.ndarray


def labelled(seed: int, size: tuple[int, int], shapes: int) -> Labelled:
    """A room with six solids, and shapes of 3 to 60 degrees pasted at random directions on the sphere.

    The shapes are plain or textured with the demo panorama.
    """
    rng = np.random.default_rng(seed)
    scene = MovingScene(seed)
    small = min(size[0], 2048)
    image, ids = scene.render(0.0, (small, small // 2))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(ids.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    texture = read_panorama(DEMO)
    for i in range(shapes):
        direction = rng.normal(size=3)
        paste(
            picture,
            labels,
            draw_shape(rng, texture),
            direction / np.linalg.norm(direction),
            half_extent=math.radians(float(np.exp(rng.uniform(np.log(1.5), np.log(30))))),
            roll=float(rng.uniform(0, 2 * np.pi)),
            instance_id=len(scene.solids) + 1 + i,
        )
    return Labelled(picture, labels)


def random_model(
    name: str,
    image_size: int | None = None,
    device: str = "cpu",
    backend: FixedBackend = "torch",
) -> Model:
    """A named model's architecture with random weights: to measure cost, not quality."""
    torch.manual_seed(0)
    sam = build_architecture(name, image_size)
    fold(sam)
    return Model(sam, name, usable_device(device), backend=backend)


def model_of(name: str, device: str, backend: Backend = "auto") -> Model:
    """A model by name; ``random-tiny`` is SAM 2.1 tiny with random weights, in torch unless a backend is given."""
    if name == "random-tiny":
        fixed: FixedBackend = "torch" if backend == "auto" else backend
        return random_model("sam2.1-tiny", device=device, backend=fixed)
    return load_model(name, device=device, backend=backend)


def clicks_on(labels: np.ndarray, ids: Sequence[int]) -> list[tuple[float, float]]:
    """A pixel (u, v) well inside each instance."""
    size = labels.shape[1], labels.shape[0]
    places = [sphere.direction_to_pixel(centre_click(labels == i), size) for i in ids]
    return [(float(u), float(v)) for u, v in places]
