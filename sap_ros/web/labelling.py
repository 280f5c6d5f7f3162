"""Labelling of the panoramas in a folder with a session, independent of the web page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sap_ros.core.instances import Instance, measure
from sap_ros.core.prompts import MAX_OBJECT_ID, Prompt
from sap_ros.core.session import PanoramaSession, Progress
from sap_ros.web.folder import PanoramaFolder

#: Maximum number of changes of a panorama that can be undone.
MOST_UNDO = 100

_RESERVED_ID = 255


def _silent(done: int, count: int, object_id: int) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """An object of the panorama.

    Attributes:
        label: free text.
        prompt: its prompt with all corrections; None: it is unchanged since it was saved.
    """

    label: str = ""
    prompt: Prompt | None = None


class Labelling:
    """The panoramas of a folder, one of which is open.

    Each change makes a new table of objects, and then updates the session to this table; undo updates the
    session to the previous table. An object's mask depends only on its prompt, not on the order of changes.

    Args:
        folder: the panoramas.
        session: the labelling's own session; nothing else uses it.

    Attributes:
        index: index of the open panorama.
        image: the open panorama, (H, W, 3) uint8 RGB.
        objects: the objects by id, ascending; must not be modified.
    """

    def __init__(self, folder: PanoramaFolder, session: PanoramaSession) -> None:
        self.folder, self._session = folder, session
        self._prompted: dict[int, Prompt] = {}  # the session's objects
        first = folder.first_unlabelled()
        self._open_one_of([*range(first, len(folder)), *range(first)])

    @property
    def changed(self) -> bool:
        """Whether there are unsaved changes."""
        return self.objects is not self._saved

    @property
    def can_undo(self) -> bool:
        """Whether a change can be undone."""
        return bool(self._history)

    def step(self, by: int) -> str:
        """Opens the next (1) or the previous (-1) panorama; changes are saved first.

        Returns:
            The errors of skipped files that cannot be used; otherwise an empty string.

        Raises:
            ValueError: there is no other panorama.
        """
        others = range(self.index + by, len(self.folder) if by > 0 else -1, by)
        if not others:
            raise ValueError(f"this is the {'last' if by > 0 else 'first'} panorama")
        if self.changed:
            self.save()
        return self._open_one_of(others)

    def _open_one_of(self, indices: Sequence[int]) -> str:
        """Opens the first of these panoramas that can be used; returns the errors of those before it."""
        problems = []
        for index in indices:
            try:
                self._open(index)
            except ValueError as error:
                problems.append(str(error))
            else:
                return "; ".join(problems)
        raise ValueError("; ".join(problems))

    def _open(self, index: int) -> None:
        """Opens a panorama with its saved objects; raises ValueError if a file cannot be used."""
        image = self.folder.read(index)
        labels = self.folder.labels(index, (image.shape[1], image.shape[0]))
        self._session.reset()
        self._session.set_image(image)
        self._prompted.clear()
        self.index, self.image = index, image
        self._stored: np.ndarray = labels.image if labels else np.zeros(image.shape[:2], np.int32)
        self._measured: dict[
            int, Instance
        ] = {}  # of objects that are unchanged since they were saved
        ids = [int(i) for i in np.unique(self._stored) if i > 0]
        names = labels.names if labels else {}
        self.objects: dict[int, LabelledObject] = {i: LabelledObject(names.get(i, "")) for i in ids}
        self._saved, self._history = self.objects, list[dict[int, LabelledObject]]()

    def save(self) -> None:
        """Writes the labels of the panorama."""
        labels, _ = self.found()
        self.folder.save(self.index, labels, {i: o.label for i, o in self.objects.items()})
        self._saved = self.objects

    def point(self, direction: np.ndarray, positive: bool, object_id: int, told: Progress) -> int:
        """Adds an object by a point, or corrects one by a point on it or off it.

        Args:
            direction: (3,), of any length.
            positive: whether it is on the object.
            object_id: id of the object; 0: a new object.
            told: called after each view.

        Returns:
            The object's id.

        Raises:
            ValueError: the point cannot be used; nothing is changed.
        """
        labels = np.array([int(positive)])
        return self._prompt(Prompt(object_id or self._free_id(), direction[None], labels), told)

    def box(self, corners: np.ndarray, object_id: int, told: Progress) -> int:
        """As :meth:`point`, with a box around the object, (2, 3) directions."""
        return self._prompt(Prompt(object_id or self._free_id(), box=corners), told)

    def rename(self, object_id: int, label: str) -> None:
        """Changes an object's label."""
        known = self._known(object_id)
        self._change({**self.objects, object_id: replace(known, label=label)})

    def remove(self, object_id: int) -> None:
        """Removes an object."""
        self._known(object_id)
        self._change({i: o for i, o in self.objects.items() if i != object_id})

    def reset(self) -> None:
        """Removes all objects of the panorama."""
        self._change({})

    def undo(self, told: Progress) -> None:
        """Undoes the last change of the panorama; raises ValueError if there is none."""
        if not self._history:
            raise ValueError("there is nothing to undo")
        before = self._history[-1]
        self._agree(before, told)
        self._history.pop()
        self.objects = before

    def found(self) -> tuple[np.ndarray, tuple[Instance, ...]]:
        """The label image (H, W) int32, and all objects by ascending id.

        A saved object keeps its saved pixels until it is corrected.
        """
        instances = self._session.instances()
        labels = instances.labels.astype(np.int32)
        measured = {i.object_id: i for i in instances.objects}
        kept = [i for i, known in self.objects.items() if known.prompt is None]
        as_saved = np.isin(self._stored, kept)
        labels[as_saved] = self._stored[as_saved]
        for object_id in kept:
            if object_id not in self._measured:
                mask = self._stored == object_id
                self._measured[object_id] = measure(mask, object_id, 1.0)
            measured[object_id] = self._measured[object_id]
        return labels, tuple(measured[i] for i in sorted(measured))

    def _prompt(self, prompt: Prompt, told: Progress) -> int:
        object_id = prompt.object_id
        before = self.objects.get(object_id)
        if before is None:
            prompt.check_complete()
            after = LabelledObject(prompt=prompt)
        else:
            base = before.prompt or Prompt(object_id, mask=self._stored == object_id)
            after = replace(before, prompt=base.extended(prompt))
        self._change({**self.objects, object_id: after}, told)
        return object_id

    def _change(self, objects: dict[int, LabelledObject], told: Progress = _silent) -> None:
        before = self.objects
        self._agree(objects, told)
        self._history = [*self._history, before][-MOST_UNDO:]
        self.objects = dict(sorted(objects.items()))

    def _agree(self, objects: dict[int, LabelledObject], told: Progress) -> None:
        """Updates the session to these objects; restores the current ones if an exception is raised."""
        try:
            self._look_for(objects, told)
        except Exception:
            self._look_for(self.objects, _silent)  # not told: the exception may be from there
            raise

    def _look_for(self, objects: dict[int, LabelledObject], told: Progress) -> None:
        session, prompted = self._session, self._prompted
        for object_id in list(prompted):
            known = objects.get(object_id)
            if known is None or known.prompt is not prompted[object_id]:
                session.remove_object(object_id)
                del prompted[object_id]
        for object_id, known in objects.items():
            if known.prompt is not None and object_id not in prompted:
                session.add_prompt(known.prompt)
                prompted[object_id] = known.prompt
                for error in session.look_for([object_id], told).values():
                    raise error

    def _known(self, object_id: int) -> LabelledObject:
        if object_id not in self.objects:
            raise ValueError(f"no object has the id {object_id}; there are {sorted(self.objects)}")
        return self.objects[object_id]

    def _free_id(self) -> int:
        taken = {*self.objects, _RESERVED_ID}
        return next(i for i in range(1, MAX_OBJECT_ID + 1) if i not in taken)
