"""Measures objects on the panorama: label image, bearing, extent, solid angle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.panorama import Region

# Highest id in an 8-bit label image; 255 is reserved.
_MOST_8_BIT = 254

# Lower limits of the solid angle of medium and of large objects, in sr.
_MEDIUM, _LARGE = 0.03, 0.25


class State(IntEnum):
    """State of an object; the values of ``sap_ros/Object.state``."""

    PENDING = 0  # prompted, not looked for yet
    TRACKED = 1
    LOST = 2  # looked for and not found
    REJECTED = 3  # its prompt cannot be used


@dataclass(frozen=True)
class Instance:
    """One object. Angles in rad, in the body frame; NaN if it was not found.

    Attributes:
        object_id: its value in the label image.
        state: whether it was found.
        direction: (3,) unit vector to its centroid, weighted by solid angle.
        azimuth, elevation: the same as angles, azimuth counter-clockwise.
        azimuth_width: width of the smallest interval of azimuth that contains it, possibly across the
            seam; 2 pi if it contains a pole.
        azimuth_centre: the middle of that interval.
        elevation_min, elevation_max: its lowest and highest row.
        solid_angle: in sr.
        score: predicted IoU of its mask, 0 to 1; 0 if it was not found.
    """

    object_id: int
    state: State
    direction: np.ndarray
    azimuth: float
    elevation: float
    azimuth_width: float
    azimuth_centre: float
    elevation_min: float
    elevation_max: float
    solid_angle: float
    score: float

    @property
    def angular_stddev(self) -> float:
        """Estimated standard deviation of the direction, in rad; NaN if it was not found.

        Half the radius of a disk with its solid angle, times 1 minus its score.
        """
        if not self.solid_angle:
            return math.nan
        return math.sqrt(self.solid_angle / math.pi) / 2 * (1 - min(self.score, 1.0))


@dataclass(frozen=True)
class Instances:
    """The objects of a panorama.

    Attributes:
        labels: (H, W) label image, uint8, or uint16 if an id exceeds 254; 0 is background.
        objects: one per object, by ascending id.
    """

    labels: np.ndarray
    objects: tuple[Instance, ...]


def size_class(solid_angle: float) -> str:
    """``small`` below 0.03 sr (about 11 degrees across), ``large`` from 0.25 sr (32 degrees) on."""
    if solid_angle < _MEDIUM:
        return "small"
    return "medium" if solid_angle < _LARGE else "large"


def label_image(
    found: Mapping[int, tuple[Region, np.ndarray]], size: tuple[int, int], highest_id: int
) -> np.ndarray:
    """The label image of objects: each pixel has the id of the object with the highest logit above 0.

    Args:
        found: by id, a region and the object's logits (rows, columns) there.
        size: the panorama's (width, height).
        highest_id: highest id of all objects, found or not; it decides the type.

    Returns:
        (H, W) uint8, or uint16 if ``highest_id`` exceeds 254; 0 is background.
    """
    width, height = size
    # A single object needs no comparison, and allocating a float32 panorama takes milliseconds.
    best = np.zeros((height, width), np.float32) if len(found) > 1 else None
    labels = np.zeros((height, width), np.uint8 if highest_id <= _MOST_8_BIT else np.uint16)
    for object_id, (region, logits) in found.items():
        rows = slice(region.top, region.top + region.rows)
        for source, columns in region.parts(width):
            now = logits[:, source]
            so_far = 0 if best is None else best[rows, columns]
            np.copyto(labels[rows, columns], object_id, where=now > so_far)
            if best is not None:
                best[rows, columns] = np.maximum(so_far, now)
    return labels


def measure(
    mask: np.ndarray,
    object_id: int,
    score: float,
    region: Region | None = None,
    size: tuple[int, int] | None = None,
) -> Instance:
    """Measures a mask on the panorama.

    Args:
        mask: (H, W) bool, or (rows, columns) of ``region``.
        object_id: the object's id.
        score: predicted IoU of the mask.
        region: the part of the panorama that the mask covers; None: all.
        size: the panorama's (width, height); needed with ``region``.
    """
    region = region or Region(0, 0, *mask.shape)
    width, height = size or (mask.shape[1], mask.shape[0])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        nan = float("nan")
        nowhere = np.full(3, nan)
        return Instance(
            object_id, State.LOST, nowhere, nan, nan, nan, nan, nan, nan, solid_angle=0.0, score=0.0
        )
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, bottom = int(rows[0]) + region.top, int(rows[-1]) + 1 + region.top
    columns_shown = np.arange(columns[0], columns[-1] + 1) + region.left + 0.5
    azimuths, _ = sphere.direction_to_angles(
        sphere.pixel_to_direction(
            np.stack([columns_shown, np.full(len(columns_shown), height / 2)], -1), (width, height)
        )
    )
    elevations = (0.5 - (np.arange(top, bottom) + 0.5) / height) * np.pi
    # Each row's count, and its sums of the cosine and sine of azimuth.
    harmonics = np.stack([np.ones_like(azimuths), np.cos(azimuths), np.sin(azimuths)], -1)
    sums = (inner.astype(np.float32) @ harmonics.astype(np.float32)).astype(np.float64)
    weights = sphere.row_solid_angles((width, height))[top:bottom]
    solid_angle = float(weights @ sums[:, 0])
    centroid = np.array(
        [
            weights @ (np.cos(elevations) * sums[:, 1]),
            weights @ (np.cos(elevations) * sums[:, 2]),
            weights @ (np.sin(elevations) * sums[:, 0]),
        ]
    )
    length = np.linalg.norm(centroid)
    # An object that surrounds the camera has no bearing; it gets straight ahead.
    direction = centroid / length if length > 1e-6 * solid_angle else np.array([1.0, 0.0, 0.0])
    azimuth, elevation = sphere.direction_to_angles(direction)
    gaps = np.diff(columns, append=columns[0] + width)
    widest = int(gaps.argmax())
    first = int(columns[(widest + 1) % len(columns)]) + region.left
    span = width - int(gaps[widest]) + 1
    centre = (0.5 - (first + span / 2) / width) * 2 * np.pi
    return Instance(
        object_id,
        State.TRACKED,
        direction,
        float(azimuth),
        float(elevation),
        azimuth_width=span / width * 2 * np.pi,
        azimuth_centre=float(np.pi - np.mod(np.pi - centre, 2 * np.pi)),
        elevation_min=(0.5 - bottom / height) * np.pi,
        elevation_max=(0.5 - top / height) * np.pi,
        solid_angle=solid_angle,
        score=score,
    )
