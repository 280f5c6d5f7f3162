"""Segments prompted objects on a panorama, and follows them over a stream of panoramas.

session = PanoramaSession(load_model())
session.set_image(image)                       # (H, 2H, 3) uint8 RGB
session.add_prompt(from_pixels(1, [(2100, 1180)], session.size))
instances = session.segment()
instances.labels, instances.objects[0].azimuth

session.next_image(image)                      # the next panorama of the stream: objects are followed
instances = session.segment()

The session composes what is defined elsewhere: :mod:`sap_ros.core.search` looks for objects,
:mod:`sap_ros.core.tracked_object` keeps what is known of each, :mod:`sap_ros.core.instances` measures
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sap_ros.core.framing import Framing
from sap_ros.core.fusion import NO_OBJECT, Fusion, ViewMask
from sap_ros.core.instances import Instance, Instances, State, label_image, measure
from sap_ros.core.memory import RECENT
from sap_ros.core.motion import Following
from sap_ros.core.panorama import NOWHERE, Region, check_panorama
from sap_ros.core.prompts import Prompt
from sap_ros.core.tracked_object import TrackedObject

if TYPE_CHECKING:
    from sap_ros.core.model import Model
    from sap_ros.core.search import OpenSearch, Search, Strategy

FusionChoice = Literal["auto", "max", "weighted"]

#: Called with (views done, views in all at most, object id).
Progress = Callable[[int, int, int], None]


def _silent(done: int, count: int, object_id: int) -> None:
    """A progress that is shown to nobody."""


class PanoramaSession:
    """Segments prompted objects on panoramas, and keeps what can be used again.

    Args:
        model: the model; several sessions may share one.
        strategy: how objects are looked for, by a name of :mod:`sap_ros.core.search`, or as
            :func:`sap_ros.core.search.search_by` makes it (then ``framing`` and ``coarse`` are given
            there).
        fusion: how views are fused, see :class:`sap_ros.core.fusion.Canvas`; ``auto`` takes the
            model's own: ``max`` (the method), for sap-nano ``weighted``.
        following: how objects are followed in a stream; may be set later, too.
        framing: how the views of an object are chosen by the strategies that choose them.
        coarse: side in pixels of the views in which an object is first looked for; then it is looked
            for at the model's own size only where it was. 0: at once.
        recent: how many of an object's last views memory attention reads, beside the prompted ones;
            its cost grows with them.

    Features of a view are computed when first needed and kept until the image changes. A correction
    therefore encodes no view again; nor, with ``scan``, ``direct`` and ``patches``, do further objects.
    Of earlier panoramas only each object's memory is kept, which is bounded.

    Raises:
        ValueError: an unknown strategy or fusion, or a value out of its range.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy | OpenSearch = "auto",
        fusion: FusionChoice = "auto",
        following: Following | None = None,
        framing: Framing | None = None,
        coarse: int = 0,
        recent: int = RECENT,
    ) -> None:
        if fusion not in get_args(FusionChoice):
            known = ", ".join(get_args(FusionChoice))
            raise ValueError(f"fusion is {fusion!r}; it must be one of {known}")
        if not 0 <= recent <= RECENT:
            raise ValueError(f"recent is {recent}; it must lie between 0 and {RECENT}")
        from sap_ros.core.search import (
            search_by,  # torch comes with it, and there is a model by now
        )

        self.model = model
        self.fusion: Fusion = model.fusion if fusion == "auto" else fusion
        self.following = following or Following()
        self.recent = recent
        self._open_search = (
            strategy
            if callable(strategy)
            else search_by(strategy, model, framing, coarse=coarse, fusion=self.fusion)
        )
        self._search: Search | None = None
        self._size: tuple[int, int] | None = None
        self._objects: dict[int, TrackedObject] = {}
        # What an object was before prompts that have not been looked for; None: it did not exist.
        self._before: dict[int, TrackedObject | None] = {}

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
    def pending(self) -> tuple[int, ...]:
        """Ids of the objects not looked for since their prompt or the image, ascending."""
        return tuple(i for i in self.object_ids if not self._objects[i].looked_for)

    @property
    def encoded(self) -> int:
        """How many views of this panorama have been encoded, coarse ones not counted."""
        return 0 if self._search is None else self._search.encoded.count

    def set_image(self, image: np.ndarray) -> None:
        """Takes a panorama, (H, 2H, 3) uint8 RGB, 512x256 to 8192x4096, that continues no stream.

        Prompts keep their directions; nothing else is remembered of the objects.

        Raises:
            ValueError: the image has another type, shape or size.
        """
        self._take(image)
        self._before.clear()
        for object_id, tracked in self._objects.items():
            self._objects[object_id] = TrackedObject(tracked.prompt)

    def next_image(self, image: np.ndarray) -> None:
        """Takes the next panorama of a stream, with the same requirements as :meth:`set_image`.

        Objects that have been looked for are followed into it by :meth:`segment`, from memory;
        prompts added after this call are on this panorama.
        """
        check_panorama(image)
        if any(t.fused is not None and not t.noted for t in self._objects.values()):
            self._note_found()  # what was found is remembered even if nobody has asked for it
        self._take(image)
        before = [tracked for tracked in self._before.values() if tracked is not None]
        for tracked in [*self._objects.values(), *before]:
            tracked.advance()

    def _take(self, image: np.ndarray) -> None:
        check_panorama(image)
        self._search = self._open_search(image)
        self._size = image.shape[1], image.shape[0]

    def add_prompt(self, prompt: Prompt) -> None:
        """Adds an object; or corrects the object that has the prompt's id.

        On the panorama on which the object was prompted, the prompts are taken together; on a later
        one, see :meth:`sap_ros.core.tracked_object.TrackedObject.corrected`.

        Raises:
            ValueError: there are only points off the object, and no object has the prompt's id.
        """
        tracked = self._objects.get(prompt.object_id)
        if tracked is None:
            prompt.check_complete()
        self._before.setdefault(prompt.object_id, tracked)
        self._objects[prompt.object_id] = (
            TrackedObject(prompt) if tracked is None else tracked.corrected(prompt)
        )

    def withdraw_prompt(self, object_id: int) -> None:
        """Takes back the prompts of an object that have not been looked for, if there are any.

        The object is then as it was before them; a new object is removed.
        """
        if object_id not in self._before:
            return
        before = self._before.pop(object_id)
        if before is None:
            del self._objects[object_id]
        else:
            self._objects[object_id] = before

    def sibling(self) -> PanoramaSession:
        """A session with the same model and options and without objects: for another panorama."""
        other = PanoramaSession(
            self.model, self._open_search, following=self.following, recent=self.recent
        )
        other.fusion = self.fusion
        return other

    def adopt(self, other: PanoramaSession, object_id: int) -> None:
        """Moves an object here that another session found on an earlier panorama."""
        other._note_found()
        tracked = other._objects.pop(object_id)
        tracked.advance()
        self._objects[object_id] = tracked

    def remove_object(self, object_id: int) -> None:
        """Removes an object.

        Raises:
            ValueError: no object has the id.
        """
        self._check_id(object_id)
        del self._objects[object_id]
        self._before.pop(object_id, None)

    def reset(self) -> None:
        """Removes all objects; the panorama and its features stay."""
        self._objects.clear()
        self._before.clear()

    def segment(self, progress: Progress = _silent) -> Instances:
        """Looks for all pending objects, and returns all objects of the panorama.

        Args:
            progress: called after every view.

        Raises:
            ValueError: there is no panorama.
        """
        for object_id in self.pending:
            self.look_for(object_id, progress)
        return self.instances()

    def look_for(self, object_id: int, progress: Progress = _silent) -> None:
        """Looks for one object. An exception on the way leaves it pending; other objects are unaffected.

        Args:
            object_id: one of :attr:`object_ids`.
            progress: called after every view; an exception that it raises ends the search.

        Raises:
            ValueError: there is no panorama, or no such object.
        """
        from sap_ros.core.search import Run

        size = self.size
        self._check_id(object_id)
        search, tracked = self._search, self._objects[object_id]
        assert search is not None
        encoded, done = search.encoded, []

        def visited(view: int) -> None:
            done.append(view)
            coarse_visited()

        def coarse_visited() -> None:
            progress(len(done), max(len(done), len(encoded.views)), object_id)

        run = Run(self.following, self.recent, visited, coarse_visited)
        find = search.find if tracked.prompted_here else search.follow
        memory = tracked.memory.copy()
        try:
            found = find(tracked, run)
        except BaseException:
            tracked.memory = memory  # what was found so far would be remembered twice
            raise
        tracked.masks = found.masks
        fused = encoded.fuse(found.masks, found.on_object, self.fusion, tracked.prompted_here)
        if tracked.prompted_here:
            tracked.appearance = encoded.prompted_appearance(found.masks, tracked.prompt.on_object)
        else:
            plausible = tracked.plausible(fused.region, fused.logits > 0, size, self.following)
            if not plausible:
                fused.logits[:] = NO_OBJECT
        tracked.fused, tracked.noted = fused, False
        self._before.pop(object_id, None)

    def give_up(self, object_id: int) -> None:
        """Takes an object to be lost on this panorama without looking for it.

        Raises:
            ValueError: no object has the id.
        """
        self._check_id(object_id)
        self._objects[object_id].give_up()
        self._before.pop(object_id, None)

    def instances(self) -> Instances:
        """The objects as far as they have been looked for; the others have the state PENDING.

        Raises:
            ValueError: there is no panorama.
        """
        labels = self._note_found()
        return Instances(labels, tuple(self._measured(labels, i) for i in self.object_ids))

    def view_masks(self, object_id: int) -> dict[int, tuple[np.ndarray, ViewMask]]:
        """The views in which an object was looked for, in order: image (S, S, 3) and mask."""
        masks = self._objects[object_id].masks or {}
        if self._search is None:
            return {}
        views = self._search.encoded.views
        return {i: (views.render(i), mask) for i, mask in masks.items()}

    def _check_id(self, object_id: int) -> None:
        if object_id not in self._objects:
            raise ValueError(f"no object has the id {object_id}; there are {list(self.object_ids)}")

    def _note_found(self) -> np.ndarray:
        """The label image (H, W); each object keeps where it is, and unused features are freed."""
        found = {i: self._objects[i].fused for i in self.object_ids}
        logits = {i: (f.region, f.logits) for i, f in found.items() if f is not None}
        labels = label_image(logits, self.size, max(found, default=0))
        for object_id, tracked in self._objects.items():
            if tracked.fused is not None and not tracked.noted:
                tracked.note(*_mask_of(tracked, labels, object_id), self.size)
        if self._search is not None:
            used = {view for tracked in self._objects.values() for view in tracked.masks or {}}
            self._search.encoded.release(used)
        return labels

    def _measured(self, labels: np.ndarray, object_id: int) -> Instance:
        tracked = self._objects[object_id]
        if tracked.fused is None:
            empty = measure(np.zeros((1, 1), bool), object_id, 0.0, NOWHERE, self.size)
            return replace(empty, state=State.PENDING)
        region, mask = _mask_of(tracked, labels, object_id)
        return measure(mask, object_id, tracked.predicted_iou, region, self.size)


def _mask_of(
    tracked: TrackedObject, labels: np.ndarray, object_id: int
) -> tuple[Region, np.ndarray]:
    """Where an object that was looked for is, and its mask (rows, columns) there."""
    assert tracked.fused is not None
    return tracked.fused.region, tracked.fused.region.read(labels) == object_id
