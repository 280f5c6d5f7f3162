"""Finds a lost object again by its appearance, and does not take a look-alike for it.

In the spirit of DAM4SAM (Videnovic et al., "A Distractor-Aware Memory for Visual Object Tracking with SAM2",
CVPR 2025), which keeps apart what the object looked like lately and what could be mistaken for it. Here a lost
object is compared with several of its own appearances; and places that look like it, while it cannot be there,
are remembered as distractors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from sap_ros.core import sphere
from sap_ros.core.appearance import FOUND_AGAIN, FOUND_FAR, FOUND_IN_PLACE, FOUND_IN_VIEW
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.framing import Framing, deepest_pixel, spread
from sap_ros.core.fusion import NO_OBJECT, ViewMask
from sap_ros.core.motion import Following, disk_radius
from sap_ros.core.prompts import POSITIVE, ViewPrompt, ViewPrompts
from sap_ros.core.tracked_object import Distractor, Track, TrackedObject
from sap_ros.core.tracker import answers
from sap_ros.core.views import PerspectiveViews, Views

# Places that are tried in the view around the object's last position, and in each other view.
_PLACES_NEAR = 5
_PLACES_FAR = 1

# From so many times the distance that a lost object is likely to have gone, a candidate must be as similar as can be.
_UNLIKELY = 1.5

# What the distance that a lost object is likely to have gone costs, in likeness.
_DISTANCE_COST = 0.1

# Candidates that are looked at in a view of their own, on each panorama.
_VERIFIED = 2

# A candidate that is nearer than this, relative to the distance that the object is likely to have gone, needs so much less
# likeness: of an object that comes out from behind something, only a part is visible.
_NEAR = 0.5
_PARTLY_HIDDEN = 0.06

# Places remembered as distractors, the number of panoramas for which one is remembered unseen, the least likeness
# of one in a view that is not fitted to it and in one that is, and the largest angle between it and where the object
# was last.
_DISTRACTORS = 8
_UNSEEN = 12
_ALIKE = 0.5
_ALIKE_IN_VIEW = 0.75
_AROUND = math.radians(60)

# What is more like the object than a distractor was by this much is not that distractor: the pillar that hides the
# object may be one, and the object comes out where it is.
_MORE_ALIKE = 0.1

# A candidate is left to another lost object if it is less alike to that one by no more than this, and its distance from
# where that one was is at most this share of the distance from where this one was.
_AS_ALIKE = 0.2
_MUCH_NEARER = 0.5

# Two objects were taken as one if more than this share of the one is on the mask of the other. A mask that is proposed for a
# lost object is so if, besides, the tracked one has this share of the mask's solid angle.
_MERGED = 0.5
_CONSIDERABLE = 0.25

# For so many panoramas after the first without the object, what looks like it where it cannot be is remembered.
_SOON_AFTER = 2


@dataclass(frozen=True, eq=False)  # compared by identity
class Candidate:
    """A mask that may be the lost object.

    Attributes:
        view: the view that it is in.
        mask: the mask.
        direction: (3,) unit vector to a place on it.
        radius: of a disk with its solid angle, in rad.
        appearance: see :func:`sap_ros.core.appearance.appearance`.
        likeness: its similarity to the object.
        least: the least likeness with which it counts as found.
    """

    view: int
    mask: ViewMask
    direction: np.ndarray
    radius: float
    appearance: np.ndarray | None
    likeness: float
    least: float


class Redetection:
    """Searches one panorama for a lost object.

    Args:
        encoded: the views of the panorama.
        tracked: the object.
        following: limits of its motion.
        others: the objects that are tracked beside it.
    """

    def __init__(
        self,
        encoded: EncodedViews[Views],
        tracked: TrackedObject,
        following: Following,
        others: Sequence[TrackedObject],
    ) -> None:
        self._encoded, self._tracked, self._following = encoded, tracked, following
        self._others = others
        self._looks = tracked.appearances.values()

    def candidates(self, view: int, near: bool) -> list[Candidate]:
        """The masks in a view that may be the object by their size and predicted IoU, wherever they are.

        Args:
            view: the view.
            near: the view shows the surroundings of the object's last position.
        """
        tracked, views = self._tracked, self._encoded.views
        prompts = []
        expected = tracked.expected_clicks()
        if expected is not None:
            there = ViewPrompts(views, expected).at(view)
            prompts += [(there, FOUND_IN_PLACE)] if there is not None else []
        count = _PLACES_NEAR if near else _PLACES_FAR
        taken = [each.moved for each in _tracks(self._others)]
        for pixel in self._encoded.similar_pixels(view, self._looks, count, taken):
            click = ViewPrompt(pixel[None].astype(np.float32), np.array([POSITIVE], np.int32))
            prompts.append((click, FOUND_AGAIN))
        found = (self._decoded(view, prompt, least) for prompt, least in prompts)
        return [each for each in found if each is not None]

    def _decoded(self, view: int, prompt: ViewPrompt, least: float) -> Candidate | None:
        """The mask for a prompt in a view; None if it cannot be the object."""
        encoded, tracked = self._encoded, self._tracked
        solid_angle = encoded.views.solid_angle(view)
        masks = [
            mask
            for mask in answers(encoded.model, encoded.features(view), prompt)
            if tracked.credible(mask, solid_angle, self._following)
            and tracked.of_usual_size(mask, solid_angle, self._following)
        ]
        found = []
        for mask in masks:
            looks = encoded.appearance(view, mask)
            direction = place_of(encoded.views, view, mask)
            if direction is not None:
                radius = disk_radius(float((mask.logits > 0).mean()) * solid_angle)
                likeness = tracked.appearances.likeness(looks)
                found.append(Candidate(view, mask, direction, radius, looks, likeness, least))
        return next(iter(_most_alike_first(found)), None)

    def verified(self, candidate: Candidate, framing: Framing) -> Candidate | None:
        """The candidate in a view that is fitted to it, as those views were in which the object was tracked."""
        views = self._encoded.views
        assert isinstance(views, PerspectiveViews)
        sampled = spread(views, candidate.view, candidate.mask, candidate.direction[None])
        view = framing.following(views, sampled, self._following.reach) if len(sampled) else None
        if view is None:  # it is too wide for one
            return replace(candidate, least=FOUND_IN_VIEW)
        index = views.add(view)
        pixel = views.locate(index, candidate.direction[None])
        click = ViewPrompt(pixel.astype(np.float32), np.array([POSITIVE], np.int32))
        unlikely = min(max(self._away(candidate) - 1, 0) / (_UNLIKELY - 1), 1)
        least = FOUND_IN_VIEW + unlikely * (FOUND_FAR - FOUND_IN_VIEW)
        if self._away(candidate) < _NEAR:
            least -= _PARTLY_HIDDEN
        found = self._decoded(index, click, least)
        return None if found is None or self._on_another(found) else found

    def _on_another(self, candidate: Candidate) -> bool:
        views, others = self._encoded.views, self._others
        return on_another(views, candidate.view, candidate.mask, candidate.direction, others)

    def possible(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Those of a panorama that can be the object by where they are; the distractors are noted."""
        tracked, reach = self._tracked, self._following.reach
        assert tracked.track is not None
        distinct: list[Candidate] = []
        for one in _most_alike_first(found):
            apart = all(_apart(one.direction, each.direction) > each.radius for each in distinct)
            if apart and not self._on_another(one):
                distinct.append(one)
        left = _without_matched(distinct, tracked.distractors, reach)
        if tracked.lost_for > _SOON_AFTER:
            return left
        gate = reach * (tracked.lost_for + 1) + disk_radius(tracked.track.whole_solid_angle)
        elsewhere = [each for each in left if gate < self._angle(each) < _AROUND]
        self._note(elsewhere, _ALIKE)
        return [each for each in left if each not in elsewhere]

    def choose(self, verified: Sequence[Candidate]) -> Candidate | None:
        """The most similar one that counts as found; what is unlikely to be the object is noted."""
        sure = [
            each
            for each in verified
            if each.likeness > each.least  # False for NaN: unknown
            and not self._more_likely_another(each)
        ]
        if sure:
            return max(sure, key=lambda each: each.likeness - _DISTANCE_COST * self._away(each))
        unlikely = [each for each in verified if self._away(each) > _UNLIKELY]
        around = [each for each in unlikely if self._angle(each) < _AROUND]
        self._note(around, _ALIKE_IN_VIEW)
        return None

    def _more_likely_another(self, candidate: Candidate) -> bool:
        """Whether a candidate is rather another lost object, such as a twin.

        Of two objects that it is as alike to, the one that was lost much nearer gets it; otherwise the better choice by
        likeness and distance. Two objects never leave it to each other. One that was tracked until now leaves it only to
        one that is much nearer.
        """
        angle = self._angle(candidate)
        for other in self._others:
            if other.track is None or not other.lost_for or other.masks:
                continue
            likeness = other.appearances.likeness(candidate.appearance)
            apart = _from_last(other, candidate)
            more_alike = likeness - candidate.likeness
            if more_alike > -_AS_ALIKE and apart < _MUCH_NEARER * angle:
                return True
            much_nearer = more_alike < _AS_ALIKE and angle < _MUCH_NEARER * apart
            if much_nearer or not self._tracked.lost_for:
                continue
            likely = max(self._likely(self._tracked), self._likely(other))
            # Where it will be sure soon, as when it comes out from behind something, it is waited for.
            may_be = likeness > FOUND_IN_VIEW - _PARTLY_HIDDEN
            if may_be and more_alike > _DISTANCE_COST * (apart - angle) / likely:
                return True
        return False

    def _note(self, elsewhere: Sequence[Candidate], alike: float) -> None:
        """Remembers candidates as distractors if their likeness is above a limit."""
        known = self._tracked.distractors
        new = [
            Distractor(each.direction, each.likeness) for each in elsewhere if each.likeness > alike
        ]
        known += new[: _DISTRACTORS - len(known)]

    def _away(self, candidate: Candidate) -> float:
        """How far a candidate is from where the object was last, relative to how far it is likely to have gone."""
        return self._angle(candidate) / self._likely(self._tracked)

    def _likely(self, lost: TrackedObject) -> float:
        """How far an object is likely to have gone since it was lost, in rad.

        Objects go to and fro, so that this grows with the square root of time.
        """
        assert lost.track is not None
        went = self._following.reach * math.sqrt(lost.lost_for + 1)
        return went + disk_radius(lost.track.whole_solid_angle)

    def _angle(self, candidate: Candidate) -> float:
        """The angle between a candidate and where the object was last, in rad."""
        return _from_last(self._tracked, candidate)


