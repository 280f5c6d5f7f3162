"""The strategies that search a panorama for an object, with one protocol.

A :class:`Search` belongs to one panorama. The session calls ``find`` for an object that was prompted on
this panorama, and ``follow`` for an object that was prompted on an earlier one. The strategies:

- ``scan``: all perspective views of the scan, in its order (the paper's method).
- ``frontier``: only the views of the scan that the object's mask extends into.
- ``gimbal``: views that are turned towards the object and zoomed to its extent.
- ``auto``: one view of the scan first, then as ``gimbal``.
- ``direct``: the panorama itself, resized to the model's input (the paper's baseline of SAM 2).
- ``patches``: overlapping square crops of the panorama, in the scan's order (the paper's ablation).

All of them search for a lost object in the views chosen by :func:`views_to_search`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.appearance import FOUND_IN_VIEW, UNLIKE
from sap_ros.core.camera import level_view
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.exploration import Frontier, ObjectViews
from sap_ros.core.framing import Framing, cut_off
from sap_ros.core.fusion import Fusion, ViewMask
from sap_ros.core.memory import RECENT
from sap_ros.core.model import Model
from sap_ros.core.motion import Following, grown
from sap_ros.core.projection import Picture
from sap_ros.core.prompts import ViewPrompts
from sap_ros.core.redetection import find_again, on_another, place_of, without_others
from sap_ros.core.scan import DEFAULT_SCAN, Scan, tilted
from sap_ros.core.tracked_object import TrackedObject
from sap_ros.core.tracker import explore, follow, track
from sap_ros.core.views import Crops, PerspectiveViews, Views, WholePanorama, cover, nearness_in

Strategy = Literal["auto", "gimbal", "frontier", "scan", "direct", "patches"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

#: The views that are given the prompt: ``all`` that see it (the paper's method), or only the ``first``
#: in the object's order (an ablation).
PromptedViews = Literal["all", "first"]


# A view that is encoded already is taken for the first look at a click if the click is this near to its middle, see
# :func:`sap_ros.core.views.nearness`. In the nearest view of the scan it is 0.59 or more, but for the poles.
_NEAR_ENOUGH = 0.4

_NO_DIRECTIONS = np.zeros((0, 3))

# A mask that covers more than this share of a view does not separate an object from its background.
_WHOLE_VIEW = 0.95


@dataclass(frozen=True)
class Found:
    """Result of a search for an object.

    Attributes:
        masks: by view, in the order of the visits.
        on_object: directions (P, 3) on the object, from its prompt or its moved clicks; None if it was
            found from memory alone.
    """

    masks: dict[int, ViewMask]
    on_object: np.ndarray | None

    @property
    def empty(self) -> bool:
        """Whether the masks of all views are empty."""
        return not any((mask.logits > 0).any() for mask in self.masks.values())


@dataclass(frozen=True)
class Run:
    """The options of one search for one object.

    Attributes:
        following: limits of its motion.
        recent: number of its most recent views that memory attention reads, besides the prompted ones.
        visited: called with each view after it was decoded.
        coarse_visited: called after each view of a coarse search.
        others: the other objects, for which a lost object is not to be mistaken.
        first: the view to begin with, see :meth:`Search.first_view`.
    """

    following: Following
    recent: int = RECENT
    visited: Callable[[int], None] = lambda _: None
    coarse_visited: Callable[[], None] = lambda: None
    others: Sequence[TrackedObject] = ()
    first: int | None = None


@dataclass(frozen=True)
class Hint:
    """Where a coarse search found an object.

    Attributes:
        directions: (P, 3) that sample its coarse mask.
        views: views of the scan in which its coarse mask is not empty.
    """

    directions: np.ndarray
    views: frozenset[int]


class Search(Protocol):
    """Searches one panorama for objects; several threads may do so, for one object each."""

    @property
    def encoded(self) -> EncodedViews[Views]:
        """The views of the panorama, and their features."""

    def first_view(self, tracked: TrackedObject) -> int | None:
        """The view to begin with for a prompted object, if that depends on the first views of earlier objects.

        It is asked for all objects, in order, before they are searched for side by side.
        """

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        """Searches for an object that was prompted on this panorama, with a hint only around it."""

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        """Searches for an object that was prompted on an earlier panorama."""


#: Makes the search for a picture and its up direction.
OpenSearch = Callable[[Picture, sphere.Up], Search]


def search_by(
    strategy: Strategy,
    model: Model,
    framing: Framing | None = None,
    scan: Scan | None = None,
    prompted: PromptedViews = "all",
    coarse: int = 0,
    fusion: Fusion | None = None,
) -> OpenSearch:
    """Returns a function that makes the search for a picture.

    The views are level, except for ``direct`` and ``patches``, which show the panorama as it is.

    Args:
        strategy: name of the strategy.
        model: the model.
        framing: how ``auto``, ``gimbal`` and ``frontier`` choose views.
        scan: the path of perspective views.
        prompted: the views that ``scan`` and ``patches`` give the prompt to.
        coarse: side in pixels of the coarse views, see :class:`CoarseToFine`; 0: no coarse search.
            ``direct`` and ``patches`` ignore it.
        fusion: how the coarse views are fused; None: the model's default.

    Raises:
        ValueError: the strategy or ``prompted`` is unknown.
    """
    for name, value, known in (
        ("strategy", strategy, STRATEGIES),
        ("prompted", prompted, get_args(PromptedViews)),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    chosen_framing, chosen_scan = framing or Framing(), scan or DEFAULT_SCAN

    def perspective(
        picture: Picture, up: sphere.Up, model: Model
    ) -> EncodedViews[PerspectiveViews]:
        scan = tilted(chosen_scan, up)
        return EncodedViews(model, PerspectiveViews(picture, model.image_size, scan, model.device))

    def whole(picture: Picture, up: sphere.Up) -> Search:
        views = WholePanorama(picture.panorama(), model.image_size)
        return ViewSearch(EncodedViews(model, views), prompted)

    def crops(picture: Picture, up: sphere.Up) -> Search:
        views = Crops(picture.panorama(), model.image_size)
        return ViewSearch(EncodedViews(model, views), prompted)

    def fine(picture: Picture, up: sphere.Up) -> Search:
        encoded = perspective(picture, up, model)
        if strategy == "scan":
            return ViewSearch(encoded, prompted)
        if strategy == "frontier":
            return FrontierSearch(encoded, chosen_framing)
        return ObjectViewSearch(encoded, chosen_framing, begin_on_scan=strategy == "auto")

    if strategy == "direct":
        return whole
    if strategy == "patches":
        return crops
    if not coarse:
        return fine
    small = model.resized(coarse)

    def coarse_to_fine(picture: Picture, up: sphere.Up) -> Search:
        first = FrontierSearch(perspective(picture, up, small), chosen_framing)
        return CoarseToFine(fine(picture, up), first, fusion or model.fusion)

    return coarse_to_fine


class ViewSearch:
    """Visits all views in their order, starting with the one nearest to the prompt."""

    def __init__(self, encoded: EncodedViews[Views], prompted: PromptedViews = "all") -> None:
        self.encoded = encoded
        self._prompted = prompted

    def first_view(self, tracked: TrackedObject) -> int | None:
        return None

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        loop = self.encoded.views.order(tracked.prompt.anchor)
        order = _hinted(loop, hint)
        return _find_in(self.encoded, tracked, run, order, loop, self._prompted)

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        return _follow_in_scan(self.encoded, tracked, run)


class FrontierSearch:
    """Visits views of the scan outward from the prompt, see :class:`Frontier`; follows objects as ``scan``."""

    def __init__(self, encoded: EncodedViews[PerspectiveViews], framing: Framing) -> None:
        self.encoded = encoded
        self._framing = framing

    def first_view(self, tracked: TrackedObject) -> int | None:
        return None

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        if hint is not None and hint.views:
            return _find_hinted(self.encoded, tracked, run, hint)
        prompts = _view_prompts(self.encoded, tracked)
        carry = self.encoded.model.weak_memory
        path = Frontier(self.encoded.views, prompts, self._framing, carry)
        return _explore(self.encoded, tracked, run, path)

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        return _follow_in_scan(self.encoded, tracked, run)


class ObjectViewSearch:
    """Visits views that are fitted to the object, see :class:`ObjectViews`; follows it in one such view.

    An object that is too wide for one view is followed as by ``scan``; one that is lost is searched for by its
    appearance, or, where that is not known, as by ``scan``.

    Args:
        encoded: the views of the scan; fitted views are added to them.
        framing: how views are fitted.
        begin_on_scan: the first view for a click is one of the scan, whose features all objects share: the
            nearest, or one that is needed already and shows the click well; otherwise a view centred on the click.
    """

    def __init__(
        self, encoded: EncodedViews[PerspectiveViews], framing: Framing, begin_on_scan: bool
    ) -> None:
        self.encoded = encoded
        self._framing, self._begin_on_scan = framing, begin_on_scan
        self._first_views: list[int] = []  # views of the scan that searches begin with

    def first_view(self, tracked: TrackedObject) -> int | None:
        one_click = len(_view_prompts(self.encoded, tracked).extent()) == 1
        if not self._begin_on_scan or tracked.own_view is not None or not one_click:
            return None
        view = self._scan_view(tracked.prompt.anchor)
        self._first_views.append(view)
        return view

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        views = self.encoded.views
        prompts = _view_prompts(self.encoded, tracked)
        first = None
        if tracked.own_view is not None:  # a correction starts with the view fitted to the object
            first = views.add(tracked.own_view)
        elif hint is not None:
            around = np.concatenate([hint.directions, tracked.prompt.on_object])
            fitted = self._framing.fitted(views, around)
            if fitted is None and hint.views:
                return _find_hinted(self.encoded, tracked, run, hint)
            first = None if fitted is None else views.add(fitted)
        if first is None:
            first = run.first
        if first is not None and prompts.at(first) is None:  # it does not see a new box or mask
            first = None
        carry = self.encoded.model.weak_memory
        path = ObjectViews(views, prompts, self._framing, carry, first)
        found = _explore(self.encoded, tracked, run, path)
        own = [i for i in found.masks if i >= len(views)]
        tracked.own_view = views.views[own[0]] if own else None
        return found

    def _scan_view(self, click: np.ndarray) -> int:
        """The view of the scan to begin with for a click (3,): the nearest, or one that is needed already.

        So a click near another one is answered in less time; its mask may then differ a little.
        """
        views = self.encoded.views
        nearest = views.scan.nearest(click)
        needed = [view for view in (*self.encoded.kept, *self._first_views) if view < len(views)]
        if nearest in needed:
            return nearest
        near = [float(nearness_in(views, view, click[None])[0]) for view in needed]
        return needed[int(np.argmax(near))] if max(near, default=0.0) >= _NEAR_ENOUGH else nearest

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        views, known = self.encoded.views, tracked.track
        if tracked.lost_for and _known_by_appearance(self.encoded, tracked):
            return self._find_again(tracked, run)
        if known is None or tracked.lost_for:
            return _follow_in_scan(self.encoded, tracked, run)
        view = self._framing.following(views, known.moved, run.following.reach)
        if view is None:
            found = _follow_in_scan(self.encoded, tracked, run)
            if found.empty and _known_by_appearance(self.encoded, tracked):
                return self._find_again(tracked, run)
            return found
        index = views.add(view)
        found = _follow_in(self.encoded, tracked, run, (index,))
        mask = found.masks[index]
        wider = (
            self._framing.refitted(views, index, mask, _NO_DIRECTIONS) if cut_off(mask) else None
        )
        if wider is not None:
            found = _follow_in(self.encoded, tracked, run, (views.add(wider),))
        if not self.encoded.model.weak_memory:
            return found
        doubtful = found.empty or self._doubtful(tracked, found)
        if doubtful and _known_by_appearance(self.encoded, tracked):
            return self._find_again(tracked, run)
        return found

    def _doubtful(self, tracked: TrackedObject, found: Found) -> bool:
        """Whether masks have grown suddenly, and do not look like the object."""
        for view, mask in found.masks.items():
            if tracked.grew(mask, self.encoded.views.solid_angle(view)):
                likeness = tracked.appearances.likeness(self.encoded.appearance(view, mask))
                return not likeness > FOUND_IN_VIEW  # also where it is unknown
        return False

    def _find_again(self, tracked: TrackedObject, run: Run) -> Found:
        """Searches for a lost object by its appearance, in one view around its last position and some others."""
        tracked.take_off_turn()
        views, known = self.encoded.views, tracked.track
        assert known is not None
        near = views.add(level_view(known.directions.mean(0), up=views.scan.up))
        far = _further_views(views, tracked, run.following)
        return _find_again(self.encoded, tracked, run, (near,), far, self._framing)


class CoarseToFine:
    """Searches for a clicked object in small views first, then in large views only where it was found.

    Args:
        fine: the search in views of the model's own size.
        coarse: the search in small views.
        fusion: how the coarse views are fused.
    """

    def __init__(self, fine: Search, coarse: FrontierSearch, fusion: Fusion) -> None:
        self._fine, self._coarse, self._fusion = fine, coarse, fusion

    @property
    def encoded(self) -> EncodedViews[Views]:
        return self._fine.encoded

    def first_view(self, tracked: TrackedObject) -> int | None:
        return self._fine.first_view(tracked)

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        clicked = len(tracked.prompt.labels) > 0
        if clicked and tracked.own_view is None and hint is None:
            hint = self._glance(tracked, run)
        return self._fine.find(tracked, run, hint)

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        return self._fine.follow(tracked, run)

    def _glance(self, tracked: TrackedObject, run: Run) -> Hint | None:
        """Where the coarse search found the object; None if it did not."""
        glanced = TrackedObject(tracked.prompt)
        options = Run(run.following, visited=lambda _: run.coarse_visited())
        found = self._coarse.find(glanced, options)
        glanced.masks = found.masks
        encoded = self._coarse.encoded
        fused = encoded.fuse(found.masks, found.on_object, self._fusion, prompted_here=True)
        size = encoded.views.panorama_size
        glanced.note(fused.region, fused.logits > 0, size)
        if glanced.track is None:
            return None
        seen = frozenset(i for i, mask in found.masks.items() if (mask.logits > 0).any())
        return Hint(glanced.track.directions, seen)


def views_to_search(views: Views, tracked: TrackedObject, following: Following) -> tuple[int, ...]:
    """The views that may show an object from an earlier panorama.

    These are the few that cover its last position, grown by the angle it may have moved. For a lost
    object, ``following.search`` further views are added on each panorama, so that the whole sphere is
    searched in turn.
    """
    known = _last_directions(tracked)
    if following.everywhere:
        return views.order(known.mean(0))
    near = cover(views, grown(known, following.reach))
    return tuple(dict.fromkeys([*near, *_further_views(views, tracked, following)]))


def _last_directions(tracked: TrackedObject) -> np.ndarray:
    return tracked.track.directions if tracked.track else tracked.prompt.anchor[None]


def _further_views(views: Views, tracked: TrackedObject, following: Following) -> tuple[int, ...]:
    """The views of the scan that are searched in turn for a lost object, beside those near it."""
    if not tracked.lost_for:
        return ()
    loop = views.order(_last_directions(tracked).mean(0))
    first = (tracked.lost_for - 1) * following.search
    return tuple(loop[(first + i) % len(loop)] for i in range(following.search))


def _view_prompts(encoded: EncodedViews[Views], tracked: TrackedObject) -> ViewPrompts:
    """The prompt in each view, with the mask logits that it corrects."""
    return ViewPrompts(encoded.views, tracked.prompt, tracked.feedback)


def _hinted(loop: tuple[int, ...], hint: Hint | None) -> tuple[int, ...]:
    return tuple(i for i in loop if hint is None or not hint.views or i in hint.views)


def _find_hinted(
    encoded: EncodedViews[PerspectiveViews], tracked: TrackedObject, run: Run, hint: Hint
) -> Found:
    loop = encoded.views.order(tracked.prompt.anchor)
    return _find_in(encoded, tracked, run, _hinted(loop, hint), loop, "all")


def _find_in(
    encoded: EncodedViews[Views],
    tracked: TrackedObject,
    run: Run,
    order: tuple[int, ...],
    loop: tuple[int, ...],
    prompted: PromptedViews,
) -> Found:
    """Searches for a prompted object in the views of ``order``; in all views if none of them sees the prompt."""
    in_views = _view_prompts(encoded, tracked)
    prompts = in_views.all(order if prompted == "all" else order[:1])
    if not prompts:
        order, prompts = loop, in_views.all(loop)
    masks = track(
        encoded.model, encoded.features, order, prompts, run.visited, tracked.memory, run.recent
    )
    return Found(masks, tracked.prompt.on_object)


def _explore(
    encoded: EncodedViews[PerspectiveViews],
    tracked: TrackedObject,
    run: Run,
    path: Frontier | ObjectViews,
) -> Found:
    """Searches for a prompted object along a path."""
    masks = explore(encoded.model, encoded.features, path, run.visited, tracked.memory, run.recent)
    return Found(path.kept(masks), tracked.prompt.on_object)


def _follow_in_scan(encoded: EncodedViews[Views], tracked: TrackedObject, run: Run) -> Found:
    order = views_to_search(encoded.views, tracked, run.following)
    if tracked.lost_for and _known_by_appearance(encoded, tracked):
        far = _further_views(encoded.views, tracked, run.following)
        near = [view for view in order if view not in far]
        return _find_again(encoded, tracked, run, near, far, None)
    return _follow_in(encoded, tracked, run, order, compared=encoded.model.weak_memory)


def _known_by_appearance(encoded: EncodedViews[Views], tracked: TrackedObject) -> bool:
    """Whether to search for a lost object by its appearance; a memory that is not weak works better."""
    was_found = tracked.track is not None
    return encoded.model.weak_memory and was_found and len(tracked.appearances.values()) > 0


def _find_again(
    encoded: EncodedViews[Views],
    tracked: TrackedObject,
    run: Run,
    near: Sequence[int],
    far: Sequence[int],
    framing: Framing | None,
) -> Found:
    best = find_again(encoded, tracked, run.following, run.others, near, far, framing, run.visited)
    if best is None:
        return Found({}, None)
    # This view alone: in a weighted mean, views with less of the object would outvote it.
    return Found({best.view: best.mask}, best.direction[None])


def _follow_in(
    encoded: EncodedViews[Views],
    tracked: TrackedObject,
    run: Run,
    order: tuple[int, ...],
    compared: bool = False,
) -> Found:
    """Searches views for an object from an earlier panorama, by memory and, if that is weak, by moved clicks.

    With a weak memory, the object's last mask also chooses among the candidate masks; ``compared``: masks that do not
    look like the object at all are not accepted. In a view of the scan, the mask of an object that reaches beyond it may
    drift onto the wall behind.
    """
    views, weak = encoded.views, encoded.model.weak_memory
    clicks = tracked.expected_clicks() if weak else None
    prompts = ViewPrompts(views, clicks).all(order) if clicks is not None else {}
    priors = {}
    if weak and tracked.track is not None and not tracked.lost_for:
        last = views.of_labels(tracked.track.mask, views.size // 4)
        priors = {view: last.render(view) > 0 for view in order}

    def accept(view: int, mask: ViewMask) -> bool:
        if not tracked.credible(mask, views.solid_angle(view), run.following):
            return False
        if tracked.lost_for:
            direction = place_of(views, view, mask)
            if on_another(views, view, mask, direction, run.others):
                return False
        whole = float((mask.logits > 0).mean()) > _WHOLE_VIEW
        if compared and not whole:  # a mask of the whole view has no surroundings to differ from
            likeness = tracked.appearances.likeness(encoded.appearance(view, mask))
            if likeness < UNLIKE:  # False where it is unknown
                return False
        # When the object is gone, the decoder often masks the whole view. Such a mask is accepted only for an
        # object that is known to be that large.
        return not whole or tracked.usual_solid_angle >= _WHOLE_VIEW * views.solid_angle(view)

    masks = follow(
        encoded.model,
        encoded.features,
        order,
        tracked.memory,
        prompts,
        priors,
        accept,
        run.visited,
        run.recent,
    )
    if weak and tracked.track is not None and not tracked.lost_for:
        masks = {
            view: without_others(views, view, mask, tracked.track, run.others, run.following)
            for view, mask in masks.items()
        }
    return Found(masks, None if clicks is None else clicks.on_object)
