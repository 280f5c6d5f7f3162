"""How an object is looked for on a panorama: where a person prompted it, and where it may be later.

A :class:`Search` belongs to one panorama. The session calls ``find`` for an object that was prompted on
the panorama, and ``follow`` for one that was found on the panorama before, without knowing which search
it is. The strategies:

- ``scan``: all perspective views of the scan, in its order: the method.
- ``frontier``: of these, only those into which the object's mask runs.
- ``gimbal``: views that are turned towards the object and zoomed to its extent.
- ``auto``: one view of the scan first, then as ``gimbal``.
- ``direct``: the panorama itself, resized to the model's input (the paper's baseline of SAM 2).
- ``patches``: overlapping square crops of the panorama, in the scan's order (the paper's ablation).

How a lost object is looked for is :func:`views_to_search`, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np

from sap_ros.core.appearance import FOUND_AGAIN, FOUND_IN_PLACE, similarity
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.exploration import Frontier, ObjectViews
from sap_ros.core.framing import Framing, deepest_pixel
from sap_ros.core.fusion import Fusion, ViewMask
from sap_ros.core.memory import RECENT, ObjectMemory
from sap_ros.core.model import Model
from sap_ros.core.motion import Following, grown, rotation_between
from sap_ros.core.prompts import POSITIVE, ViewPrompt, ViewPrompts
from sap_ros.core.scan import Scan
from sap_ros.core.tracked_object import TrackedObject
from sap_ros.core.tracker import explore, follow, track
from sap_ros.core.views import Crops, PerspectiveViews, Views, WholePanorama, cover

Strategy = Literal["auto", "gimbal", "frontier", "scan", "direct", "patches"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

#: Which views are given a prompt: ``all`` that see it (the method), or the ``first`` of the object's
#: order alone (an ablation).
PromptedViews = Literal["all", "first"]


# A mask that covers more than this share of a view is of the view and not of an object with a background.
_WHOLE_VIEW = 0.95


@dataclass(frozen=True)
class Found:
    """What a search found of an object.

    Attributes:
        masks: by view, in the order of the visits.
        on_object: directions (P, 3) that are on the object, by its prompt or its moved clicks; None:
            there are none, memory found it.
    """

    masks: dict[int, ViewMask]
    on_object: np.ndarray | None

    @property
    def empty(self) -> bool:
        """Whether no view has anything of the object."""
        return not any((mask.logits > 0).any() for mask in self.masks.values())


@dataclass(frozen=True)
class Run:
    """The options of one search for one object.

    Attributes:
        following: limits of its motion.
        recent: how many of its last views memory attention reads, beside the prompted ones.
        visited: called with each view when it is done.
        coarse_visited: called after each view of a coarse search.
    """

    following: Following
    recent: int = RECENT
    visited: Callable[[int], None] = lambda _: None
    coarse_visited: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Hint:
    """Where an object is, by a coarse search.

    Attributes:
        directions: (P, 3) that sample its coarse mask.
        views: views of the scan in which there was something of it.
    """

    directions: np.ndarray
    views: frozenset[int]


class Search(Protocol):
    """A way to look for objects on one panorama."""

    @property
    def encoded(self) -> EncodedViews[Views]:
        """The views of the panorama, and their features."""

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        """Looks for an object that was prompted on this panorama, perhaps where a hint says it is."""

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        """Looks for an object that was prompted on an earlier panorama."""


#: Makes the search of a panorama (H, 2H, 3) uint8.
OpenSearch = Callable[[np.ndarray], Search]


def search_by(
    strategy: Strategy,
    model: Model,
    framing: Framing | None = None,
    scan: Scan | None = None,
    prompted: PromptedViews = "all",
    coarse: int = 0,
    fusion: Fusion | None = None,
) -> OpenSearch:
    """Returns a function that makes the search of a panorama.

    Args:
        strategy: its name.
        model: the model.
        framing: how ``auto``, ``gimbal`` and ``frontier`` choose views.
        scan: the path of perspective views.
        prompted: which views are given a prompt, by ``scan`` and ``patches``.
        coarse: side in pixels of the views in which an object is first looked for, see
            :class:`CoarseToFine`; 0: at once in the model's own. ``direct`` and ``patches`` ignore it.
        fusion: of the coarse views; None: the model's own.

    Raises:
        ValueError: an unknown strategy, or unknown ``prompted``.
    """
    for name, value, known in (
        ("strategy", strategy, STRATEGIES),
        ("prompted", prompted, get_args(PromptedViews)),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    chosen_framing, chosen_scan = framing or Framing(), scan or Scan()

    def perspective(image: np.ndarray, model: Model) -> EncodedViews[PerspectiveViews]:
        views = PerspectiveViews(image, model.image_size, chosen_scan, device=model.device)
        return EncodedViews(model, views)

    def whole(image: np.ndarray) -> Search:
        return ViewSearch(EncodedViews(model, WholePanorama(image, model.image_size)), prompted)

    def crops(image: np.ndarray) -> Search:
        return ViewSearch(EncodedViews(model, Crops(image, model.image_size)), prompted)

    def fine(image: np.ndarray) -> Search:
        encoded = perspective(image, model)
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

    def coarse_to_fine(image: np.ndarray) -> Search:
        first = FrontierSearch(perspective(image, small), chosen_framing)
        return CoarseToFine(fine(image), first, fusion or model.fusion)

    return coarse_to_fine


class ViewSearch:
    """Visits all views, in their order, from the one that is nearest to the prompt."""

    def __init__(self, encoded: EncodedViews[Views], prompted: PromptedViews = "all") -> None:
        self.encoded = encoded
        self._prompted = prompted

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        loop = self.encoded.views.order(tracked.prompt.anchor)
        order = _hinted(loop, hint)
        return _find_in(self.encoded, tracked, run, order, loop, self._prompted)

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        return _follow_in_scan(self.encoded, tracked, run)


class FrontierSearch:
    """Visits views of the scan outward from the prompt, see :class:`Frontier`; follows as a scan does."""

    def __init__(self, encoded: EncodedViews[PerspectiveViews], framing: Framing) -> None:
        self.encoded = encoded
        self._framing = framing

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

    An object that is lost, or too wide for one view, is followed as by a scan.

    Args:
        encoded: the views of the scan, to which fitted ones are added.
        framing: how views are fitted.
        begin_on_scan: a click is first looked for in the nearest view of the scan, whose features serve
            all objects; else in a view that is centred on it.
    """

    def __init__(
        self, encoded: EncodedViews[PerspectiveViews], framing: Framing, begin_on_scan: bool
    ) -> None:
        self.encoded = encoded
        self._framing, self._begin_on_scan = framing, begin_on_scan

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        views = self.encoded.views
        prompts = _view_prompts(self.encoded, tracked)
        first = None
        if tracked.own_view is not None:  # a correction is looked for where the object was
            first = views.add(tracked.own_view)
        elif hint is not None:
            around = np.concatenate([hint.directions, tracked.prompt.on_object])
            fitted = self._framing.fitted(views, around)
            if fitted is None and hint.views:
                return _find_hinted(self.encoded, tracked, run, hint)
            first = None if fitted is None else views.add(fitted)
        if first is None and self._begin_on_scan and len(prompts.extent()) == 1:
            first = views.scan.nearest(tracked.prompt.anchor)
        if first is not None and prompts.at(first) is None:  # it shows nothing of a new box or mask
            first = None
        carry = self.encoded.model.weak_memory
        path = ObjectViews(views, prompts, self._framing, carry, first)
        found = _explore(self.encoded, tracked, run, path)
        own = [i for i in found.masks if i >= len(views)]
        tracked.own_view = views.views[own[0]] if own else None
        return found

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        views, known = self.encoded.views, tracked.track
        if known is None or tracked.lost_for:
            return _follow_in_scan(self.encoded, tracked, run)
        rotation = rotation_between(known.directions.mean(0), known.expected)
        expected = rotation.apply(known.directions)
        view = self._framing.following(views, expected, run.following.reach)
        if view is None:
            return _follow_in_scan(self.encoded, tracked, run)
        index = views.add(view)
        found = _follow_in(self.encoded, tracked, run, (index,))
        wider = self._framing.widened(views, index, found.masks[index])
        if wider is not None:
            found = _follow_in(self.encoded, tracked, run, (views.add(wider),))
        if found.empty and _known_by_appearance(self.encoded, tracked):
            order = views_to_search(views, tracked, run.following)
            return _find_again(self.encoded, tracked, run, order)
        return found