def _from_last(lost: TrackedObject, candidate: Candidate) -> float:
    assert lost.track is not None
    return _apart(candidate.direction, lost.track.directions.mean(0))


def place_of(views: Views, view: int, mask: ViewMask) -> np.ndarray | None:
    """The direction (3,) of the place in a mask that is farthest from its outline; None if it is empty."""
    middle = deepest_pixel(mask.logits > 0)
    if middle is None:
        return None
    return views.direction(view, np.array(middle) * (views.size / len(mask.logits)))


def on_another(
    views: Views,
    view: int,
    mask: ViewMask,
    direction: np.ndarray | None,
    others: Sequence[TrackedObject],
) -> bool:
    """Whether a mask in a view is on another object, or holds most of it as a considerable part of itself.

    That is one that is tracked, where it is expected. On one that was lost and has just been found on this panorama, only
    the mask's own place is looked at.

    Args:
        views, view, mask: the mask.
        direction: (3,) to a place on it, see :func:`place_of`; None: it is empty.
        others: the other objects.
    """
    if direction is None:
        return False
    solid_angle = float((mask.logits > 0).mean()) * views.solid_angle(view)
    for track in _tracks(others):
        if _apart(direction, track.expected) < track.radius:
            return True
        # The mask of a lost table may hold a tracked cup that stands on it.
        large = track.solid_angle > _CONSIDERABLE * solid_angle
        if large and _share_on(views, view, mask, track.moved) > _MERGED:
            return True
    found = [each.masks for each in others if each.lost_for and each.masks]
    return any(
        _share_on(views, other, of_other, direction[None]) > 0
        for masks in found
        for other, of_other in masks.items()
    )


