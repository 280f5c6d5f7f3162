"""The views of a panorama, with the features of those that have been encoded."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch

from sap_ros.core import sphere
from sap_ros.core.appearance import LazyAppearance, appearance, similar_places
from sap_ros.core.fusion import NO_OBJECT, Fused, Fusion, ViewMask, connected
from sap_ros.core.model import Model
from sap_ros.core.network import Features
from sap_ros.core.views import Views

V = TypeVar("V", bound=Views, covariant=True)


class EncodedViews(Generic[V]):
    """The views of one panorama; a view is encoded when its features are first needed, by whichever thread.

    Args:
        model: encodes the views.
        views: the views.
    """

    def __init__(self, model: Model, views: V) -> None:
        self.model, self.views = model, views
        #: Number of views that have been encoded, including released ones.
        self.count = 0
        self._features: dict[int, Features] = {}
        self._lock = threading.Lock()
        self._of_view: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def features(self, view: int) -> Features:
        """The features of a view."""
        with self._lock:
            encoding = self._of_view[view]
        with encoding:
            if view not in self._features:
                features = self.model.encode(self.views.upload(view))
                with self._lock:
                    self._features[view] = features
                    self.count += 1
            return self._features[view]

    @property
    def kept(self) -> tuple[int, ...]:
        """The views whose features are kept, in the order in which they were encoded."""
        return tuple(self._features)

    @torch.inference_mode()
    def appearance(self, view: int, mask: ViewMask) -> np.ndarray | None:
        """See :func:`sap_ros.core.appearance.appearance`."""
        return appearance(self.features(view), mask.logits)

    def lazy_appearance(self, view: int, mask: ViewMask) -> LazyAppearance:
        """The same, computed when it is called; until then it keeps the features of the view."""
        features = self.features(view)
        return torch.inference_mode()(lambda: appearance(features, mask.logits))

    @torch.inference_mode()
    def similar_pixels(
        self, view: int, appearances: np.ndarray, count: int, taken: Sequence[np.ndarray]
    ) -> np.ndarray:
        """The pixels of a view that look most like an object.

        Args:
            view: the view.
            appearances: (K, channels), of the object.
            count: number of pixels.
            taken: directions (P, 3) on each of the objects that are known to be elsewhere: places on them are left out.

        Returns:
            (count, 2); fewer if the rest of the view is taken.
        """
        places = [self.views.locate(view, each) / self.views.size for each in taken]
        avoided = np.concatenate([np.zeros((0, 2)), *places])
        avoided = avoided[np.isfinite(avoided).all(1)]
        return similar_places(self.features(view), appearances, count, avoided) * self.views.size

    def prompted_appearance(
        self, masks: Mapping[int, ViewMask], on_object: np.ndarray
    ) -> LazyAppearance | None:
        """The lazy appearance in the view whose mask contains most of the prompted directions (P, 3).

        Of several such views, the one with the largest mask; None if no mask contains any of them.
        """
        best, chosen = (0, 0), None
        for view, mask in masks.items():
            positive = mask.logits > 0
            side = len(positive)
            pixels = self.views.locate(view, on_object) * (side / self.views.size)
            u, v = pixels[np.isfinite(pixels).all(1)].astype(int).clip(0, side - 1).T
            worth = int(positive[v, u].sum()), int(positive.sum())
            if worth[0] and worth > best:
                best, chosen = worth, view
        return None if chosen is None else self.lazy_appearance(chosen, masks[chosen])

    def release(self, used: Collection[int]) -> None:
        """Frees the features of views fitted to objects, except those in use; those of the scan are kept."""
        for view in [i for i in self._features if i >= len(self.views) and i not in used]:
            del self._features[view]

    def fuse(
        self,
        masks: Mapping[int, ViewMask],
        on_object: np.ndarray | None,
        fusion: Fusion,
        prompted_here: bool,
    ) -> Fused:
        """An object's logits on the panorama, from its masks in views.

        Args:
            masks: by view.
            on_object: directions (P, 3) known to be on the object. For a model with a weak memory, only
                the connected parts that contain one of them are kept; None: all parts are kept.
            fusion: how views are fused.
            prompted_here: the object was prompted on this panorama: if no part contains a direction, all
                are kept, because the user prefers a mask beside the click to none.
        """
        size = self.views.panorama_size
        fused = self.views.fuse([(i, mask.logits) for i, mask in masks.items()], fusion)
        if self.model.weak_memory and on_object is not None:
            region, positive = fused.region, fused.logits > 0
            pixels = region.locate(sphere.direction_to_pixel(on_object, size), size[0])
            kept = connected(positive, pixels, region.columns == size[0])
            if not kept.any() and prompted_here:
                kept = positive
            fused.logits[~kept] = NO_OBJECT
        return fused
