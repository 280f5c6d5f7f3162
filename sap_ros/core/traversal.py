"""Which views an object is looked for in, one after the other: as few as show it well.

A scan pays all of its views for every object. Two ways to pay less, which go by what has been found so
far: over the views of the scan, outward from the click, into which the mask runs (:class:`Frontier`);
and with a camera of the object's own that turns towards it and zooms to its extent (:class:`Gimbal`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.following import check_ranges, grown
from sap_ros.core.pointing import Pointing
from sap_ros.core.strategies import ViewFrames, nearness
from sap_ros.core.tracker import FrameMask, FramePrompt, Step
from sap_ros.core.trajectory import View, carried, view_to_direction

Found = Mapping[int, FrameMask]

#: Cells of a mask, along a side, that are looked at to tell where it runs.
_CELLS = 32


@dataclass(frozen=True)
class Framing:
    """How views are chosen for an object.

    Attributes:
        settled: how far from a view's border, as a share of half its side, a part of the mask must
            lie for no further view to be asked about it; 1 asks the view that sees it best.
        further: how many views of the scan are visited beyond those that the mask runs into, for
            objects that are split by what is before them.
        margin: how much wider than the object its own view is, by the tangent.
        widest: field of view, in degrees, beyond which an object is not looked at in one view.
        zoom: how much finer than the panorama a view may be, at most.

    Raises:
        ValueError: a value out of its range.
    """

    settled: float = 0.6
    further: int = 0
    margin: float = 1.8
    widest: float = 90.0
    zoom: float = 4.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            settled=(0, 1),
            further=(0, 1000),
            margin=(1, 10),
            widest=(30, 120),
            zoom=(0.1, 16),
        )

    def fitted(self, frames: ViewFrames, directions: np.ndarray) -> View | None:
        """The view that holds directions (P, 3) with the margin; None where it would be too wide."""
        view = framed(directions, self.margin)
        if view is None or view.fov > self.widest:
            return None
        finest = finest_fov(frames.size, frames.panorama_size[0], self.zoom)
        return View(view.yaw, view.pitch, max(view.fov, min(finest, 90.0)))

    def following(self, frames: ViewFrames, directions: np.ndarray, motion: float) -> View | None:
        """The same for an object that may have moved by an angle in rad since it was there."""
        view, around = self.fitted(frames, directions), framed(grown(directions, motion), 1.1)
        if view is None or around is None or around.fov > self.widest:
            return None
        return View(view.yaw, view.pitch, max(view.fov, around.fov))


def spread(frames: ViewFrames, frame: int, mask: FrameMask, near: np.ndarray) -> np.ndarray:
    """Directions (P, 3) all over a mask in a view.

    Args:
        frames: the frames.
        frame: which.
        mask: what was found in it.
        near: directions (Q, 3) that are the object's: parts of the mask that do not hang together
            with one of them are left out, where one of them is on the mask.
    """
    positive = (mask.logits > 0).astype(np.uint8)
    count, parts = cv2.connectedComponents(positive, connectivity=8)
    if count > 2 and len(near):
        grid = len(positive)
        at = frames.locate(frame, near) * (grid / frames.size)
        at = at[np.isfinite(at).all(1)].astype(int).clip(0, grid - 1)
        mine = np.unique(parts[at[:, 1], at[:, 0]])
        if (mine > 0).any():
            positive = np.isin(parts, mine[mine > 0]).astype(np.uint8)
    step = max(1, len(positive) // _CELLS)
    v, u = np.nonzero(positive[step // 2 :: step, step // 2 :: step])
    pixels = np.stack([u, v], -1) * step + step // 2 + 0.5
    if len(u) < max(
        4, positive.sum() / (2 * step * step)
    ):  # it is small, or lies between the cells
        v, u = np.nonzero(positive)
        pixels = np.stack([u, v], -1) + 0.5
    if not len(u):
        return np.zeros((0, 3))
    scale = frames.size / len(positive)
    return view_to_direction(pixels * scale, frames.views[frame], frames.size)


class Frontier:
    """Views of the scan, outward from the one that sees the prompt best, as far as the mask runs.

    Args:
        frames: the views.
        pointing: the prompt on them.
        framing: see there.
        carry: in a view that sees nothing of the prompt, a click is put where the mask of the views
            before lies; else memory must find it.
        begun: views of the scan that have been visited.
    """

    def __init__(
        self,
        frames: ViewFrames,
        pointing: Pointing,
        framing: Framing,
        carry: bool,
        begun: Sequence[int] = (),
    ) -> None:
        self._frames, self._pointing = frames, pointing
        self._framing, self._carry = framing, carry
        self._further = framing.further
        self._own = list(begun)
        # Directions all over each frame's mask, and how near each frame's centre it sees them.
        self._where: dict[int, np.ndarray] = {}
        self._near: dict[int, np.ndarray] = {}
        # What is certain is looked at once at least, wherever the mask runs.
        self._certain = nearness(frames, pointing.prompt.certain)

    def next(self, found: Found) -> Step | None:
        if not self._own:
            return self._first()
        mine = self.kept(found)
        for i, mask in mine.items():
            if i not in self._where:
                where = spread(self._frames, i, mask, self._pointing.prompt.certain)
                self._where[i], self._near[i] = where, nearness(self._frames, where)
        where = np.concatenate(list(self._where.values()))
        near = np.concatenate([*self._near.values(), self._certain], axis=1)
        enough = np.full(near.shape[1], self._framing.settled)
        enough[len(where) :] = 1e-6
        best = near[self._own].max(0)
        free = [i for i in range(len(self._frames)) if i not in self._own]
        if not free:
            return None
        gain = np.where(best < enough, (near[free] - best).clip(min=0), 0).sum(1)
        if gain.max() > 0.05:
            return self._step(free[int(gain.argmax())], mine)
        if self._further and len(where):
            self._further -= 1
            axes = np.stack([self._frames.views[i].rotation[:, 2] for i in free])
            return self._step(free[int((axes @ where.T).max(1).argmax())], mine)
        return None

    def kept(self, found: Found) -> dict[int, FrameMask]:
        return {i: found[i] for i in self._own if i in found}

    def _first(self) -> Step:
        """The view that sees the prompt best; a box that none sees whole is cut off by it."""
        seen = nearness(self._frames, self._pointing.extent()).sum(1)
        frame = int(seen.argmax())
        if seen[frame] < 1e-6:  # at the border of all that see it: a pole
            frame = self._frames.trajectory.nearest(self._pointing.prompt.anchor)
        self._own.append(frame)
        return Step(frame, self._pointing.at(frame) or self._pointing.at(frame, whole=False))

    def _step(self, frame: int, found: Found) -> Step:
        self._own.append(frame)
        prompt = self._pointing.at(frame)
        if prompt is None and self._carry:
            prompt = self._carried(frame, found)
        return Step(frame, prompt)

    def _carried(self, frame: int, found: Found) -> FramePrompt | None:
        """A click in the middle of what earlier masks are in a view."""
        views, size = self._frames.views, self._frames.size
        known = [
            carried(mask.logits, views[i], views[frame], size) > 0 for i, mask in found.items()
        ]
        place = middle(np.any(known, axis=0)) if known else None
        if place is None:
            return None
        points = np.array([place], np.float32) * (size / len(known[0]))
        return FramePrompt(points, np.array([1], np.int32))


def runs_out(frames: ViewFrames, frame: int, mask: FrameMask, framing: Framing) -> View | None:
    """The view that holds what a mask shows, where the mask runs into its view's border; else None."""
    if not cut(mask):
        return None
    view = framing.fitted(frames, spread(frames, frame, mask, np.zeros((0, 3))))
    now = frames.views[frame]
    if view is None:
        return None
    return View(view.yaw, view.pitch, max(view.fov, min(framing.widest, 1.5 * now.fov)))