def _tracks(others: Sequence[TrackedObject]) -> list[Track]:
    """Where those of some objects are that are tracked."""
    return [each.track for each in others if each.track is not None and not each.lost_for]


def without_others(
    views: Views,
    view: int,
    mask: ViewMask,
    track: Track,
    others: Sequence[TrackedObject],
    following: Following,
) -> ViewMask:
    """A tracked object's mask without the objects that are tracked beside it and were taken as one with it.

    Each pixel belongs to the object that is expected nearest to it.
    """
    merged = [
        each.moved
        for each in _tracks(others)
        if _apart(each.expected, track.expected) < following.reach + each.radius + track.radius
        and _share_on(views, view, mask, each.moved) > _MERGED
    ]
    if not merged:
        return mask
    own, positive = track.moved, mask.logits > 0
    pixels = (np.argwhere(positive)[:, ::-1] + 0.5) * (views.size / len(positive))
    _, nearest = cKDTree(np.concatenate([own, *merged])).query(views.direction(view, pixels))
    logits = mask.logits.copy()
    logits[positive] = np.where(nearest < len(own), logits[positive], NO_OBJECT)
    return replace(mask, logits=logits)


def _share_on(views: Views, view: int, mask: ViewMask, directions: np.ndarray) -> float:
    """The share of directions (P, 3) that lie on a mask in a view."""
    pixels = views.locate(view, directions) * (len(mask.logits) / views.size)
    u, v = pixels[np.isfinite(pixels).all(1)].astype(int).clip(0, len(mask.logits) - 1).T
    return float((mask.logits[v, u] > 0).sum()) / len(directions)


