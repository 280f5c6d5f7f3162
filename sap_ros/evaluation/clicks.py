"""Simulated clicks: SAM 2's protocol, on the sphere."""

from __future__ import annotations

import numpy as np

from sap_ros.core import sphere
from sap_ros.evaluation.metrics import boundary

_MOST_INSIDE, _MOST_RIM = 4000, 4000  # about the largest number of pixels compared


def centre_click(mask: np.ndarray) -> np.ndarray:
    """The direction inside a mask with the largest angle to its boundary.

    SAM 2 clicks on the pixel farthest from the boundary (N. Ravi et al., arXiv 2408.00714, appendix). On a
    panorama the distance is an angle, so that neither the seam nor a pole counts as a boundary.

    Args:
        mask: (H, 2H) bool.

    Returns:
        (3,) unit vector to the centre of a pixel of the mask.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty; there is nothing to click on")
    height, width = mask.shape
    rim = np.argwhere(boundary(mask))
    rim = rim[:: max(1, len(rim) // _MOST_RIM)]
    inside = np.argwhere(mask)
    best = _deepest(inside[:: max(1, len(inside) // _MOST_INSIDE)], rim, width)
    # The coarse result is refined among the pixels around it.
    step = max(1, round((len(inside) / _MOST_INSIDE) ** 0.5))
    away = np.abs(inside - best)
    away[:, 1] = np.minimum(away[:, 1], width - away[:, 1])
    v, u = _deepest(inside[(away <= 2 * step).all(1)], rim, width)
    return sphere.pixel_to_direction((u + 0.5, v + 0.5), (width, height))


def _deepest(inside: np.ndarray, rim: np.ndarray, width: int) -> np.ndarray:
    """The pixel (v, u) of ``inside`` that is farthest from its nearest pixel of ``rim``."""
    if not len(rim):
        return np.asarray(inside[len(inside) // 2])
    rays, edge = (
        sphere.pixel_to_direction(pixels[:, ::-1] + 0.5, (width, width // 2)).astype(np.float32)
        for pixels in (inside, rim)
    )
    nearest = np.concatenate([(part @ edge.T).max(1) for part in np.array_split(rays, 16)])
    return np.asarray(inside[nearest.argmin()])