def cut(mask: FrameMask) -> bool:
    """Whether a mask runs into the border of its view."""
    positive = mask.logits > 0
    rim = np.concatenate([positive[0], positive[-1], positive[:, 0], positive[:, -1]])
    return int(rim.sum()) > 0.02 * len(positive)


def middle(mask: np.ndarray) -> tuple[float, float] | None:
    """The pixel (u, v) of a mask (n, n) that is farthest from its border; None where it is empty."""
    if not mask.any():
        return None
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)
    v, u = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(u) - 0.5, float(v) - 0.5


def finest_fov(size: int, width: int, zoom: float) -> float:
    """Field of view, in degrees, of a view of ``size`` pixels that is ``zoom`` times as fine, in its
    middle, as a panorama of ``width``."""
    focal = zoom * width / (2 * math.pi)
    return math.degrees(2 * math.atan((size - 1) / 2 / focal))


def framed(directions: np.ndarray, margin: float) -> View | None:
    """The view that holds directions (P, 3) with a margin; None where no view holds them.

    It is centred on the rectangle that they take up in it.
    """
    axis = directions.mean(0)
    for _ in range(4):
        length = float(np.linalg.norm(axis))
        if length < 1e-6:
            return None
        axis = axis / length
        azimuth, elevation = (float(a) for a in sphere.direction_to_angles(axis))
        view = View(azimuth, elevation, 90.0)
        at = directions @ view.rotation
        if at[:, 2].min() < 0.15:
            return None
        x, y = at[:, 0] / at[:, 2], at[:, 1] / at[:, 2]
        offset = np.array([x.max() + x.min(), y.max() + y.min(), 2.0]) / 2
        half = max(x.max() - x.min(), y.max() - y.min()) / 2
        axis = view.rotation @ offset
    return View(azimuth, elevation, math.degrees(2 * math.atan(half * margin + 1e-6)))


