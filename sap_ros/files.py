"""Reads and writes image files."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sap_ros.core.panorama import check_panorama
from sap_ros.places import is_url, local_or_bytes, write_whole

#: Width and height of the largest image that is decoded, which is the largest panorama.
LARGEST_IMAGE = (8192, 4096)

_PIL_LIMIT = threading.Lock()


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height of a compressed image, read from its header without decoding.

    Args:
        source: a file, or its bytes, in a format that PIL supports (JPEG, PNG, WebP, ...).

    Raises:
        ValueError: the file does not exist, is no image, or is larger than :data:`LARGEST_IMAGE` (a file
            of a few hundred kB can decode to gigabytes).
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        if not is_url(source) and not source.is_file():
            raise ValueError(f"{source} is no file")
        source = local_or_bytes(source)
    with _PIL_LIMIT:
        # PIL refuses to open large images, and does not tell their size.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
                width, height = image.size
        except Exception as error:  # PIL raises many types for damaged headers
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "unknown format" if unknown else error
            raise ValueError(f"{name} cannot be read as an image: {reason}") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if width > LARGEST_IMAGE[0] or height > LARGEST_IMAGE[1]:
        raise ValueError(
            f"{name} is {width}x{height}; {LARGEST_IMAGE[0]}x{LARGEST_IMAGE[1]} is the largest that "
            "can be used"
        )
    return width, height


def open_image(path: Path) -> Image.Image:
    """Opens an image file with PIL, also one at a URL; a context manager."""
    source = local_or_bytes(path)
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def read_panorama(path: Path) -> np.ndarray:
    """Reads a panorama as :func:`read_image` does.

    Returns:
        (H, 2H, 3) uint8 RGB.

    Raises:
        ValueError: as by :func:`read_image`, or the image is not twice as wide as high.
    """
    pixels = read_image(path)
    try:
        check_panorama(pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return pixels


def read_image(path: Path) -> np.ndarray:
    """Reads an image file in a format that PIL supports (JPEG, PNG, WebP, ...), 8 bit, colour or grey.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the file does not exist, or is no image, truncated, too large or not 8 bit.
    """
    image_size(path)
    try:
        with open_image(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} has pixels of type {image.mode}; it must be 8-bit")
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    return pixels


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes RGB (H, W, 3) or single-channel (H, W) pixels in the format of the file extension.

    The file is never incomplete.

    Raises:
        OSError: the file could not be written.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    # Not by cv2.imwrite, which does not say why it failed, and does not notice a full disk with small files.
    write_whole(path, cv2.imencode(path.suffix, pixels)[1].tobytes())


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is never incomplete."""
    write_whole(path, text.encode())
