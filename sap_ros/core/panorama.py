"""An equirectangular panorama as an image: validation, and rectangles that may cross the seam.

Needs only numpy, so that the result types can be imported without torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MIN_HEIGHT, _MAX_HEIGHT = 256, 4096


def check_panorama(image: np.ndarray) -> None:
    """Raises ValueError unless ``image`` is (H, 2H, 3) uint8 with H from 256 to 4096."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the panorama is {image.dtype} of shape {image.shape}; it must be uint8, (H, 2H, 3)"
        )
    height, width = image.shape[:2]
    if width != 2 * height:
        raise ValueError(
            f"the panorama is {width}x{height}; an equirectangular panorama is twice as wide as high"
        )
    if not _MIN_HEIGHT <= height <= _MAX_HEIGHT:
        raise ValueError(
            f"the panorama is {width}x{height}; sizes from 512x256 to 8192x4096 can be used"
        )


@dataclass(frozen=True)
class Region:
    """A rectangle of a panorama, in pixels, that may lie across the seam.

    Attributes:
        top: first row.
        left: first column, modulo the width; may be negative or beyond the width.
        rows, columns: height and width.
    """

    top: int
    left: int
    rows: int
    columns: int

    def parts(self, width: int) -> list[tuple[slice, slice]]:
        """Its columns as one or two pairs (columns of the rectangle, columns of the panorama)."""
        return wrapped_columns(self.left, self.columns, width)

    def read(self, image: np.ndarray) -> np.ndarray:
        """The rectangle (rows, columns) of a panorama (H, W)."""
        rows = image[self.top : self.top + self.rows]
        return np.concatenate(
            [rows[:, columns] for _, columns in self.parts(image.shape[1])], axis=1
        )

    def locate(self, pixels: np.ndarray, width: int) -> np.ndarray:
        """Panorama pixels (P, 2) as (u, v), relative to the rectangle's upper left corner."""
        return np.stack([np.mod(pixels[:, 0] - self.left, width), pixels[:, 1] - self.top], axis=-1)


#: A region of one pixel, for an object that was not found.
NOWHERE = Region(0, 0, 1, 1)


def wrapped_columns(start: int, length: int, width: int) -> list[tuple[slice, slice]]:
    """``length`` columns from ``start`` on, modulo the width, as pairs (which of them, panorama columns)."""
    start %= width
    first = min(length, width - start)
    parts = [(slice(0, first), slice(start, start + first))]
    if first < length:
        parts.append((slice(first, length), slice(0, length - first)))
    return parts
