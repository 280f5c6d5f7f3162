"""Benchmark results: tables with goals; and time measurement."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

#: Only this share of the repetitions, the fastest, is averaged where other processes disturb the slower ones.
UNDISTURBED = 0.25


@dataclass(frozen=True)
class Goal:
    """A measured value and its goal.

    Attributes:
        what: what was measured.
        value: the measured value; None if it could not be measured.
        limit: the value should be at most, or at least, this.
        at_least: whether ``limit`` is a lower bound.
        note: why it could not be measured, or was missed.
    """

    what: str
    value: float | None
    limit: float
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        state = {True: "met", False: "MISSED", None: "open"}[self.met]
        note = f" ({self.note})" if self.note else ""
        return f"{state}: {self.what} {value}, goal {sign} {self.limit:g}{note}"


@dataclass(frozen=True)
class Result:
    """The result of a benchmark.

    Attributes:
        name: of the benchmark.
        title: what was measured, on what.
        columns, rows: the table, as text.
        goals: see :class:`Goal`.
        figures: raw numbers, for JSON and plots.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    goals: list[Goal]
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of repetitions, the fastest and the slowest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} s ({_short(self.low)} to {_short(self.high)})"


def _short(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds < 0.1 else f"{seconds:.3g}"


def timed(
    work: Callable[[], object],
    repeats: int,
    warm: int = 1,
    device: torch.device | None = None,
) -> Timing:
    """Times a function on a device, after ``warm`` runs that are not measured."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(repeats):
        began = _now(device)
        work()
        taken.append(_now(device) - began)
    return timing_of(taken)


def _now(device: torch.device | None) -> float:
    """The time, in s, after the device has finished its queued work."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def undisturbed(seconds: Sequence[float]) -> float:
    """The mean of the fastest quarter of repetitions: other processes disturb the slower ones."""
    return float(np.mean(np.sort(seconds)[: max(1, round(UNDISTURBED * len(seconds)))]))


def timing_of(taken: list[float]) -> Timing:
    """The timing of repetitions that took these seconds."""
    return Timing(statistics.median(taken), min(taken), max(taken))


@contextmanager
def stopwatch(
    owner: object, names: tuple[str, ...], device: torch.device | None = None
) -> Iterator[list[float]]:
    """Times all calls of an object's methods in its block; the list's only element is their sum in s.

    Each measurement waits until ``device`` has finished its work. Nested calls, and calls of several threads at the
    same time, are counted once.
    """
    total, depth, began = [0.0], [0], [0.0]
    lock = threading.Lock()

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                if not depth[0]:
                    began[0] = _now(device)
                depth[0] += 1
            try:
                return method(*args, **kwargs)
            finally:
                with lock:
                    depth[0] -= 1
                    if not depth[0]:
                        total[0] += _now(device) - began[0]

        return call

    for name in names:
        setattr(owner, name, watched(getattr(owner, name)))
    try:
        yield total
    finally:
        for name in names:
            delattr(owner, name)
