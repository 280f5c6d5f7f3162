"""What a prompted object looks like, so that it is found again when it was lost.

The mask decoder's own scores are no check: where the object has gone, it masks something else with a high
predicted IoU. This compares features of the image encoder, which are there already: the mean feature
under the mask, less the mean of the background around it, now and where the object was prompted.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sap_ros.core.network import Features

#: A lost object is found again where the mask looks so much like the prompted one: where the object would
#: be if it moved on as before, and elsewhere. Chosen on moving scenes that are half covered for three of ten
#: images: with less, more other objects are taken for it, with more, fewer objects are found.
FOUND_IN_PLACE = 0.55
FOUND_AGAIN = 0.8

# The background is taken from so far around the mask, as a share of the view's side.
_BACKGROUND = 1 / 8

# Cells of the feature map that the mask must cover in sum; with fewer, it is not judged.
_LEAST_CELLS = 0.5


def appearance(features: Features, logits: np.ndarray) -> np.ndarray | None:
    """How a mask's inside differs from its surroundings.

    Args:
        features: of the view; the coarsest map, of stride 16, is used.
        logits: (n, n) mask logits in the view.

    Returns:
        (channels,) float32; None where the mask or its surroundings are too small to tell.
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
    values = features.maps[-1][:, 0].float()
    inside, outside = torch.from_numpy(weights / cells).to(values.device) @ values
    return np.asarray((inside - outside).cpu().numpy())


def most_similar_place(features: Features, object_appearance: np.ndarray) -> np.ndarray:
    """The place of a view that looks most like an object.

    Args:
        features: of the view; the coarsest map, of stride 16, is used.
        object_appearance: (channels,).

    Returns:
        (u, v) as shares of the view's sides.
    """
    height, width = features.sizes[-1]
    values = features.maps[-1][:, 0].float().T.unflatten(1, (height, width))[None]
    reach = 2 * round(width * _BACKGROUND) + 1
    around = F.avg_pool2d(values, reach, 1, reach // 2, count_include_pad=False)
    object_like = torch.from_numpy(object_appearance).to(values.device)[None, :, None, None]
    cosines = F.cosine_similarity(values - around, object_like, dim=1)[0]
    v, u = divmod(int(cosines.argmax()), width)
    return np.array([(u + 0.5) / width, (v + 0.5) / height])


def similarity(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """The cosine of two appearances (channels,), -1 to 1; NaN where one is not known."""
    if one is None or other is None:
        return float("nan")
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / max(lengths, 1e-12)
