"""The picture that a camera with two fisheye lenses would take of what a panorama shows."""

from __future__ import annotations

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye


def fisheyes_of(panorama: np.ndarray, camera: DualFisheye) -> np.ndarray:
    """The picture (h, w, 3) of a camera, from a panorama (H, 2H, 3) uint8; black outside of its circles.

    There is no parallax: everything counts as being at the camera's ``distance``.
    """
    width, height = camera.picture_size
    v, u = np.mgrid[:height, :width] + 0.5
    picture = np.zeros((height, width, 3), np.uint8)
    size = panorama.shape[1], panorama.shape[0]
    for lens in (0, 1):
        directions = camera.to_directions(np.stack([u, v], -1), lens)
        seen = np.isfinite(directions[..., 0])
        pixels = sphere.direction_to_pixel(np.where(seen[..., None], directions, 1.0), size) - 0.5
        x, y = np.moveaxis(pixels.astype(np.float32), -1, 0)
        shown = cv2.remap(panorama, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        picture[seen] = shown[seen]
    return picture
