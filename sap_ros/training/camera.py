"""Image degradations of a panoramic camera, as augmentation: exposure, colour, blur, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

#: Probability of each degradation.
FAULTS = {"exposure": 0.6, "colour": 0.4, "blur": 0.4, "noise": 0.3, "jpeg": 0.5}


def as_photographed(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A copy of a picture (S, S, 3) uint8 RGB with a random choice of the degradations."""
    chosen = {fault: rng.random() < share for fault, share in FAULTS.items()}
    size = image.shape[1], image.shape[0]
    if chosen["blur"]:  # a view often magnifies the panorama, whose resolution is lower
        scale = rng.uniform(0.35, 1)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    if chosen["exposure"] or chosen["colour"]:
        levels = np.linspace(0, 1, 256)[:, None].repeat(3, 1)
        if chosen["exposure"]:
            levels = levels ** np.exp(rng.uniform(-0.5, 0.5)) * np.exp(rng.uniform(-0.4, 0.3))
        if chosen["colour"]:
            levels = levels * np.exp(rng.uniform(-0.15, 0.15, 3))
        table = np.round(levels.clip(0, 1) * 255).astype(np.uint8)
        image = cv2.LUT(image, table[:, None].transpose(1, 0, 2))
    if chosen["noise"]:
        noise = rng.normal(0, rng.uniform(2, 12), image.shape).astype(np.float32)
        image = np.round(image + noise).clip(0, 255).astype(np.uint8)
    if chosen["jpeg"]:
        quality = int(rng.integers(25, 90))
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image)
