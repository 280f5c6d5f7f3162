"""The public face of the core: panoramas in, prompts in, instances out.

session = PanoramaSession(load_model())
session.set_image(image)                       # (H, 2H, 3) uint8 RGB
session.add_prompt(from_pixels(1, [(2100, 1180)], session.size))
instances = session.segment()
instances.labels, instances.objects[0].azimuth

session.next_image(image)                      # the stream goes on: objects are followed
instances = session.segment()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View
from sap_ros.core.exploration import Frontier, ObjectViews
from sap_ros.core.framing import Framing
from sap_ros.core.fusion import NO_OBJECT, Fusion
from sap_ros.core.instances import Instance, Instances, State, connected, measure
from sap_ros.core.memory import RECENT
from sap_ros.core.model import Features, Model
from sap_ros.core.motion import Following, grown, smallest_rotation
from sap_ros.core.panorama import Region, check_panorama
from sap_ros.core.prompts import Prompt, ViewPrompt, ViewPrompts
from sap_ros.core.scan import Scan
from sap_ros.core.tracked_object import TrackedObject
from sap_ros.core.tracker import (
    ViewMask,
    explore,
    follow,
    track,
)
from sap_ros.core.views import (
    STRATEGIES,
    Fused,
    PerspectiveViews,
    Strategy,
    Views,
    cover,
    make_views,
)

FusionChoice = Literal["auto", "max", "weighted"]
ClickFrames = Literal["all", "first"]

#: Called with (frames done, frames in all at most, object id).
Progress = Callable[[int, int, int], None]


class PanoramaSession:
    """Segments prompted objects in panoramas, and keeps what can be used again.

    Args:
        model: the model; several sessions may share one.
        strategy: how the panorama is shown to it, see :mod:`sap_ros.core.views`.
        scan: the scan's path; the default is the method's.
        fusion: how views are fused, see :class:`sap_ros.core.fusion.Canvas`; ``auto`` takes the
            model's own: ``max`` (the method) but for sap-nano.
        click_frames: a click is given to ``all`` frames that see it (the method), or to the
            ``first`` of the object's order alone (an ablation, of scan and patches).
        following: how objects are followed in a stream.
        framing: how the views of an object are chosen by the strategies that choose them.
        coarse: coarse to fine: an object is first found in views of so many pixels, and looked for at
            the model's own size only where it was; 0: at once.
        recent: how many of an object's last views memory attention reads, beside the prompted ones;
            its cost grows with them.

    Features of a frame are computed when first needed and kept until the image changes: a correction
    encodes nothing that has been, and by ``scan``, ``direct`` and ``patches`` further objects do not
    either. Of earlier panoramas only each object's memory is kept,
    which is bounded.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy = "auto",
        scan: Scan | None = None,
        fusion: FusionChoice = "auto",
        click_frames: ClickFrames = "all",
        following: Following | None = None,
        framing: Framing | None = None,
        coarse: int = 0,
        recent: int = RECENT,
    ) -> None:
        for name, value, known in (
            ("strategy", strategy, STRATEGIES),
            ("fusion", fusion, ("auto", "max", "weighted")),
            ("click_frames", click_frames, ("all", "first")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        self.model, self.strategy = model, strategy
        self.fusion: Fusion = model.fusion if fusion == "auto" else fusion
        self.click_frames = click_frames
        self.scan = scan or Scan()
        self.following = following or Following()
        self.framing = framing or Framing()
        if not 0 <= recent <= RECENT:
            raise ValueError(f"recent is {recent}; it must lie between 0 and {RECENT}")
        self.coarse, self.recent = coarse, recent
        self._finder: PanoramaSession | None = None
        if coarse and strategy in ("auto", "gimbal", "frontier", "scan"):
            self._finder = PanoramaSession(
                model.resized(coarse), "frontier", self.scan, fusion, framing=self.framing
            )
        self._frames: Views | None = None
        self._features: dict[int, Features] = {}
        self._encodings = 0
        self._objects: dict[int, TrackedObject] = {}
        # What an object was before prompts that have not been looked for; None: it was not there.
        self._before: dict[int, TrackedObject | None] = {}
        self._noted: set[int] = set()  # objects whose masks on this panorama are remembered
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the panorama."""
        if self._size is None:
            raise ValueError("there is no panorama yet; call set_image first")
        return self._size

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the prompted objects, ascending."""
        return tuple(sorted(self._objects))

    @property
    def encoded(self) -> int:
        """How many frames of this panorama have been encoded; coarse ones are not counted."""
        return self._encodings

    def set_image(self, image: np.ndarray) -> None:
        """Takes a panorama, (H, 2H, 3) uint8 RGB, 512x256 to 8192x4096, that has to do with none before.

        Prompts stay where they are on the sphere; nothing is remembered.

        Raises:
            ValueError: it is no such image.
        """
        self._take(image)
        self._before.clear()
        for object_id, thing in self._objects.items():
            self._objects[object_id] = TrackedObject(thing.prompt)

    def next_image(self, image: np.ndarray) -> None:
        """Takes the next panorama of a stream, as :meth:`set_image` does.

        Objects that have been looked for are followed into it by :meth:`segment`, from memory;
        prompts added after this call are on this panorama.
        """
        check_panorama(image)
        if any(t.fused is not None and i not in self._noted for i, t in self._objects.items()):
            self.instances()  # what was found is remembered, also if nobody has asked for it
        self._take(image)
        before = [thing for thing in self._before.values() if thing is not None]
        for thing in [*self._objects.values(), *before]:
            if thing.masks is not None:
                thing.fresh, thing.masks, thing.fused = False, None, None

    def _take(self, image: np.ndarray) -> None:
        check_panorama(image)
        self._noted.clear()
        self._frames = make_views(
            image, self.strategy, self.model.image_size, self.scan, self.model.device
        )
        self._size = image.shape[1], image.shape[0]
        self._features.clear()
        if self._finder is not None:
            self._finder.set_image(image)
        self._encodings = 0

    def add_prompt(self, prompt: Prompt) -> None:
        """Adds an object; or corrects the one that has the prompt's id.

        On the panorama on which the object was pointed at, the prompts are taken together; on a
        later one, the new prompt is where the object is now, and points off it alone are taken with
        the object's clicks, which have moved along with it.

        Raises:
            ValueError: there are only points off the object, and there is none of the prompt's id.
        """
        there = self._objects.get(prompt.object_id)
        if there is None:
            prompt.check_complete()
        self._before.setdefault(prompt.object_id, there)
        self._noted.discard(prompt.object_id)
        if there is None:
            self._objects[prompt.object_id] = TrackedObject(prompt)
        elif there.fresh:
            corrected = there.prompt.extended(prompt)
            self._objects[prompt.object_id] = TrackedObject(corrected, view=there.view)
        else:
            if not prompt.complete:
                known = there.prompt.directions, there.prompt.labels
                points, labels = (there.points, there.labels) if len(there.points) else known
                prompt = Prompt(prompt.object_id, points, labels).extended(prompt)
            self._objects[prompt.object_id] = TrackedObject(prompt, memory=there.memory.copy())

    def withdraw_prompt(self, object_id: int) -> None:
        """Takes back the prompts of an object that have not been looked for.

        The object is as it was before them; a new one is gone. Nothing where there are none.
        """
        if object_id not in self._before:
            return
        before = self._before.pop(object_id)
        if before is None:
            del self._objects[object_id]
        else:
            self._objects[object_id] = before

    def sibling(self) -> PanoramaSession:
        """A session that works in the same way, with nothing in it: for another panorama."""
        other = PanoramaSession(
            self.model,
            strategy=self.strategy,
            scan=self.scan,
            fusion=self.fusion,
            click_frames=self.click_frames,
            following=self.following,
            framing=self.framing,
            recent=self.recent,
        )
        other.coarse = self.coarse
        other._finder = self._finder.sibling() if self._finder is not None else None
        return other

    def adopt(self, other: PanoramaSession, object_id: int) -> None:
        """Takes over an object that another session found, on a panorama before this one."""
        thing = other._objects.pop(object_id)
        thing.fresh, thing.masks, thing.fused = False, None, None
        self._objects[object_id] = thing

    def remove_object(self, object_id: int) -> None:
        """Forgets an object; ValueError when there is none of that id."""
        if object_id not in self._objects:
            raise ValueError(f"no object has the id {object_id}; there are {list(self.object_ids)}")
        del self._objects[object_id]
        self._before.pop(object_id, None)
        self._noted.discard(object_id)

    def reset(self) -> None:
        """Forgets all objects; the panorama and its features stay."""
        self._objects.clear()
        self._before.clear()
        self._noted.clear()

    @property
    def pending(self) -> tuple[int, ...]:
        """Ids of the objects not looked for since their prompt or the image, ascending."""
        return tuple(i for i in self.object_ids if self._objects[i].fused is None)

    def segment(self, progress: Progress = lambda done, count, object_id: None) -> Instances:
        """Looks for all pending objects; the objects of the panorama.

        Args:
            progress: told of every view.

        Raises:
            ValueError: there is no panorama.
        """
        for object_id in self.pending:
            self.look_for(object_id, progress)
        return self.instances()

    def look_for(
        self, object_id: int, progress: Progress = lambda done, count, object_id: None
    ) -> None:
        """Looks for one object. Whatever is raised meanwhile leaves it pending, and the others alone.

        Args:
            object_id: one of :attr:`object_ids`.
            progress: told of every view; what it raises ends the search.

        Raises:
            ValueError: there is no panorama, or no such object.
        """
        _ = self.size
        if object_id not in self._objects:
            raise ValueError(f"no object has the id {object_id}; there are {list(self.object_ids)}")
        self._objects[object_id].fused = self._found(object_id, progress)
        self._before.pop(object_id, None)
        self._noted.discard(object_id)

    def give_up(self, object_id: int) -> None:
        """Takes an object for lost on this panorama without looking for it."""
        thing = self._objects[object_id]
        thing.masks = {}
        thing.fused = Fused(Region(0, 0, 1, 1), np.full((1, 1), NO_OBJECT, np.float32))
        self._before.pop(object_id, None)

    def instances(self) -> Instances:
        """The objects as far as they have been looked for; the pending ones have that state.

        Raises:
            ValueError: there is no panorama.
        """
        width, height = self.size
        best = np.zeros((height, width), np.float32)
        highest = max(self._objects, default=0)
        labels = np.zeros((height, width), np.uint8 if highest <= 254 else np.uint16)
        found = [i for i in self.object_ids if self._objects[i].fused is not None]
        for object_id in found:
            fused = self._objects[object_id].fused
            assert fused is not None
            region, logits = fused.region, fused.logits
            rows = slice(region.top, region.top + region.rows)
            for here, there in region.parts(width):
                before, now = best[rows, there], logits[:, here]
                labels[rows, there][now > before] = object_id
                np.maximum(before, now, out=before)
        for object_id in found:
            if object_id not in self._noted:
                self._objects[object_id].note(*self._mask(labels, object_id), self.size)
                self._noted.add(object_id)
        self._forget_views()
        return Instances(labels, tuple(self._measured(labels, i) for i in self.object_ids))

    def view_masks(self, object_id: int) -> dict[int, tuple[np.ndarray, ViewMask]]:
        """The frames that an object was looked for in, in order: image (S, S, 3) and mask."""
        masks = self._objects[object_id].masks or {}
        assert self._frames is not None
        return {i: (self._frames.render(i), mask) for i, mask in masks.items()}

    def _mask(self, labels: np.ndarray, object_id: int) -> tuple[Region, np.ndarray]:
        """Where an object is, and its mask (rows, columns) there."""
        fused = self._objects[object_id].fused
        assert fused is not None
        return fused.region, fused.region.read(labels) == object_id

    def _found(self, object_id: int, progress: Progress) -> Fused:
        frames, thing = self._frames, self._objects[object_id]
        assert frames is not None
        done: list[int] = []

        def visited(frame: int) -> None:
            done.append(frame)
            progress(len(done), max(len(done), len(frames)), object_id)

        def coarsely(*_: int) -> None:
            progress(len(done), max(len(done), len(frames)), object_id)

        if thing.fresh:
            thing.certain = thing.prompt.on_object
            thing.masks = self._looked_for(frames, thing, visited, coarsely)
        else:
            thing.certain = None
            thing.masks = self._followed(frames, thing, visited)
        fused = frames.fuse([(i, mask.logits) for i, mask in thing.masks.items()], self.fusion)
        region, logits = fused.region, fused.logits
        if self.model.weak_memory and thing.certain is not None:
            width = self.size[0]
            pixels = sphere.direction_to_pixel(thing.certain, self.size)
            pixels = np.stack(
                [np.mod(pixels[:, 0] - region.left, width), pixels[:, 1] - region.top], -1
            )
            kept = connected(logits > 0, pixels, region.columns == width)
            # On a person's word, a mask beside the click is better than none.
            logits[~(kept if kept.any() or not thing.fresh else logits > 0)] = NO_OBJECT
        may = thing.fresh or thing.plausible(region, logits > 0, self.size, self.following)
        if not may:
            logits[:] = NO_OBJECT
        return fused

    def _looked_for(
        self,
        frames: Views,
        thing: TrackedObject,
        visited: Callable[[int], None],
        coarsely: Progress,
    ) -> dict[int, ViewMask]:
        """The masks of an object that is pointed at in this panorama."""
        pointing, weak = ViewPrompts(frames, thing.prompt), self.model.weak_memory
        found_in, first = self._glance(frames, thing, coarsely)
        if not isinstance(frames, PerspectiveViews) or self.strategy == "scan" or found_in:
            loop = frames.order(thing.prompt.anchor)
            order = tuple(i for i in loop if not found_in or i in found_in)
            prompts = pointing.all(order if self.click_frames == "all" else order[:1])
            if not prompts:
                order, prompts = loop, pointing.all(loop)
            return track(
                self.model, self._encoded, order, prompts, visited, thing.memory, self.recent
            )
        traversal: Frontier | ObjectViews
        if self.strategy == "frontier":
            traversal = Frontier(frames, pointing, self.framing, weak)
        else:
            if first is None and self.strategy == "auto" and len(pointing.extent()) == 1:
                first = frames.scan.nearest(thing.prompt.anchor)
            if first is not None and pointing.at(first) is None:
                first = None  # another box or mask than before
            traversal = ObjectViews(frames, pointing, self.framing, weak, first)
        found = explore(self.model, self._encoded, traversal, visited, thing.memory, self.recent)
        kept = traversal.kept(found)
        own = [i for i in kept if i >= len(frames)]
        thing.view = frames.views[own[0]] if own else None
        return kept

    def _glance(
        self, frames: Views, thing: TrackedObject, coarsely: Progress
    ) -> tuple[set[int], int | None]:
        """Where a new object is, by an earlier answer or coarsely.

        Returns:
            The frames of the scan to look for it in, none where they are not known; or, for strategies
            that turn to it, the frame that holds it.
        """
        if not isinstance(frames, PerspectiveViews):
            return set(), None
        turns = self.strategy in ("auto", "gimbal")
        if turns and thing.view is not None:  # a correction is looked for where the object was
            return set(), frames.add(thing.view)
        if self._finder is None or not len(thing.prompt.labels):
            return set(), None
        self._finder.reset()
        self._finder.add_prompt(thing.prompt)
        self._finder.segment(coarsely)
        coarse = self._finder._objects[thing.prompt.object_id]
        if coarse.where is None:
            return set(), None
        if turns:
            around = np.concatenate([coarse.where, thing.prompt.on_object])
            view = self.framing.fitted(frames, around)
            if view is not None:
                return set(), frames.add(view)
        masks = coarse.masks or {}
        return {i for i, mask in masks.items() if (mask.logits > 0).any()}, None

    def _followed(
        self, frames: Views, thing: TrackedObject, visited: Callable[[int], None]
    ) -> dict[int, ViewMask]:
        """The masks of an object that was found in the panorama before this one."""

        def look(order: tuple[int, ...]) -> dict[int, ViewMask]:
            return follow(
                self.model,
                self._encoded,
                order,
                thing.memory,
                self._carried(frames, thing, order),
                self._priors(thing, order),
                lambda frame, mask: thing.credible(
                    mask, self._frame_solid_angle(frame), self.following
                ),
                visited,
                self.recent,
            )

        view = self._own_view(thing)
        if view is None or not isinstance(frames, PerspectiveViews):
            return look(self._expected(frames, thing))
        frame = frames.add(view)
        found = look((frame,))
        wider = self.framing.widened(frames, frame, found[frame])
        return found if wider is None else look((frames.add(wider),))

    def _own_view(self, thing: TrackedObject) -> View | None:
        """The view in which a followed object is looked for, by strategies that turn to it."""
        frames = self._frames
        if self.strategy not in ("auto", "gimbal") or thing.where is None or thing.lost_for:
            return None
        assert isinstance(frames, PerspectiveViews)
        turn = smallest_rotation(thing.where.mean(0), thing.where.mean(0) + thing.moved)
        return self.framing.following(
            frames, thing.where @ turn.T, math.radians(self.following.margin)
        )

    def _forget_views(self) -> None:
        """Frees the features of objects' own views that no object is seen in any more."""
        frames = self._frames
        assert frames is not None
        used = {i for thing in self._objects.values() for i in thing.masks or {}}
        for frame in [i for i in self._features if i >= len(frames) and i not in used]:
            del self._features[frame]

    def _expected(self, frames: Views, thing: TrackedObject) -> tuple[int, ...]:
        """The frames in which an object may be now, after it was seen in the panorama before."""
        where = thing.where
        if where is None:
            where = thing.prompt.anchor[None]
        if self.following.everywhere:
            return frames.order(where.mean(0))
        near = cover(frames, grown(where, math.radians(self.following.margin)))
        if thing.lost_for:
            # The whole loop is looked through, some frames a panorama.
            loop = frames.order(where.mean(0))
            first = (thing.lost_for - 1) * self.following.search
            near += [loop[(first + i) % len(loop)] for i in range(self.following.search)]
        return tuple(dict.fromkeys(near))

    def _carried(
        self, frames: Views, thing: TrackedObject, order: tuple[int, ...]
    ) -> dict[int, ViewPrompt]:
        """The clicks where the object is expected now, for models with a weak memory."""
        if not self.model.weak_memory or thing.where is None:
            return {}
        prompt = thing.clicks()
        thing.certain = prompt.on_object
        return ViewPrompts(frames, prompt).all(order)

    def _priors(self, thing: TrackedObject, order: tuple[int, ...]) -> dict[int, np.ndarray]:
        """The last mask in each frame, for models with a weak memory."""
        if not self.model.weak_memory or thing.last is None or thing.lost_for:
            return {}
        assert self._frames is not None
        last = self._frames.of_labels(thing.last)
        return {frame: last.render(frame)[2::4, 2::4] > 0 for frame in order}

    def _frame_solid_angle(self, frame: int) -> float:
        """About what a frame sees, in sr."""
        assert self._frames is not None
        return self._frames.solid_angle(frame)

    def _encoded(self, frame: int) -> Features:
        if frame not in self._features:
            assert self._frames is not None
            self._encodings += 1
            self._features[frame] = self.model.encode(self._frames.upload(frame))
        return self._features[frame]

    def _measured(self, labels: np.ndarray, object_id: int) -> Instance:
        if self._objects[object_id].fused is None:
            nowhere = measure(np.zeros((1, 1), bool), object_id, 0.0, Region(0, 0, 1, 1), self.size)
            return replace(nowhere, state=State.PENDING)
        region, mask = self._mask(labels, object_id)
        return measure(mask, object_id, self._objects[object_id].predicted, region, self.size)
