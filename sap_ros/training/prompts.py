"""Random prompts from true masks, for training."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator


def click_on(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """A pixel (u, v) of a mask (S, S) bool: with probability 1/2 its middle, else a random one."""
    v, u = _middle(mask) if rng.random() < 0.5 else _anywhere(mask, rng)
    return np.array([u + 0.5, v + 0.5])


def draw_prompt(mask: np.ndarray, kind: str, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random prompt for one object of a view.

    Args:
        mask: (S, S) bool, not empty.
        kind: ``click``, ``clicks`` (four, of which some may be negative) or ``box`` (jittered).

    Returns:
        Points (P, 2) in view pixels and SAM 2's labels (P,); P is the same for all prompts of a kind.
    """
    size = len(mask)
    if kind == "box":
        ys, xs = np.nonzero(mask)
        corners = np.array([[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]], np.float32)
        corners += rng.uniform(-0.08, 0.08, (2, 2)) * (corners[1] - corners[0])
        return np.clip(corners, 0, size).astype(np.float32), np.array([2, 3], np.int32)
    points, labels = [click_on(mask, rng)], [1]
    if kind == "clicks":
        near = cv2.dilate(mask.astype(np.uint8), np.ones((size // 8 + 1,) * 2)) > 0
        outside = near & ~mask
        for _ in range(3):
            off = rng.random() < 0.4 and bool(outside.any())
            v, u = _anywhere(outside if off else mask, rng)
            points.append(np.array([u + 0.5, v + 0.5]))
            labels.append(0 if off else 1)
    return np.array(points, np.float32), np.array(labels, np.int32)


def correction(
    true: np.ndarray, found: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A click where a mask is wrong: positive on a missed part, negative outside the object.

    With probability 1/2 it is in the middle of the largest error region, as in SAM 2's evaluation and as
    a person clicks; otherwise on a random wrong pixel, as in SAM 2's training.

    Args:
        true, found: (S, S) bool.

    Returns:
        Point (1, 2), label (1,), and the connected error region (S, S) bool that contains the point. If
        no pixel is wrong: label -1 (SAM 2's padding) and an empty region.
    """
    wrong = true ^ found
    if not wrong.any():
        return np.zeros((1, 2), np.float32), np.array([-1], np.int32), wrong
    # Missed and excess regions are separate errors, even where they touch.
    missed, parts = cv2.connectedComponents((true & ~found).astype(np.uint8), connectivity=4)
    _, too_much = cv2.connectedComponents((found & ~true).astype(np.uint8), connectivity=4)
    parts = np.where(too_much > 0, too_much + missed, parts)
    if rng.random() < 0.5:
        largest = parts == np.bincount(parts[wrong]).argmax()
        v, u = _middle(largest)
    else:
        v, u = _anywhere(wrong, rng)
    point = np.array([[u + 0.5, v + 0.5]], np.float32)
    return point, np.array([int(true[v, u])], np.int32), parts == parts[v, u]


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (v, u) of a mask that is farthest from everything outside it."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    v, u = np.unravel_index(distance.argmax(), distance.shape)
    return int(v), int(u)


def _anywhere(mask: np.ndarray, rng: Generator) -> tuple[int, int]:
    """A random pixel (v, u) of a mask, which must not be empty."""
    pixels = np.flatnonzero(mask)
    v, u = np.unravel_index(pixels[rng.integers(len(pixels))], mask.shape)
    return int(v), int(u)
