"""Panoramas and pictures as files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sap_ros.core.panorama import check_panorama


def read_panorama(path: Path) -> np.ndarray:
    """Reads a panorama file that PIL knows (JPEG, PNG, WebP, ...), 8 bit, colour or grey.

    Returns:
        (H, 2H, 3) uint8 RGB.

    Raises:
        ValueError: no such file, no image, truncated, not 8 bit, or not twice as wide as high.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} has pixels of type {image.mode}; 8-bit ones can be read")
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    try:
        check_panorama(pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return pixels


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes RGB (H, W, 3) or single-channel (H, W) pixels, by the name's ending.

    The file is written beside its place and then renamed, so that no half of it is ever there.

    Raises:
        OSError: it could not be written.
    """
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    if not cv2.imwrite(str(beside), pixels):
        raise OSError(f"{path} could not be written")
    beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes a file beside its place, then renames it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
