"""Pictures of results: the panorama with its objects, and the views that were visited."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import Instances, State
from sap_ros.core.prompts import POSITIVE, Prompt


def colour(object_id: int) -> tuple[int, int, int]:
    """A vivid RGB colour that differs clearly from those of neighbouring ids."""
    hue = object_id * 0.618034 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)


def tint(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draws a label image (H, W) over an image (H, W, 3) uint8 RGB, with outlines."""
    painted = image.copy()
    thickness = max(1, image.shape[1] // 700)
    for object_id in np.unique(labels):
        if object_id == 0:
            continue
        mask = labels == object_id
        painted[mask] = (0.5 * image[mask] + 0.5 * np.array(colour(int(object_id)))).astype(
            np.uint8
        )
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, outline, -1, colour(int(object_id)), thickness)
    return painted


def draw_overlay(
    image: np.ndarray, instances: Instances, prompts: Sequence[Prompt] = ()
) -> np.ndarray:
    """The panorama with coloured masks, the prompts' points, and each object's id and bearing.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: the objects.
        prompts: positive points are drawn as stars, negative ones as crosses.
    """
    size = image.shape[1], image.shape[0]
    painted = tint(image, instances.labels)
    unit = size[0] / 2048
    for prompt in prompts:
        for direction, label in zip(prompt.directions, prompt.labels, strict=True):
            at = _corner(sphere.direction_to_pixel(direction, size))
            shape = cv2.MARKER_STAR if label == POSITIVE else cv2.MARKER_TILTED_CROSS
            for shade, width in (((0, 0, 0), 6), ((255, 255, 255), 3)):
                cv2.drawMarker(painted, at, shade, shape, round(22 * unit), _width(width, unit))
    for instance in instances.objects:
        if instance.state != State.TRACKED:
            continue
        # Adding 0.0 avoids "-0.0".
        angles = [round(math.degrees(a), 1) + 0.0 for a in (instance.azimuth, instance.elevation)]
        text = f"{instance.object_id}: {angles[0]:+.1f}, {angles[1]:+.1f} deg"
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.7 * unit, 1)
        u, v = sphere.direction_to_pixel(instance.direction, size)
        at = _corner(
            (np.clip(u - wide / 2, 0, size[0] - wide), np.clip(v - 24 * unit, high, size[1]))
        )
        for shade, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            cv2.putText(
                painted, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.7 * unit, shade,
                _width(width, unit), cv2.LINE_AA,
            )  # fmt: skip
    return painted


def contact_sheet(
    views: Sequence[tuple[np.ndarray, np.ndarray, str]], columns: int = 6, side: int = 256
) -> np.ndarray:
    """One picture of several views, in rows.

    Args:
        views: (image (S, S, 3) uint8 RGB, labels (S, S), caption) of each view.
        columns: views per row.
        side: side of a view in the picture, in pixels.
    """
    rows = math.ceil(len(views) / columns)
    sheet = np.full((rows * side, columns * side, 3), 32, np.uint8)
    for i, (image, labels, caption) in enumerate(views):
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        tile = tint(small, cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST))
        for shade, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                tile, caption, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, shade, width, cv2.LINE_AA
            )
        row, column = divmod(i, columns)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    return sheet


def _corner(at: np.ndarray | tuple[float, float]) -> tuple[int, int]:
    return round(float(at[0])), round(float(at[1]))


def _width(pixels: int, unit: float) -> int:
    return max(1, round(pixels * unit))
