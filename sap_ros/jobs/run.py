"""Passes items to a pool of workers, and counts what became of them."""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

#: How often an item is tried whose worker dies.
ATTEMPTS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Item:
    """A part of the work.

    Attributes:
        name: unique; names its results.
        work: what the worker is given; picklable.
    """

    name: str
    work: Any


#: Does the work of one item; its result is given back, and must be picklable.
Worker = Callable[[Any], Any]


@dataclass(frozen=True)
class Job:
    """What is done with each item.

    Attributes:
        make_worker: makes a worker, in the process that it works in. Picklable: a function of a module, or a
            ``functools.partial`` of one. ValueError and OSError that it raises end the run.
        is_done: whether an item's results exist already.
        finished: called in this process with each item and its worker's result.
    """

    make_worker: Callable[[], Worker]
    is_done: Callable[[Item], bool] = lambda item: False
    finished: Callable[[Item, Any], None] = lambda item, result: None


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: the item.
        result: what the worker returned.
        error: why it failed, in one line; empty: it did not.
        lost: whether its worker died.
        full: whether the disk was full.
    """

    item: Item
    result: Any = None
    error: str = ""
    lost: bool = False
    full: bool = False


class Pool(Protocol):
    """Workers. Used as a context manager, which stops them at its end."""

    def start(self, make_worker: Callable[[], Worker]) -> None:
        """Starts the workers.

        Raises:
            ValueError, OSError: a worker cannot be made.
        """

    @property
    def free(self) -> int:
        """Number of items that can be submitted now."""

    def submit(self, item: Item) -> None:
        """Gives an item to a free worker."""

    def wait(self) -> Sequence[Outcome]:
        """Waits until items are finished or lost, or a worker has become free."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass
class Summary:
    """What became of all items.

    Attributes:
        done: number of items that were done now.
        kept: number of items whose results existed already.
        failed: reasons by name.
    """

    done: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def run(
    job: Job,
    items: Iterable[Item],
    pool: Pool,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Does the work of all items.

    Args:
        job: what is done with each.
        items: taken one by one, when there is a free worker.
        pool: the workers.
        progress: called after each item.

    Raises:
        ValueError, OSError: a worker cannot be made, or the disk is full.
    """
    summary, tries = Summary(), Counter[str]()
    again: deque[Item] = deque()
    remaining = iter(items)
    busy, started, ended, full = 0, False, False, False
    with pool:
        while True:
            while not (ended and not again) and not full and (not started or pool.free):
                item = again.popleft() if again else next(remaining, None)
                if item is None:
                    ended = True
                    break
                if job.is_done(item):
                    summary.kept += 1
                    progress(summary)
                    continue
                if not started:  # not if there is nothing to do: a model takes seconds
                    pool.start(job.make_worker)
                    started = True
                    again.appendleft(item)
                    continue
                tries[item.name] += 1
                pool.submit(item)
                busy += 1
            if not busy and (full or (ended and not again)):
                break
            for outcome in pool.wait():
                busy -= 1
                if outcome.lost and tries[outcome.item.name] < ATTEMPTS:
                    again.append(outcome.item)
                    continue
                del tries[outcome.item.name]
                if outcome.error:
                    summary.failed[outcome.item.name] = outcome.error
                    full |= outcome.full
                else:
                    job.finished(outcome.item, outcome.result)
                    summary.done += 1
                progress(summary)
    if full:
        raise OSError(
            f"the disk is full; {summary.done + summary.kept} items are done. Free some space and give the "
            "same command again"
        )
    return summary


def attempt(worker: Worker, item: Item) -> Outcome:
    """Does an item's work; an exception becomes the outcome's error."""
    try:
        return Outcome(item, worker(item.work))
    except Exception as error:  # one item must not end the others
        expected = isinstance(error, ValueError | OSError)
        text = " ".join((str(error) if expected else repr(error)).split())
        full = isinstance(error, OSError) and error.errno in _FULL
        return Outcome(item, error=text or repr(error), full=full)
