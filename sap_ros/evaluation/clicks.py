"""Simulated clicks: SAM 2's protocol, on the sphere."""

from __future__ import annotations

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.prompts import NEGATIVE, POSITIVE
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
    return _centre(mask)[0]


def correction_click(true: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, int]:
    """A click that corrects a mask.

    As in SAM 2's protocol, it is in the middle of what was missed or of what is in excess, whichever has
    the pixel farther from its boundary; on the object itself where the mask has no error.

    Args:
        true: (H, 2H) bool, the object.
        found: (H, 2H) bool, the mask.

    Returns:
        The direction (3,) of the click, and its label, positive or negative.
    """
    missed, excess = true & ~found, found & ~true
    if not (missed.any() or excess.any()):
        return centre_click(true), POSITIVE
    on_object, depth = _centre(missed)
    off_object, excess_depth = _centre(excess)
    return (on_object, POSITIVE) if depth >= excess_depth else (off_object, NEGATIVE)


def _centre(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction (3,) inside a mask that is farthest from its boundary, and that angle in rad.

    An empty mask has a negative angle.
    """
    if not mask.any():
        return np.full(3, np.nan), -1.0
    height, width = mask.shape
    rim = np.argwhere(boundary(mask))
    rim = rim[:: max(1, len(rim) // _MOST_RIM)]
    inside = np.argwhere(mask)
    best, _ = _deepest(inside[:: max(1, len(inside) // _MOST_INSIDE)], rim, width)
    # The coarse result is refined among the pixels around it.
    step = max(1, round((len(inside) / _MOST_INSIDE) ** 0.5))
    away = np.abs(inside - best)
    away[:, 1] = np.minimum(away[:, 1], width - away[:, 1])
    (v, u), cosine = _deepest(inside[(away <= 2 * step).all(1)], rim, width)
    direction = sphere.pixel_to_direction((u + 0.5, v + 0.5), (width, height))
    return direction, float(np.arccos(np.clip(cosine, -1, 1)))


def _deepest(inside: np.ndarray, rim: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """The pixel (v, u) of ``inside`` that is farthest from its nearest pixel of ``rim``; the cosine of
    the angle between the two, -1 without a rim."""
    if not len(rim):
        return np.asarray(inside[len(inside) // 2]), -1.0
    rays, edge = (
        sphere.pixel_to_direction(pixels[:, ::-1] + 0.5, (width, width // 2)).astype(np.float32)
        for pixels in (inside, rim)
    )
    nearest = np.concatenate([(part @ edge.T).max(1) for part in np.array_split(rays, 16)])
    return np.asarray(inside[nearest.argmin()]), float(nearest.min())
