"""Ways through views that choose each view by what was found in those before: as few as show it well.

A scan pays all of its views for every object. Two ways to pay less: over the views of the scan,
outward from the click, into which the mask runs (:class:`Frontier`); and with views of the object's
own, which are turned towards it and zoomed to its extent (:class:`ObjectViews`).

Both have the protocol :class:`sap_ros.core.tracker.Path`, and ``kept``: the masks that are the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import RIGHT_ANGLE, View, warp_mask
from sap_ros.core.framing import WIDEN, Framing, cut_off, deepest_pixel, spread
from sap_ros.core.fusion import ViewMask
from sap_ros.core.prompts import POSITIVE, ViewPrompt, ViewPrompts
from sap_ros.core.tracker import Step
from sap_ros.core.views import PerspectiveViews, nearness

Found = Mapping[int, ViewMask]

# A view is worth a visit when the directions on the mask come nearer a view's centre by this in sum.
_LEAST_GAIN = 0.05

# Directions that are known to be on the object need only be seen: this near a centre.
_SEEN = 1e-6

# A view that is wider than the wanted one by less than this factor, and off by less than this share of
# its field of view, shows the object well enough.
_ZOOM_TOLERANCE = 1.4
_TURN_TOLERANCE = 0.25


class Frontier:
    """Views of the scan, outward from the one that sees the prompt best, as far as the mask runs.

    Args:
        views: the views.
        prompts: the prompt in them.
        framing: when a part of the mask is seen well enough, and how many further views to visit.
        carry: in a view that sees nothing of the prompt, a click is put where the masks of the views
            before lie; without it, memory alone must find the object there.
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
        # Directions on each view's mask, and how near each view's centre they are seen.
        self._on_mask: dict[int, np.ndarray] = {}
        self._near: dict[int, np.ndarray] = {}
        # What is known to be on the object is looked at at least once, wherever the mask runs.
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
        """The view that sees the prompt best; a box that no view sees whole is clipped to it."""
        seen = nearness(self._views, self._prompts.extent()).sum(1)
        view = int(seen.argmax())
        if seen[view] < _SEEN:  # on the border of every view that sees it: at a pole
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
        """A click in the middle of the masks so far, as they would appear in a view."""
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
    """Views of the object's own, turned towards it and zoomed to its extent.

    The first is centred on the click; by its mask, the next is centred on the object, until one shows
    it whole. An object that is too wide for one view is continued by :class:`Frontier`.

    Args:
        views: the views.
        prompts: the prompt in them.
        framing: how wide a view of the object is.
        carry: see :class:`Frontier`; with it, of the candidate masks the one is taken that agrees with
            the mask of the view before.
        first: the view to begin with; None: one that is centred on the click, or that holds the
            prompt's box or mask.
    """

    #: Views of the object's own, at most.
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
        wanted = self._wanted(found)
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
        # The last view in which there was something.
        for view in reversed(self._visited):
            if view in found and (found[view].logits > 0).any():
                return {view: found[view]}
        return {i: found[i] for i in self._visited[-1:]}

    def _begin(self) -> int | None:
        extent = self._prompts.extent()
        if len(extent) > 1:
            view = self._framing.fitted(self._views, extent)
            return None if view is None else self._views.add(view)
        azimuth, elevation = sphere.direction_to_angles(extent[0])
        return self._views.add(View(float(azimuth), float(elevation)))

    def _wanted(self, found: Found) -> View | None:
        """The view that holds the mask of the last one; None: there is no mask, or no such view."""
        last = self._visited[-1]
        known = self._prompts.prompt.on_object
        on_mask = spread(self._views, last, found[last], known)
        if not len(on_mask):
            return None
        view = self._framing.fitted(self._views, np.concatenate([on_mask, known]))
        if view is not None and cut_off(found[last]):
            wider = min(RIGHT_ANGLE, WIDEN * self._views.views[last].fov)
            view = View(view.yaw, view.pitch, max(view.fov, wider))
        return view

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
