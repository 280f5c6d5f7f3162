"""Prompts as training draws them from true masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator


def click_on(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """A pixel (u, v) of a mask (S, S) bool: half of the time in its middle, else anywhere on it."""
    v, u = _middle(mask) if rng.random() < 0.5 else _anywhere(mask, rng)
    return np.array([u + 0.5, v + 0.5])


def draw_prompt(mask: np.ndarray, kind: str, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prompt for one object of a view.

    Args:
        mask: (S, S) bool, not empty.
        kind: ``click``, ``clicks`` (four, of which some may be negative) or ``box`` (jittered).

    Returns:
        Points (P, 2) in view pixels and SAM 2's labels (P,), always of the same P for a kind.
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
    """A click where a mask is wrong: positive where it misses, negative where it takes too much.

    Half of the time it is in the middle of the largest error, as SAM 2 is evaluated and as a person
    does it, else anywhere that is wrong, as SAM 2 is trained.

    Args:
        true, found: (S, S) bool.

    Returns:
        Point (1, 2), label (1,), and what the click is about (S, S) bool: the connected error that it
        lies in. Label -1, SAM 2's padding, and nothing where no pixel is wrong.
    """
    wrong = true ^ found
    if not wrong.any():
        return np.zeros((1, 2), np.float32), np.array([-1], np.int32), wrong
    # What is missed and what is too much are different errors, also where they touch.
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
    """The pixel (v, u) of a mask that is farthest from all that is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    v, u = np.unravel_index(distance.argmax(), distance.shape)
    return int(v), int(u)


def _anywhere(mask: np.ndarray, rng: Generator) -> tuple[int, int]:
    """A pixel (v, u) of a mask, which must not be empty."""
    pixels = np.flatnonzero(mask)
    v, u = np.unravel_index(pixels[rng.integers(len(pixels))], mask.shape)
    return int(v), int(u)
