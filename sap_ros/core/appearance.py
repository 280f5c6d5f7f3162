"""Appearance of an object, to recognise it after it was lost.

The mask decoder's own scores are no check: when the object is gone, it masks something else with a high
predicted IoU. The appearance of a mask is computed from the image encoder's features, which exist already:
the mean feature inside the mask minus the mean feature of the background around it, in each of their three maps. The
appearance of a new mask is compared with that of the prompted mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sap_ros.core.memory import once

if TYPE_CHECKING:  # it imports torch, which sessions need only with their first image
    from sap_ros.core.network import Features

#: Minimum similarity to the prompted mask at which a lost object counts as found: at the position expected
#: from its motion, and elsewhere. Chosen on moving scenes in which half of the image is covered for three of
#: ten images: with lower values, other objects are more often mistaken for it; with higher values, fewer
#: objects are found.
FOUND_IN_PLACE = 0.55
FOUND_AGAIN = 0.8

#: The same for a mask in a view that is fitted to it, as those are in which the object was tracked: where the object
#: is likely to be, and where it hardly can be. Chosen on sixteen traced drives with twins. There, by the true masks, the
#: object has 0.92 or more in nine of ten such views (median 0.98), another object less than 0.9 in 19 of 20; a twin is
#: often as alike as the object itself.
FOUND_IN_VIEW = 0.87
FOUND_FAR = 0.98

#: A mask in a view of the scan that is less similar than this is not the object's, even if it was followed to there.
UNLIKE = 0.3

# Number of appearances that are kept of an object beside that of its prompted mask.
_LATER = 3

# Width of the background around the mask, as a share of the view's side.
_BACKGROUND = 1 / 8

_NO_PLACES = np.zeros((0, 2))

# A mask, or its background, has an appearance only if it covers this many cells of the feature map.
_LEAST_CELLS = 0.5


def appearance(features: Features, logits: np.ndarray) -> np.ndarray | None:
    """How the inside of a mask differs from its surroundings.

    Args:
        features: features of the view.
        logits: (n, n) mask logits in the view.

    Returns:
        (channels,) float32: the difference in each map of the features, as a unit vector each; those of the
        coarsest map, of stride 16, come last. None if the mask or its surroundings are too small.
    """
    positive = (logits > 0).astype(np.uint8)
    reach = 2 * round(len(positive) * _BACKGROUND) + 1
    around = cv2.dilate(positive, np.ones((reach, reach), np.uint8)) - positive
    differences = []
    for values, (height, width) in zip(features.maps[::-1], features.sizes[::-1], strict=True):
        weights = np.stack(
            [
                cv2.resize(part.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
                for part in (positive, around)
            ]
        ).reshape(2, -1)
        cells = weights.sum(1, keepdims=True)
        if cells.min() < _LEAST_CELLS:
            return None
        # In numpy: torch's threads take a hundred times as long to wake up for so small a product next to ONNX
        # Runtime's.
        inside, outside = (weights / cells) @ values[:, 0].float().cpu().numpy()
        difference = inside - outside
        differences.append(difference / max(float(np.linalg.norm(difference)), 1e-12))
    return np.concatenate(differences[::-1]).astype(np.float32)


def similar_places(
    features: Features,
    appearances: np.ndarray,
    count: int = 1,
    avoided: np.ndarray = _NO_PLACES,
) -> np.ndarray:
    """The places in a view that look most like an object, the most similar first.

    Args:
        features: features of the view; places are cells of the coarsest map, of stride 16.
        appearances: (K, channels), see :func:`appearance`; a place is compared with each of them.
        count: number of places, at least 1.
        avoided: (P, 2) as shares (u, v): the map's cells that hold one of these are left out.

    Returns:
        (count, 2) as shares (u, v) of the view's side; fewer if all cells are left out.
    """
    import torch
    import torch.nn.functional as F

    height, width = features.sizes[-1]
    reach = 2 * round(width * _BACKGROUND) + 1
    cosines, begin = torch.zeros((), device=features.maps[-1].device), 0
    for values, size in zip(features.maps, features.sizes, strict=True):
        cells = values[:, 0].float().T.unflatten(1, size)[None]
        cells = F.adaptive_avg_pool2d(cells, (height, width))
        around = F.avg_pool2d(cells, reach, 1, reach // 2, count_include_pad=False)
        end = begin + cells.shape[1]
        looks = torch.from_numpy(np.ascontiguousarray(appearances[:, begin:end]))
        looks = looks.to(cells.device, non_blocking=True)[:, :, None, None]
        cosines = cosines + F.cosine_similarity(cells - around, looks, dim=1)
        begin = end
    likeness = cosines.amax(0).cpu().numpy()
    columns, rows = (avoided * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
    likeness[rows, columns] = -np.inf
    places: list[list[float]] = []
    for _ in range(count):
        v, u = divmod(int(likeness.argmax()), width)
        if likeness[v, u] == -np.inf:
            break
        places.append([(u + 0.5) / width, (v + 0.5) / height])
        near = reach // 2  # the next place is elsewhere
        likeness[max(v - near, 0) : v + near + 1, max(u - near, 0) : u + near + 1] = -np.inf
    return np.array(places).reshape(-1, 2)


def similarity(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Cosine similarity of two appearances (channels,), -1 to 1; NaN if one is None."""
    if one is None or other is None:
        return float("nan")
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / max(lengths, 1e-12)


#: Computes an appearance (channels,), or None.
LazyAppearance = Callable[[], np.ndarray | None]


class Appearances:
    """The appearances of one object: where it was prompted, and on a few later panoramas.

    They are computed when they are first read: when the object is lost, or followed in views of the scan. Until then
    each keeps the features of one view.

    Args:
        prompted: computes the first one; None: there is none.
    """

    def __init__(self, prompted: LazyAppearance | None = None) -> None:
        self._prompted = [] if prompted is None else [once(prompted)]
        self._later: deque[LazyAppearance] = deque(maxlen=_LATER)

    def add(self, later: LazyAppearance) -> None:
        """Remembers a later appearance; the oldest later one is forgotten when there are too many."""
        self._later.append(once(later))

    def values(self) -> np.ndarray:
        """All appearances (K, channels); K is 0 if there is none."""
        computed = (each() for each in (*self._prompted, *self._later))
        found = [each for each in computed if each is not None]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    def likeness(self, other: np.ndarray | None) -> float:
        """The highest similarity of an appearance (channels,) to one of the object's; NaN if unknown."""
        return max((similarity(each, other) for each in self.values()), default=float("nan"))
