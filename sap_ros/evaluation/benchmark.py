"""The paper's benchmark: click on every object, compare the mask, by model and strategy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.model import Model
from sap_ros.core.prompts import NEGATIVE, POSITIVE, Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.core.strategies import Strategy
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.datasets import Sample
from sap_ros.evaluation.metrics import iou, sphere_iou

#: Instances of which less is seen (about 2 x 2 degrees) are not asked for.
LEAST_SOLID_ANGLE = 0.001


@dataclass(frozen=True)
class Score:
    """How one object was masked.

    ``seconds`` went into all its clicks; the panorama's features are kept, so its first object has the
    encoder's time.
    """

    model: str
    strategy: str
    clicks: int
    panorama: str
    instance: int
    size: str
    seam: bool
    pole: bool
    iou: float
    sphere_iou: float
    seconds: float


def evaluate(
    model: Model,
    label: str,
    strategy: Strategy,
    clicks: Sequence[int],
    samples: Iterable[Sample],
    results: Path,
    progress: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Clicks on every object of labelled panoramas, one by one.

    The first click is in the object's middle, each further one in the middle of the larger error
    region: positive where the object was missed, negative where too much was taken.

    Args:
        model: the model.
        label: what it is called in the results.
        strategy: how the panorama is shown to it.
        clicks: after how many clicks it is scored.
        samples: the panoramas.
        results: file of scores, a line of JSON a panorama. Panoramas that are in it are not evaluated
            again, so a killed run can be given again.
        progress: told of every panorama.

    Returns:
        The scores of this model and strategy, those of earlier runs among them.
    """
    found = [
        s
        for s in read_scores(results)
        if (s.model, s.strategy) == (label, strategy) and s.clicks in clicks
    ]
    there = {s.panorama for s in found}
    for sample in samples:
        if sample.name not in there:
            scores = _score(model, label, strategy, clicks, sample)
            with results.open("a") as file:  # after a line that a kill cut off, too
                file.write("\n" + json.dumps([asdict(s) for s in scores]) + "\n")
            found += scores
        progress()
    return found


def _score(
    model: Model, label: str, strategy: Strategy, clicks: Sequence[int], sample: Sample
) -> list[Score]:
    session, labels = PanoramaSession(model, strategy), sample.labels()
    session.set_image(sample.image())
    scores = []
    for truth in sample.instances:
        if truth.solid_angle < LEAST_SOLID_ANGLE:
            continue
        mask = labels == truth.instance_id
        found, seconds = np.zeros_like(mask), 0.0
        given: list[tuple[np.ndarray, int]] = []
        for k in range(1, max(clicks) + 1):
            given.append(_next_click(mask, found))
            directions, signs = zip(*given, strict=True)
            session.reset()
            session.add_prompt(Prompt(1, np.stack(directions), np.array(signs)))
            began = time.perf_counter()
            found = session.segment().labels > 0
            seconds += time.perf_counter() - began
            if k in clicks:
                scores.append(
                    Score(
                        label,
                        strategy,
                        k,
                        sample.name,
                        truth.instance_id,
                        truth.size,
                        truth.seam,
                        truth.pole,
                        round(iou(found, mask), 5),
                        round(sphere_iou(found, mask), 5),
                        round(seconds, 4),
                    )
                )
    return scores


def _next_click(true: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, int]:
    """A click in the middle of the larger error region, by solid angle."""
    missed, excess = true & ~found, found & ~true
    if not (missed.any() or excess.any()):
        missed = true
    weights = sphere.row_solid_angles((true.shape[1], true.shape[0]))
    positive = weights @ missed.sum(1) >= weights @ excess.sum(1)
    return centre_click(missed if positive else excess), POSITIVE if positive else NEGATIVE


def read_scores(results: Path) -> list[Score]:
    """Scores of a file; a line that was cut off by a kill is left out."""
    scores = []
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            scores += [Score(**row) for row in json.loads(line)]
        except (json.JSONDecodeError, TypeError):
            continue
    return scores


def means(scores: Sequence[Score]) -> dict[str, float | None]:
    """Mean IoU over objects: of all, by size, at seam and poles, and weighted on the sphere."""
    groups = {
        "all": scores,
        **{size: [s for s in scores if s.size == size] for size in ("small", "medium", "large")},
        "seam or pole": [s for s in scores if s.seam or s.pole],
    }
    found = {name: mean(s.iou for s in group) if group else None for name, group in groups.items()}
    return {
        **found,
        "sphere": mean(s.sphere_iou for s in scores) if scores else None,
        "seconds": mean(s.seconds for s in scores) if scores else None,
    }
