"""A panorama as views, and the features of the views that have been encoded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from sap_ros.core.model import Features, Model
from sap_ros.core.views import Views

V = TypeVar("V", bound=Views, covariant=True)


class EncodedViews(Generic[V]):
    """The views of one panorama. Each is encoded when its features are first needed.

    Args:
        model: encodes the views.
        views: of the panorama.
    """

    def __init__(self, model: Model, views: V) -> None:
        self.model, self.views = model, views
        #: How many views have been encoded; those that were released count.
        self.count = 0
        self._features: dict[int, Features] = {}

    def features(self, view: int) -> Features:
        """The features of a view."""
        if view not in self._features:
            self.count += 1
            self._features[view] = self.model.encode(self.views.upload(view))
        return self._features[view]

    def release(self, used: Collection[int]) -> None:
        """Frees the features of views of single objects, but for those in use; a scan's are kept."""
        for view in [i for i in self._features if i >= len(self.views) and i not in used]:
            del self._features[view]
