"""What is remembered of one object from view to view: SAM 2's memory bank, bounded and lazy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sap_ros.core.network import Memory

#: Views, beside the prompted ones, whose masks SAM 2's memory attention reads.
RECENT = 6

#: How many views back SAM 2 reads object pointers; older views are forgotten.
POINTERS = 16

# Views kept whose memory has not been encoded: each holds the features of its view.
_UNREAD = 6

# Prompted views kept: those that see one click, and those of a few corrections.
_PROMPTED = 12

T = TypeVar("T")

#: Encodes what SAM 2 reads of one view.
Entry = Callable[[], dict[str, Any]]


class ObjectMemory:
    """The memory of one object: of the prompted views, and of the last views in which it was seen.

    Its size is bounded, however many views are visited. The memory of a view is encoded when it is
    first read: an object that is prompted in every view needs no memory to be encoded.
    """

    def __init__(self) -> None:
        self._prompted: dict[int, dict[str, Any] | Entry] = {}
        self._seen: dict[int, dict[str, Any] | Entry] = {}

    def __len__(self) -> int:
        return len(self._prompted) + len(self._seen)

    def copy(self) -> ObjectMemory:
        """An independent copy."""
        other = ObjectMemory()
        other._prompted, other._seen = dict(self._prompted), dict(self._seen)
        return other

    def write(self, index: int, entry: Entry, prompted: bool) -> None:
        """Remembers a view under a number that grows in time; ``entry`` encodes what SAM 2 reads of it."""
        (self._prompted if prompted else self._seen)[index] = entry

    def read(self, recent: int) -> Memory:
        """The memory as SAM 2 reads it: all prompted views, and the ``recent`` last ones of the others."""
        if recent >= RECENT:
            recent = POINTERS  # their pointers reach farther back than their masks
        last = sorted(self._seen)[len(self._seen) - min(recent, len(self._seen)) :]
        self._seen = {i: self._seen[i] for i in last}
        return {
            "cond_frame_outputs": _read(self._prompted),
            "non_cond_frame_outputs": _read(self._seen),
        }

    def condense(self) -> int:
        """Forgets what SAM 2 would not read any more, and numbers the rest from 0, prompted views first.

        Returns the number of the next view.
        """
        first = [self._prompted[i] for i in sorted(self._prompted)][-_PROMPTED:]
        then = [self._seen[i] for i in sorted(self._seen)][-POINTERS:]
        # An entry that was never read holds the features of its view: only a few are kept.
        unread = [entry for entry in then if callable(entry)][:-_UNREAD]
        then = [entry for entry in then if entry not in unread]
        self._prompted = dict(enumerate(first))
        self._seen = dict(enumerate(then, len(first)))
        return len(self)


def _read(part: dict[int, dict[str, Any] | Entry]) -> dict[int, dict[str, Any]]:
    """The entries of a part of the memory, encoded where they were not; the result is kept."""
    entries = {i: entry() if callable(entry) else entry for i, entry in part.items()}
    part.update(entries)
    return entries


def once(work: Callable[[], T]) -> Callable[[], T]:
    """Does a piece of work when it is first called; afterwards keeps the result, and not what it is made from.

    Several threads may call it.
    """
    done: list[T] = []
    to_do = [work]
    doing = threading.Lock()

    def result() -> T:
        with doing:
            if to_do:
                done.append(to_do.pop()())
        return done[0]

    return result
