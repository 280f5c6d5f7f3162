"""Segments prompted objects on a panorama, and follows them in a stream of panoramas.

session = PanoramaSession(load_model())
session.set_image(image)                       # (H, 2H, 3) uint8 RGB
session.add_prompt(from_pixels(1, [(2100, 1180)], session.size))
instances = session.segment()
instances.labels, instances.objects[0].azimuth

session.next_image(image)                      # the next panorama of the stream: objects are followed
instances = session.segment()

The session composes other modules: :mod:`sap_ros.core.search` searches for objects,
:mod:`sap_ros.core.tracked_object` holds the state of each, :mod:`sap_ros.core.instances` measures them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.appearance import Appearances
from sap_ros.core.framing import Framing
from sap_ros.core.fusion import NO_OBJECT, Fusion, ViewMask
from sap_ros.core.instances import Instance, Instances, State, label_image, measure
from sap_ros.core.memory import RECENT
from sap_ros.core.motion import Following, rotation_between, turn_between, turned
from sap_ros.core.panorama import NOWHERE, Region
from sap_ros.core.prompts import Prompt
from sap_ros.core.scan import steady
from sap_ros.core.tracked_object import TrackedObject

if TYPE_CHECKING:
    from sap_ros.core.model import Model
    from sap_ros.core.projection import Picture, Projection
    from sap_ros.core.search import OpenSearch, Search, Strategy

# Width of the panoramas in which it is seen how far the camera has turned, in pixels.
_TURN_WIDTH = 1024

FusionChoice = Literal["auto", "max", "weighted"]

#: Called with (views done, maximum number of views, object id).
Progress = Callable[[int, int, int], None]


def _silent(done: int, count: int, object_id: int) -> None:
    """A progress callback that does nothing."""


class PanoramaSession:
    """Segments prompted objects on panoramas, and reuses features of views.

    Args:
        model: the model; several sessions may share one.
        strategy: a strategy's name, see :mod:`sap_ros.core.search`, or a function that was made by
            :func:`sap_ros.core.search.search_by` (``framing`` and ``coarse`` are then arguments of that).
        fusion: how views are fused, see :class:`sap_ros.core.fusion.Canvas`; ``auto``: the model's
            default, ``max`` (the paper's method), but ``weighted`` for sap-nano and sap-micro.
        following: how objects are followed in a stream; can be changed later.
        framing: how a strategy that fits views to an object chooses them.
        coarse: side in pixels of the views in which a clicked object is searched for first; then it is
            searched for in views of the model's own size, only where it was found. 0: off.
        recent: number of an object's most recent views that memory attention reads, besides the prompted
            ones; the cost of attention grows with it.
        projection: how the images show the sphere; None: they are equirectangular panoramas.

    Features of a view are computed when first needed and kept until the image changes. A correction
    therefore encodes no view again, and neither do further objects with ``scan``, ``direct`` and ``patches``.
    Of earlier panoramas only each object's memory is kept, which is bounded.

    Raises:
        ValueError: the strategy or fusion is unknown, or a value is out of its range.
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
        projection: Projection | None = None,
    ) -> None:
        if fusion not in get_args(FusionChoice):
            known = ", ".join(get_args(FusionChoice))
            raise ValueError(f"fusion is {fusion!r}; it must be one of {known}")
        if not 0 <= recent <= RECENT:
            raise ValueError(f"recent is {recent}; it must lie between 0 and {RECENT}")
        # These import torch, which the model has imported already.
        from sap_ros.core.projection import Equirectangular
        from sap_ros.core.search import search_by

        self.model = model
        self.projection: Projection = projection or Equirectangular()
        self.fusion: Fusion = model.fusion if fusion == "auto" else fusion
        self.following = following or Following()
        self.recent = recent
        self._open_search = (
            strategy
            if callable(strategy)
            else search_by(strategy, model, framing, coarse=coarse, fusion=self.fusion)
        )
        self._search: Search | None = None
        self._picture: Picture | None = None
        self._up: sphere.Up | None = None  # of the panorama; None: not known
        self._objects: dict[int, TrackedObject] = {}
        # By id: the object before its prompts that were not looked for yet; None: it did not exist.
        self._before: dict[int, TrackedObject | None] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the panorama."""
        return self.picture.size

    @property
    def picture(self) -> Picture:
        """The picture that views and the panorama are rendered from."""
        if self._picture is None:
            raise ValueError("there is no panorama yet; call set_image first")
        return self._picture

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the prompted objects, ascending."""
        return tuple(sorted(self._objects))

    @property
    def pending(self) -> tuple[int, ...]:
        """Ids of the objects that were not looked for since their last prompt or the last image, ascending.

        Those that are lost come last: their search goes by where the others are.
        """
        left = [i for i in self.object_ids if not self._objects[i].looked_for]
        return tuple(sorted(left, key=lambda i: self._objects[i].lost_for > 0))

    @property
    def encoded(self) -> int:
        """Number of views of this panorama that have been encoded, without coarse ones."""
        return 0 if self._search is None else self._search.encoded.count

    def set_image(self, image: np.ndarray, up: ArrayLike | None = None) -> None:
        """Sets an independent image, uint8 RGB: a panorama (H, 2H, 3), 512x256 to 8192x4096, or what the
        projection takes.

        Args:
            image: the image.
            up: (3,) the direction opposite to gravity, in the panorama's axes, if the camera is tilted: views are
                laid out level with it, except for the strategies ``direct`` and ``patches``. Masks and bearings
                refer to the panorama all the same. None: it is not known, and taken to be z.

        Prompts keep their directions; everything else that is known of the objects is discarded.

        Raises:
            ValueError: the image has a wrong type, shape or size, or ``up`` is not finite or has no length.
        """
        known = _checked_up(up)
        self._take(self.projection.open(image), known)
        self._before.clear()
        for object_id, tracked in self._objects.items():
            self._objects[object_id] = TrackedObject(tracked.prompt)

    def next_image(self, image: np.ndarray, up: ArrayLike | None = None) -> None:
        """Sets the next image of a stream, with the same arguments and errors as :meth:`set_image`.

        :meth:`segment` follows the objects that have been looked for, from memory; prompts that are added
        after this call are on this panorama. What changes with the tilt is taken off the objects' motion.
        """
        known = _checked_up(up)
        picture = self.projection.open(image)
        if any(t.fused is not None and not t.noted for t in self._objects.values()):
            self._note_found()  # the tracks are updated even if the instances were not requested
        turn = _turn_between(self._picture, self._up, picture, known)
        tilt = _tilt(self._up, known)
        self._take(picture, known)
        before = [tracked for tracked in self._before.values() if tracked is not None]
        for tracked in (*self._objects.values(), *before):
            tracked.advance(turn, tilt)

    def _take(self, picture: Picture, up: sphere.Up | None) -> None:
        self._search = self._open_search(picture, steady(up or sphere.UP))
        self._picture, self._up = picture, up

    def add_prompt(self, prompt: Prompt) -> None:
        """Adds an object, or corrects the object with the prompt's id.

        See :meth:`sap_ros.core.tracked_object.TrackedObject.corrected` for corrections.

        Raises:
            ValueError: the prompt has only negative points, and no object has its id.
        """
        tracked = self._objects.get(prompt.object_id)
        if tracked is None:
            prompt.check_complete()
        self._before.setdefault(prompt.object_id, tracked)
        self._objects[prompt.object_id] = (
            TrackedObject(prompt) if tracked is None else tracked.corrected(prompt)
        )

    def withdraw_prompt(self, object_id: int) -> None:
        """Withdraws the prompts of an object that have not been looked for, if any.

        The object is restored to its state before them; a new object is removed.
        """
        if object_id not in self._before:
            return
        before = self._before.pop(object_id)
        if before is None:
            del self._objects[object_id]
        else:
            self._objects[object_id] = before

    def sibling(self) -> PanoramaSession:
        """A session with the same model and options but no objects, for another panorama."""
        other = PanoramaSession(
            self.model,
            self._open_search,
            following=self.following,
            recent=self.recent,
            projection=self.projection,
        )
        other.fusion = self.fusion
        return other

    def adopt(self, other: PanoramaSession, object_id: int) -> None:
        """Moves an object to this session that another session found on an earlier panorama."""
        other._note_found()
        tracked = other._objects.pop(object_id)
        turn = _turn_between(other._picture, other._up, self._picture, self._up)
        tracked.advance(turn, _tilt(other._up, self._up))
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
        """Removes all objects; the panorama and its features are kept."""
        self._objects.clear()
        self._before.clear()

    def segment(self, progress: Progress = _silent) -> Instances:
        """Searches for all pending objects, and returns all objects of the panorama.

        Args:
            progress: called after each view.

        Raises:
            ValueError: there is no panorama.
        """
        for error in self.look_for(self.pending, progress).values():
            raise error
        return self.instances()

    def look_for(
        self, object_ids: Iterable[int], progress: Progress = _silent
    ) -> dict[int, Exception]:
        """Searches for some objects, side by side if the model is faster so.

        Those that are lost are searched for after the others, one by one: their search goes by where those are.

        Args:
            object_ids: some of :attr:`object_ids`.
            progress: called after each view; an exception that it raises ends the search, and is raised here.

        Returns:
            By id, why the search for an object failed. It stays pending; other objects are unaffected.

        Raises:
            ValueError: there is no panorama, or no such object.
        """
        size, search = self.size, self._search  # raises if there is no panorama
        assert search is not None
        failed: dict[int, Exception] = {}
        ended: list[Exception] = []
        telling = threading.Lock()

        def told(done: int, count: int, object_id: int) -> None:
            with telling:
                try:
                    progress(done, count, object_id)
                except Exception as error:
                    ended.append(error)
                    raise

        def work(object_id: int, objects: Mapping[int, TrackedObject], first: int | None) -> None:
            others = [each for i, each in objects.items() if i != object_id]
            try:
                if not ended:
                    self._look_for(search, size, object_id, others, first, told)
            except Exception as error:
                failed[object_id] = error

        before = {i: copy(tracked) for i, tracked in self._objects.items()}
        together, lost = [], []
        for object_id in object_ids:
            self._check_id(object_id)
            tracked = self._objects[object_id]
            first = search.first_view(tracked) if tracked.prompted_here else None
            if tracked.prompted_here or not tracked.lost_for:
                together.append(partial(work, object_id, before, first))
            else:
                lost.append(partial(work, object_id, self._objects, None))
        self.model.side_by_side(together)
        for each in lost:
            each()
        if ended:
            raise ended[0]
        return failed

    def _look_for(
        self,
        search: Search,
        size: tuple[int, int],
        object_id: int,
        others: Sequence[TrackedObject],
        first: int | None,
        progress: Progress,
    ) -> None:
        """Searches for one object. An exception leaves it pending."""
        from sap_ros.core.search import Run

        tracked, encoded = self._objects[object_id], search.encoded
        done: list[int] = []

        def visited(view: int) -> None:
            done.append(view)
            coarse_visited()

        def coarse_visited() -> None:
            progress(len(done), max(len(done), len(encoded.views)), object_id)

        run = Run(self.following, self.recent, visited, coarse_visited, others, first)
        find = search.find if tracked.prompted_here else search.follow
        memory = tracked.memory.copy()
        try:
            found = find(tracked, run)
        except BaseException:
            tracked.memory = memory  # a new search would remember the finished views a second time
            raise
        tracked.masks = found.masks
        fused = encoded.fuse(found.masks, found.on_object, self.fusion, tracked.prompted_here)
        compared = self.model.weak_memory  # by appearance; otherwise memory knows the object again
        if tracked.prompted_here:
            on_object = tracked.prompt.on_object
            looked = encoded.prompted_appearance(found.masks, on_object) if compared else None
            tracked.appearances = Appearances(looked)
        else:
            plausible = tracked.plausible(fused.region, fused.logits > 0, size, self.following)
            if not plausible:
                fused.logits[:] = NO_OBJECT
            elif compared and len(found.masks) == 1:
                ((view, mask),) = found.masks.items()
                if tracked.typical(mask, encoded.views.solid_angle(view), self.following):
                    tracked.appearances.add(encoded.lazy_appearance(view, mask))
        tracked.fused, tracked.noted = fused, False
        self._before.pop(object_id, None)

    def give_up(self, object_id: int) -> None:
        """Marks an object as lost on this panorama without searching for it.

        Raises:
            ValueError: no object has the id.
        """
        self._check_id(object_id)
        self._objects[object_id].give_up()
        self._before.pop(object_id, None)

    def instances(self) -> Instances:
        """All objects; those that were not looked for yet have the state PENDING.

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
        """Returns the label image (H, W), updates the objects' tracks, and frees unused features."""
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
    """The region of an object that was looked for, and its mask (rows, columns) there."""
    assert tracked.fused is not None
    return tracked.fused.region, tracked.fused.region.read(labels) == object_id


