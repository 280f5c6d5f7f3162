"""How well masks agree, on the panorama and on the sphere."""

from __future__ import annotations

import numpy as np

from sap_ros.core import sphere


def iou(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool, in pixels; 1 where both are empty."""
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0


def sphere_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks (H, 2H) bool, weighted by solid angle."""
    weights = sphere.row_solid_angles((found.shape[1], found.shape[0]))
    union = float(weights @ (found | true).sum(1))
    return float(weights @ (found & true).sum(1)) / union if union else 1.0
