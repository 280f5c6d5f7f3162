"""Mask metrics on the panorama and on the sphere: region similarity (J) and boundary accuracy (F).

J is intersection over union. F is the harmonic mean of boundary precision and recall: the shares of the found
and of the true boundary that lie near the other one. Source: F. Perazzi et al., "A Benchmark Dataset and
Evaluation Methodology for Video Object Segmentation", CVPR 2016. On the sphere, regions are weighted by solid
angle and boundaries by length, and the tolerance is an angle.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from sap_ros.core import sphere

#: Tolerance of the boundary F on the panorama, as a share of its diagonal, as in DAVIS.
PIXEL_TOLERANCE = 0.008
#: The same on the sphere, in rad (1 degree).
SPHERE_TOLERANCE = math.radians(1)


def iou(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool, in pixels; 1 if both are empty."""
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0


def sphere_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks (H, 2H) bool, weighted by solid angle."""
    weights = sphere.row_solid_angles((found.shape[1], found.shape[0]))
    union = float(weights @ (found | true).sum(1))
    return float(weights @ (found & true).sum(1)) / union if union else 1.0


def boundary_f(found: np.ndarray, true: np.ndarray) -> float:
    """Boundary F of two masks (H, 2H) bool, in pixels of the panorama; 1 if both are empty.

    The panorama's left and right borders are adjacent.
    """
    reach = math.ceil(PIXEL_TOLERANCE * math.hypot(*found.shape))
    side = 2 * reach + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    edges = [boundary(mask) for mask in (found, true)]
    near = [
        cv2.dilate(np.pad(edge, ((0, 0), (reach, reach)), "wrap").astype(np.uint8), disk) > 0
        for edge in edges
    ]
    near = [wide[:, reach:-reach] for wide in near]
    return _f(
        [
            (float((edge & other).sum()), float(edge.sum()))
            for edge, other in zip(edges, near[::-1], strict=True)
        ]
    )


def sphere_boundary_f(found: np.ndarray, true: np.ndarray) -> float:
    """Boundary F of two masks (H, 2H) bool on the sphere; 1 if both are empty."""
    size = found.shape[1], found.shape[0]
    rays, lengths = [], []
    for mask in (found, true):
        v, u = np.nonzero(boundary(mask))
        rays.append(sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, size).astype(np.float32))
        # A pixel's width on the sphere shrinks with the cosine of its elevation.
        lengths.append(np.maximum(np.cos((0.5 - (v + 0.5) / size[1]) * np.pi), 1 / size[0]))
    shares = []
    for i in (0, 1):
        near = _near(rays[i], rays[1 - i], math.cos(SPHERE_TOLERANCE))
        shares.append((float(lengths[i] @ near), float(lengths[i].sum())))
    return _f(shares)


def boundary(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (H, 2H) bool with a neighbour outside it; a pole's row is its own neighbour."""
    wrapped = np.pad(np.pad(mask, ((0, 0), (1, 1)), "wrap"), ((1, 1), (0, 0)), "edge")
    outside = cv2.dilate((~wrapped).astype(np.uint8), np.ones((3, 3)))[1:-1, 1:-1] > 0
    return mask & outside


def _near(rays: np.ndarray, others: np.ndarray, cosine: float) -> np.ndarray:
    """Whether each ray (P, 3) is near at least one of the others (Q, 3)."""
    if not len(rays) or not len(others):
        return np.zeros(len(rays), bool)
    parts = np.array_split(rays, 1 + len(rays) * len(others) // 4_000_000)
    return np.concatenate([(part @ others.T).max(1) >= cosine for part in parts])


def _f(shares: list[tuple[float, float]]) -> float:
    """F from the lengths (near the other boundary, total) of the found and of the true boundary."""
    (hit, found), (met, true) = shares
    if not found and not true:
        return 1.0
    if not found or not true:
        return 0.0
    precision, recall = hit / found, met / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