def _checked_up(up: ArrayLike | None) -> sphere.Up | None:
    """An up direction as a unit vector."""
    if up is None:
        return None
    vector = np.asarray(up, np.float64)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not 1e-9 < length < np.inf:
        raise ValueError(
            f"up is {vector.tolist()}; it must be a vector (3,) that is finite and has a length"
        )
    x, y, z = (float(value) for value in vector / length)
    return x, y, z


def _tilt(before: sphere.Up | None, after: sphere.Up | None) -> Rotation | None:
    """How a camera rotates everything by being tilted from one up direction to another; None: not, or not known."""
    if before is None or after is None or before == after:
        return None
    return rotation_between(np.array(before), np.array(after))


def _turn_between(
    last: Picture | None,
    last_up: sphere.Up | None,
    picture: Picture | None,
    up: sphere.Up | None,
) -> Callable[[], Rotation]:
    """How everything is rotated from one panorama to the next, by their contents and up directions.

    It is computed when it is first asked for.
    """

    @cache
    def turn() -> Rotation:
        if last is None or picture is None:
            return Rotation.identity()
        known = last_up is not None and up is not None  # otherwise as if the camera was not tilted
        ups = [steady(each if known and each else sphere.UP) for each in (last_up, up)]
        level = [Rotation.from_matrix(sphere.levelling(each)) for each in ups]
        panoramas = [
            each.panorama(_TURN_WIDTH)
            if its_up == sphere.UP
            else turned(each.panorama(_TURN_WIDTH), axes.inv())
            for each, its_up, axes in zip((last, picture), ups, level, strict=True)
        ]
        about = Rotation.from_euler("z", turn_between(*panoramas))
        if ups == [sphere.UP, sphere.UP]:
            return about
        return level[1] * about * level[0].inv()

    return turn