class Gimbal:
    """A camera of the object's own: it turns towards the object and zooms to its extent.

    The first view is centred on the click; by its mask, the next is centred on the object, until one
    holds it whole. An object wider than that goes on by the :class:`Frontier`.

    Args:
        frames: the views.
        pointing: the prompt on them.
        framing: see there.
        carry: see :class:`Frontier`; with it, a mask that agrees with the one of the view before is
            taken.
        first: the view to begin with; None: one that is centred on the click, or holds the box or
            the mask that is given.
    """

    #: Views of the object's own at most.
    MOST = 4

    def __init__(
        self,
        frames: ViewFrames,
        pointing: Pointing,
        framing: Framing,
        carry: bool,
        first: int | None = None,
    ) -> None:
        self._frames, self._pointing = frames, pointing
        self._framing, self._carry = framing, carry
        self._own: list[int] = []
        self._first = first
        self._frontier: Frontier | None = None

    def next(self, found: Found) -> Step | None:
        if self._frontier is not None:
            return self._frontier.next(found)
        if not self._own:
            frame = self._first if self._first is not None else self._begin()
            return self._go_on(found) if frame is None else self._step(frame, found)
        last = self._own[-1]
        if len(self._own) == self.MOST:
            return self._go_on(found) if cut(found[last]) else None
        view = self._wanted(found)
        if view is None:
            return None if not (found[last].logits > 0).any() else self._go_on(found)
        now = self._frames.views[last]
        off = sphere.angle_between(now.rotation[:, 2], view.rotation[:, 2])
        if not cut(found[last]) and now.fov < 1.4 * view.fov and off < math.radians(view.fov) / 4:
            return None
        return self._step(self._frames.turned(view), found)

    def kept(self, found: Found) -> dict[int, FrameMask]:
        if self._frontier is not None:
            return self._frontier.kept(found)
        # The last view in which there was something.
        for frame in reversed(self._own):
            if frame in found and (found[frame].logits > 0).any():
                return {frame: found[frame]}
        return {i: found[i] for i in self._own[-1:]}

    def _begin(self) -> int | None:
        extent = self._pointing.extent()
        if len(extent) > 1:
            view = self._framing.fitted(self._frames, extent)
            return None if view is None else self._frames.turned(view)
        azimuth, elevation = sphere.direction_to_angles(extent[0])
        return self._frames.turned(View(float(azimuth), float(elevation), 90.0))

    def _wanted(self, found: Found) -> View | None:
        """The view that holds what was found in the last one; None: there is none."""
        last = self._own[-1]
        certain = self._pointing.prompt.certain
        where = spread(self._frames, last, found[last], certain)
        if not len(where):
            return None
        view = self._framing.fitted(self._frames, np.concatenate([where, certain]))
        if view is not None and cut(found[last]):
            # It goes on beyond the border: a wider view, as wide as may be.
            view = View(view.yaw, view.pitch, max(view.fov, min(90.0, 1.5 * self._fov(last))))
        return view

    def _fov(self, frame: int) -> float:
        return self._frames.views[frame].fov

    def _go_on(self, found: Found) -> Step | None:
        begun = [i for i in self._own if i < len(self._frames)]
        self._frontier = Frontier(self._frames, self._pointing, self._framing, self._carry, begun)
        return self._frontier.next(found)

    def _step(self, frame: int, found: Found) -> Step:
        prior = None
        if self._own and self._carry:
            before = self._own[-1]
            views = self._frames.views
            there = carried(found[before].logits, views[before], views[frame], self._frames.size)
            prior = there > 0
        self._own.append(frame)
        return Step(frame, self._pointing.at(frame), prior)
