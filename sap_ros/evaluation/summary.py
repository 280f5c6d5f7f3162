"""The table of results: means over objects, by size and position, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sap_ros.evaluation.benchmark import Method, Record, Score

_RESAMPLED, _SEED = 1000, 0


@dataclass(frozen=True)
class Row:
    """One method after one number of clicks; a mean is None if there are no objects for it.

    Attributes:
        method, clicks: the method and the number of clicks.
        objects, panoramas: their numbers.
        iou: mean IoU over objects, in pixels of the panorama.
        interval: 95 % confidence interval of ``iou``, by bootstrap over panoramas.
        small, medium, large: mean IoU by solid angle, see :func:`sap_ros.core.instances.size_class`.
        seam_or_pole: mean IoU of objects across the seam or within 15 degrees of a pole.
        sphere_iou: mean IoU, weighted by solid angle.
        boundary_f: mean boundary F.
        views: mean number of views encoded per panorama.
        seconds: mean time per panorama, for all its objects and clicks.
        peak_mb: peak memory, the maximum over all panoramas.
    """

    method: Method
    clicks: int
    objects: int
    panoramas: int
    iou: float
    interval: tuple[float, float]
    small: float | None
    medium: float | None
    large: float | None
    seam_or_pole: float | None
    sphere_iou: float
    boundary_f: float
    views: float
    seconds: float
    peak_mb: float | None


def summarize(records: Iterable[Record]) -> list[Row]:
    """One row per method and number of clicks, in the order of the records."""
    by_method: dict[Method, list[Record]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    rows = []
    for method, group in by_method.items():
        for clicks in sorted({score.clicks for record in group for score in record.scores}):
            rows.append(_row(method, clicks, group))
    return rows


def _row(method: Method, clicks: int, records: Sequence[Record]) -> Row:
    records = [r for r in records if any(s.clicks == clicks for s in r.scores)]
    per_panorama = [[s for s in record.scores if s.clicks == clicks] for record in records]
    scores = [score for group in per_panorama for score in group]
    peaks = [record.peak_mb for record in records if record.peak_mb is not None]

    def mean(group: Iterable[Score]) -> float | None:
        values = [score.iou for score in group]
        return float(np.mean(values)) if values else None

    sizes = {
        size: mean(s for s in scores if s.size == size) for size in ("small", "medium", "large")
    }
    return Row(
        method,
        clicks,
        len(scores),
        len(records),
        float(np.mean([s.iou for s in scores])),
        interval([[s.iou for s in group] for group in per_panorama]),
        **sizes,
        seam_or_pole=mean(s for s in scores if s.seam or s.pole),
        sphere_iou=float(np.mean([s.sphere_iou for s in scores])),
        boundary_f=float(np.mean([s.boundary_f for s in scores])),
        views=float(np.mean([record.views for record in records])),
        seconds=float(np.mean([record.seconds for record in records])),
        peak_mb=max(peaks, default=None),
    )


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean of all values, by bootstrap over groups (the objects of a panorama)."""
    groups = [group for group in groups if len(group)]
    sums = np.array([sum(group) for group in groups])
    counts = np.array([len(group) for group in groups])
    chosen = np.random.default_rng(_SEED).integers(len(groups), size=(_RESAMPLED, len(groups)))
    low, high = np.percentile(sums[chosen].sum(1) / counts[chosen].sum(1), [2.5, 97.5])
    return float(low), float(high)
