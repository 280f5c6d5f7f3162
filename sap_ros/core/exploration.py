"""Paths that choose each view by the masks found so far, to see an object well in as few views as possible.

A scan visits all of its views for every object. The paths here visit fewer: the views of the scan that
the mask extends into, from the click outward (:class:`Frontier`); or views that are turned towards the
object and zoomed to its extent (:class:`ObjectViews`).

Both implement the protocol :class:`sap_ros.core.tracker.Path`, and ``kept``, which returns the masks to use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import level_view, warp_mask
from sap_ros.core.framing import Framing, cut_off, deepest_pixel, spread
from sap_ros.core.fusion import ViewMask
from sap_ros.core.prompts import POSITIVE, ViewPrompt, ViewPrompts
from sap_ros.core.tracker import Step
from sap_ros.core.views import PerspectiveViews, nearness

Found = Mapping[int, ViewMask]

# A view is visited only if it increases the nearness of the mask's directions by more than this in sum.
_LEAST_GAIN = 0.05

# A direction with at least this nearness is in the view; directions known to be on the object need no more.
_SEEN = 1e-6

# A view shows the object well enough if it is wider than the wanted view by less than this factor, and its
# axis differs by less than this share of the wanted field of view.
_ZOOM_TOLERANCE = 1.4
_TURN_TOLERANCE = 0.25


class Frontier:
    """Views of the scan that the mask extends into, from the view that sees the prompt best outward.

    Args:
        views: the views.
        prompts: the prompt in them.
        framing: when a part of the mask is seen well enough, and how many further views to visit.
        carry: a view that does not see the prompt is given a click in the middle of the masks found so
            far; if False, the object is found there from memory alone.
        visited: views of the scan that have been visited already.
    """

    def __init__(
        self,
        views: PerspectiveViews,
        prompts: ViewPrompts,
        framing: Framing,
        carry: bool,
        visited: Sequence[int] = (),
    ) -> None:
        self._views, self._prompts = views, prompts
        self._framing, self._carry = framing, carry
        self._further = framing.further
        self._visited = list(visited)
        # By view: directions on its mask, and their nearness to the centre of every view.
        self._on_mask: dict[int, np.ndarray] = {}
        self._near: dict[int, np.ndarray] = {}
        # Directions known to be on the object are seen at least once, even if no mask extends to them.
        self._near_known = nearness(views, prompts.prompt.on_object)

    def next(self, found: Found) -> Step | None:
        if not self._visited:
            return self._first()
        masks = self.kept(found)
        for i, mask in masks.items():
            if i not in self._on_mask:
                on_mask = spread(self._views, i, mask, self._prompts.prompt.on_object)
                self._on_mask[i], self._near[i] = on_mask, nearness(self._views, on_mask)
        on_mask = np.concatenate(list(self._on_mask.values()))
        near = np.concatenate([*self._near.values(), self._near_known], axis=1)
        enough = np.full(near.shape[1], self._framing.settled)
        enough[len(on_mask) :] = _SEEN
        best = near[self._visited].max(0)
        free = [i for i in range(len(self._views)) if i not in self._visited]
        if not free:
            return None
        gain = np.where(best < enough, (near[free] - best).clip(min=0), 0).sum(1)
        if gain.max() > _LEAST_GAIN:
            return self._step(free[int(gain.argmax())], masks)
        if self._further and len(on_mask):
            self._further -= 1
            axes = np.stack([self._views.views[i].axis for i in free])
            return self._step(free[int((axes @ on_mask.T).max(1).argmax())], masks)
        return None

    def kept(self, found: Found) -> dict[int, ViewMask]:
        return {i: found[i] for i in self._visited if i in found}

    def _first(self) -> Step:
        """The view that sees the prompt best; a box that no view contains is clipped to it."""
        seen = nearness(self._views, self._prompts.extent()).sum(1)
        view = int(seen.argmax())
        if seen[view] < _SEEN:  # only on the border of views, as a pole is
            view = self._views.scan.nearest(self._prompts.prompt.anchor)
        self._visited.append(view)
        return Step(view, self._prompts.at(view) or self._prompts.at(view, whole=False))

    def _step(self, view: int, found: Found) -> Step:
        self._visited.append(view)
        prompt = self._prompts.at(view)
        if prompt is None and self._carry:
            prompt = self._carried_click(view, found)
        return Step(view, prompt)

    def _carried_click(self, view: int, found: Found) -> ViewPrompt | None:
        """A click in the middle of the masks found so far, warped to a view."""
        views, size = self._views.views, self._views.size
        warped = [
            warp_mask(mask.logits, views[i], views[view], size) > 0 for i, mask in found.items()
        ]
        pixel = deepest_pixel(np.any(warped, axis=0)) if warped else None
        if pixel is None:
            return None
        points = np.array([pixel], np.float32) * (size / len(warped[0]))
        return ViewPrompt(points, np.array([POSITIVE], np.int32))


class ObjectViews:
    """Views that are turned towards the object and zoomed to its extent.

    The first view is centred on the click. Each further view is fitted to the mask of the previous one,
    until a view shows the whole object. If the object is too wide for one view, :class:`Frontier`
    continues over the scan.

    Args:
        views: the views.
        prompts: the prompt in them.
        framing: how wide a view of the object is.
        carry: see :class:`Frontier`; if True, the mask of the previous view has a say, too, in which candidate is taken.
        first: the first view; None: a view centred on the click, or fitted to the prompt's box or mask.
    """

    #: Maximum number of such views.
    MOST = 4

    def __init__(
        self,
        views: PerspectiveViews,
        prompts: ViewPrompts,
        framing: Framing,
        carry: bool,
        first: int | None = None,
    ) -> None:
        self._views, self._prompts = views, prompts
        self._framing, self._carry = framing, carry
        self._visited: list[int] = []
        self._first = first
        self._frontier: Frontier | None = None

    def next(self, found: Found) -> Step | None:
        if self._frontier is not None:
            return self._frontier.next(found)
        if not self._visited:
            view = self._first if self._first is not None else self._begin()
            return self._continue_over_scan(found) if view is None else self._step(view, found)
        last = self._visited[-1]
        if len(self._visited) == self.MOST:
            return self._continue_over_scan(found) if cut_off(found[last]) else None
        known = self._prompts.prompt.on_object
        wanted = self._framing.refitted(self._views, last, found[last], known)
        if wanted is None:
            empty = not (found[last].logits > 0).any()
            return None if empty else self._continue_over_scan(found)
        now = self._views.views[last]
        off = sphere.angle_between(now.axis, wanted.axis)
        well_framed = now.fov < _ZOOM_TOLERANCE * wanted.fov and off < _TURN_TOLERANCE * wanted.fov
        if well_framed and not cut_off(found[last]):
            return None
        return self._step(self._views.add(wanted), found)

    def kept(self, found: Found) -> dict[int, ViewMask]:
        if self._frontier is not None:
            return self._frontier.kept(found)
        # The last view with a non-empty mask.
        for view in reversed(self._visited):
            if view in found and (found[view].logits > 0).any():
                return {view: found[view]}
        return {i: found[i] for i in self._visited[-1:]}

    def _begin(self) -> int | None:
        extent = self._prompts.extent()
        if len(extent) > 1:
            view = self._framing.fitted(self._views, extent)
            return None if view is None else self._views.add(view)
        return self._views.add(level_view(extent[0], up=self._views.scan.up))

    def _continue_over_scan(self, found: Found) -> Step | None:
        visited = [i for i in self._visited if i < len(self._views)]
        self._frontier = Frontier(self._views, self._prompts, self._framing, self._carry, visited)
        return self._frontier.next(found)

    def _step(self, view: int, found: Found) -> Step:
        prior = None
        if self._visited and self._carry:
            before = self._visited[-1]
            views = self._views.views
            prior = (
                warp_mask(found[before].logits, views[before], views[view], self._views.size) > 0
            )
        self._visited.append(view)
        return Step(view, self._prompts.at(view), prior)