class CoarseToFine:
    """Looks for a clicked object in small views first, and then only where it was.

    Args:
        fine: the search in views of the model's own size.
        coarse: the search in small views.
        fusion: of the coarse views.
    """

    def __init__(self, fine: Search, coarse: FrontierSearch, fusion: Fusion) -> None:
        self._fine, self._coarse, self._fusion = fine, coarse, fusion

    @property
    def encoded(self) -> EncodedViews[Views]:
        return self._fine.encoded

    def find(self, tracked: TrackedObject, run: Run, hint: Hint | None = None) -> Found:
        clicked = len(tracked.prompt.labels) > 0
        if clicked and tracked.own_view is None and hint is None:
            hint = self._glance(tracked, run)
        return self._fine.find(tracked, run, hint)

    def follow(self, tracked: TrackedObject, run: Run) -> Found:
        return self._fine.follow(tracked, run)

    def _glance(self, tracked: TrackedObject, run: Run) -> Hint | None:
        """Where the object is by the coarse search; None: it was not found."""
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
    """The views in which an object may be that was found on an earlier panorama.

    These are the few that show where it was, grown by how far it may have moved. For a lost object,
    ``following.search`` further ones per panorama are added, so that the whole sphere is searched in
    turn.
    """
    known = tracked.track.directions if tracked.track else tracked.prompt.anchor[None]
    loop = views.order(known.mean(0))
    if following.everywhere:
        return loop
    near = cover(views, grown(known, following.reach))
    if tracked.lost_for:
        first = (tracked.lost_for - 1) * following.search
        near += [loop[(first + i) % len(loop)] for i in range(following.search)]
    return tuple(dict.fromkeys(near))


