"""Appearance of an object, to recognise it after it was lost.

The mask decoder's own scores are no check: when the object is gone, it masks something else with a high
predicted IoU. The appearance of a mask is computed from the image encoder's features, which exist already:
the mean feature inside the mask minus the mean feature of the background around it. The appearance of a new
mask is compared with that of the prompted mask.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sap_ros.core.network import Features

#: Minimum similarity to the prompted mask at which a lost object counts as found: at the position expected
#: from its motion, and elsewhere. Chosen on moving scenes in which half of the image is covered for three of
#: ten images: with lower values, other objects are more often mistaken for it; with higher values, fewer
#: objects are found.
FOUND_IN_PLACE = 0.55
FOUND_AGAIN = 0.8

# Width of the background around the mask, as a share of the view's side.
_BACKGROUND = 1 / 8

# A mask, or its background, has an appearance only if it covers this many cells of the feature map.
_LEAST_CELLS = 0.5


def appearance(features: Features, logits: np.ndarray) -> np.ndarray | None:
    """How the inside of a mask differs from its surroundings.

    Args:
        features: features of the view; the coarsest map, of stride 16, is used.
        logits: (n, n) mask logits in the view.

    Returns:
        (channels,) float32; None if the mask or its surroundings are too small.
    """
    height, width = features.sizes[-1]
    positive = (logits > 0).astype(np.uint8)
    reach = 2 * round(len(positive) * _BACKGROUND) + 1
    around = cv2.dilate(positive, np.ones((reach, reach), np.uint8)) - positive
    weights = np.stack(
        [
            cv2.resize(part.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            for part in (positive, around)
        ]
    ).reshape(2, -1)
    cells = weights.sum(1, keepdims=True)
    if cells.min() < _LEAST_CELLS:
        return None
    # In numpy: torch's threads take a hundred times as long to wake up for so small a product next to ONNX Runtime's.
    inside, outside = (weights / cells) @ features.maps[-1][:, 0].float().cpu().numpy()
    return np.asarray(inside - outside)


def most_similar_place(features: Features, object_appearance: np.ndarray) -> np.ndarray:
    """The place in a view that looks most like an object.

    Args:
        features: features of the view; the coarsest map, of stride 16, is used.
        object_appearance: (channels,), see :func:`appearance`.

    Returns:
        (u, v) as shares of the view's side.
    """
    height, width = features.sizes[-1]
    values = features.maps[-1][:, 0].float().T.unflatten(1, (height, width))[None]
    reach = 2 * round(width * _BACKGROUND) + 1
    around = F.avg_pool2d(values, reach, 1, reach // 2, count_include_pad=False)
    object_like = torch.from_numpy(object_appearance).to(values.device, non_blocking=True)
    cosines = F.cosine_similarity(values - around, object_like[None, :, None, None], dim=1)[0]
    v, u = divmod(int(cosines.argmax()), width)
    return np.array([(u + 0.5) / width, (v + 0.5) / height])


def similarity(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Cosine similarity of two appearances (channels,), -1 to 1; NaN if one is None."""
    if one is None or other is None:
        return float("nan")
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / max(lengths, 1e-12)