def _without_matched(
    found: list[Candidate], distractors: list[Distractor], reach: float
) -> list[Candidate]:
    """The candidates that are none of the distractors, which are moved to where they are now.

    The nearest pairs of a distractor and a candidate are taken first.
    """
    pairs = sorted(
        (
            (_apart(each.direction, other.direction), i, k)
            for i, each in enumerate(found)
            for k, other in enumerate(distractors)
        ),
    )
    matched: dict[int, int] = {}
    for apart, i, k in pairs:
        if i in matched or k in matched.values() or apart > reach + found[i].radius:
            continue
        if found[i].likeness <= distractors[k].likeness + _MORE_ALIKE:
            matched[i] = k
    for i, k in matched.items():
        likeness = max(distractors[k].likeness, found[i].likeness)
        distractors[k] = Distractor(found[i].direction, likeness)
    seen = set(matched.values())
    distractors[:] = [
        each if k in seen else replace(each, unseen=each.unseen + 1)
        for k, each in enumerate(distractors)
        if k in seen or each.unseen < _UNSEEN
    ]
    return [each for i, each in enumerate(found) if i not in matched]


def _most_alike_first(found: Sequence[Candidate]) -> list[Candidate]:
    """Candidates by their likeness; those of which it is unknown (NaN) come last."""
    return sorted(found, key=lambda each: -np.nan_to_num(each.likeness, nan=-1.0))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """The angle between two vectors (3,), in rad."""
    return float(sphere.angle_between(one, other))


def find_again(
    encoded: EncodedViews[Views],
    tracked: TrackedObject,
    following: Following,
    others: Sequence[TrackedObject],
    near: Sequence[int],
    far: Sequence[int],
    framing: Framing | None,
    visited: Callable[[int], None],
) -> Candidate | None:
    """Searches for a lost object by its appearance.

    Each view is given clicks: where the object would be if it had moved on as before, and at the places that
    look most like it. Of the masks that may be the object, the one most similar to it is kept.

    Args:
        encoded, tracked, following, others: see :class:`Redetection`.
        near: views around its last position.
        far: further views; not searched on the first panorama without it, when it can only be near.
        framing: how views are fitted to candidates, which are compared there; None: where they were found.
        visited: called with each view after it was searched.

    Returns:
        The mask that is taken for the object; None if it was not found.
    """
    search = Redetection(encoded, tracked, following, others)
    found = []
    for views, is_near in ((near, True), (far, False)):
        for view in views:
            found += search.candidates(view, is_near)
            visited(view)
    possible = _most_alike_first(search.possible(found))
    if framing is None:
        return search.choose(possible)
    checked = []
    for each in possible[:_VERIFIED]:
        fitted = search.verified(each, framing)
        visited(each.view if fitted is None else fitted.view)
        checked += [] if fitted is None else [fitted]
    return search.choose(checked)
