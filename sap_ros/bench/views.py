"""Quality and cost of encoding fewer views, compared with the full scan, on labelled panoramas."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sap_ros.bench.result import Goal, Result
from sap_ros.bench.scenes import labelled
from sap_ros.core import sphere
from sap_ros.core.instances import size_class
from sap_ros.core.model import Model
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.benchmark import LEAST_SOLID_ANGLE, first_prompt
from sap_ros.evaluation.datasets import read_dataset
from sap_ros.evaluation.metrics import iou

_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("scan", {"strategy": "scan"}),
    ("scan, features kept", {"strategy": "scan"}),
    ("... and a memory of 1 view", {"strategy": "scan", "recent": 1}),
    ("frontier", {"strategy": "frontier"}),
    ("gimbal", {"strategy": "gimbal"}),
    ("auto", {"strategy": "auto"}),
    ("auto, coarse to fine", {"strategy": "auto", "coarse": 0.75}),
)

# These keep the panorama's features from one object to the next, to save time.
_KEPT = ("scan, features kept", "... and a memory of 1 view")


@dataclass(frozen=True)
class _Answer:
    iou: float
    size: str
    edge: bool
    views: int
    seconds: float


def views(model: Model, dataset: Path | None, limit: int) -> Result:
    """IoU, views and time by strategy; one click per object, each object alone."""
    samples = list(_samples(dataset, limit))
    found: dict[str, list[_Answer]] = {}
    for name, options in _WAYS:
        coarse = 32 * round(options.get("coarse", 0) * model.image_size / 32)
        session = PanoramaSession(model, **{**options, "coarse": coarse})
        answers: list[_Answer] = []
        for image, labels in samples:
            answers += _answers(session, image, labels, anew=name not in _KEPT)
        found[name] = answers
    auto, scan = found["auto"], found["scan"]
    figures = {name: _figures(answers) for name, answers in found.items()}
    best = figures["auto"]["iou"] - figures["scan"]["iou"]
    return Result(
        "views",
        f"{len(scan)} objects of {len(samples)} panoramas, {model.name}, one click per object",
        [
            "",
            "IoU",
            "small",
            "medium",
            "large",
            "seam, pole",
            "views: mean, median of small, maximum",
            "s per object",
        ],
        [[name, *_cells(answers)] for name, answers in found.items()],
        [
            Goal("auto: median views of small objects", _median(auto, "small"), 2),
            Goal("auto: median views of all objects", _median(auto), 6),
            Goal("auto: mean IoU minus that of the full scan", best, -0.005, at_least=True),
        ],
        {"answers": {k: [vars(a) for a in v] for k, v in found.items()}, **figures},
    )


def _samples(dataset: Path | None, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if dataset is None:
        for seed in range(limit):
            made = labelled(seed, (2048, 1024), shapes=6)
            yield made.image, made.labels
        return
    for sample in read_dataset(dataset, "auto")[:limit]:
        yield sample.image(), sample.labels()


def _answers(
    session: PanoramaSession, image: np.ndarray, labels: np.ndarray, anew: bool
) -> Iterator[_Answer]:
    """Segments each object with one click. With ``anew``, no features are kept from other objects."""
    session.set_image(image)
    height, width = labels.shape
    weights = sphere.row_solid_angles((width, height))
    for i in np.unique(labels[labels > 0]):
        true = labels == i
        solid_angle = float(weights @ true.sum(1))
        if solid_angle < LEAST_SOLID_ANGLE:
            continue
        session.reset()
        began = time.perf_counter()
        if anew:
            session.set_image(image)
        session.add_prompt(first_prompt(true, "clicks"))
        answer = session.segment()
        seconds = time.perf_counter() - began
        rim = max(1, height // 12)  # 15 degrees
        edge = bool(true[:, [0, -1]].all(1).any() or true[:rim].any() or true[-rim:].any())
        yield _Answer(
            iou(answer.labels > 0, true),
            size_class(solid_angle),
            edge,
            session.encoded,
            seconds,
        )


def _mean(answers: Sequence[_Answer], size: str = "") -> float:
    chosen = [a.iou for a in answers if not size or a.size == size]
    return float(np.mean(chosen)) if chosen else float("nan")


def _median(answers: Sequence[_Answer], size: str = "") -> float:
    chosen = [a.views for a in answers if not size or a.size == size]
    return float(np.median(chosen)) if chosen else float("nan")


def _figures(answers: Sequence[_Answer]) -> dict[str, float]:
    return {
        "iou": _mean(answers),
        **{size: _mean(answers, size) for size in ("small", "medium", "large")},
        "edge": _mean([a for a in answers if a.edge]),
        "views": float(np.mean([a.views for a in answers])),
        "seconds": float(np.median([a.seconds for a in answers])),
    }


def _cells(answers: Sequence[_Answer]) -> list[str]:
    means = [_mean(answers), *(_mean(answers, s) for s in ("small", "medium", "large"))]
    means.append(_mean([a for a in answers if a.edge]))
    mean, most = np.mean([a.views for a in answers]), max(a.views for a in answers)
    seen = f"{mean:.1f}, {_median(answers, 'small'):.0f}, {most}"
    return [
        *(f"{m:.3f}" for m in means),
        seen,
        f"{np.median([a.seconds for a in answers]):.2f}",
    ]