def _view_prompts(encoded: EncodedViews[Views], tracked: TrackedObject) -> ViewPrompts:
    """The prompt in views, with the masks that it corrects."""
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
    """Looks for a prompted object in views of an order; in all of the loop if none of them is prompted."""
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
    """Looks for a prompted object along a path."""
    masks = explore(encoded.model, encoded.features, path, run.visited, tracked.memory, run.recent)
    return Found(path.kept(masks), tracked.prompt.on_object)


def _follow_in_scan(encoded: EncodedViews[Views], tracked: TrackedObject, run: Run) -> Found:
    order = views_to_search(encoded.views, tracked, run.following)
    if tracked.lost_for and _known_by_appearance(encoded, tracked):
        return _find_again(encoded, tracked, run, order)
    return _follow_in(encoded, tracked, run, order)


def _known_by_appearance(encoded: EncodedViews[Views], tracked: TrackedObject) -> bool:
    """Whether a lost object is looked for by its appearance: memory that is not weak does better."""
    return encoded.model.weak_memory and tracked.appearance is not None


def _find_again(
    encoded: EncodedViews[Views], tracked: TrackedObject, run: Run, order: tuple[int, ...]
) -> Found:
    """Looks for a lost object by its appearance.

    In each view a click is put where the object would be, had it moved on as before; for one that has been
    lost before, another one where the view looks most like it. Of the masks that may be the object, the
    one that looks most like it is kept.
    """
    assert tracked.appearance is not None
    views = encoded.views
    expected = tracked.expected_clicks()
    prompts = ViewPrompts(views, expected).all(order) if expected is not None else {}
    absent: dict[int, ViewMask] = {}
    best: tuple[int, ViewMask] | None = None
    likeness = 0.0

    def accept(least: float, view: int, mask: ViewMask) -> bool:
        nonlocal likeness
        solid_angle = views.solid_angle(view)
        if not tracked.credible(mask, solid_angle, run.following):
            return False
        if not tracked.of_usual_size(mask, solid_angle, run.following):
            return False
        likeness_here = similarity(tracked.appearance, encoded.appearance(view, mask))
        if not likeness_here > max(likeness, least):  # NaN, where it cannot be told, is not
            return False
        likeness = likeness_here
        return True

    for view in order:
        given = [(prompts[view], FOUND_IN_PLACE)] if view in prompts else []
        if tracked.lost_for:  # in the first image it can only be near
            pixel = encoded.most_similar_pixel(view, tracked.appearance)
            click = ViewPrompt(pixel[None].astype(np.float32), np.array([POSITIVE], np.int32))
            given.append((click, FOUND_AGAIN))
        for prompt, least in given:
            found = follow(
                encoded.model, encoded.features, (view,), ObjectMemory(), {view: prompt}, {},
                partial(accept, least), recent=run.recent,
            )  # fmt: skip
            if (found[view].logits > 0).any():
                best = view, found[view]
            absent[view] = found[view].absent()
        run.visited(view)
    if best is None:
        return Found(absent, None)
    view, mask = best
    middle = deepest_pixel(mask.logits > 0)
    assert middle is not None
    pixel = np.array(middle) * (views.size / len(mask.logits))
    # Alone: in a weighted mean, the views in which less of it was found would outvote this one.
    return Found({view: mask}, views.direction(view, pixel)[None])


def _follow_in(
    encoded: EncodedViews[Views], tracked: TrackedObject, run: Run, order: tuple[int, ...]
) -> Found:
    """Looks for an object of an earlier panorama in views: by memory, or by its moved clicks.

    The clicks are for models with a weak memory, as is its last mask, with which the chosen candidate
    agrees.
    """
    views, weak = encoded.views, encoded.model.weak_memory
    clicks = tracked.expected_clicks() if weak else None
    prompts = ViewPrompts(views, clicks).all(order) if clicks is not None else {}
    priors = {}
    if weak and tracked.track is not None and not tracked.lost_for:
        last = views.of_labels(tracked.track.mask)
        priors = {view: last.render(view)[2::4, 2::4] > 0 for view in order}

    def accept(view: int, mask: ViewMask) -> bool:
        if not tracked.credible(mask, views.solid_angle(view), run.following):
            return False
        whole = float((mask.logits > 0).mean()) > _WHOLE_VIEW
        # A mask of the whole view is what a lost object turns into, unless it is known to be so large.
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
    return Found(masks, None if clicks is None else clicks.on_object)
