"""The paper's benchmark: prompts every object of labelled panoramas and scores its mask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.instances import measure
from sap_ros.core.model import Model
from sap_ros.core.prompts import POSITIVE, Prompt
from sap_ros.core.scan import Order, Scan
from sap_ros.core.search import PromptedViews, Strategy, search_by
from sap_ros.core.session import FusionChoice, PanoramaSession
from sap_ros.evaluation.clicks import centre_click, correction_click
from sap_ros.evaluation.cost import measured
from sap_ros.evaluation.datasets import Sample
from sap_ros.evaluation.metrics import boundary_f, iou, sphere_iou
from sap_ros.places import make_folder, write_whole

PromptKind = Literal["clicks", "box", "mask"]

#: Instances with a smaller solid angle, in sr, are left out (about 2 x 2 degrees).
LEAST_SOLID_ANGLE = 0.001


@dataclass(frozen=True)
class Method:
    """How panoramas are segmented: one row of the table.

    Attributes:
        model: name of the model.
        strategy: which views of a panorama the model segments.
        prompt: the kind of prompt: clicks, the object's box, or its mask in the nearest view.
        overlap: overlap of the scan's views.
        order: order of the scan's views.
        fusion: how overlapping views are fused; ``auto`` means ``max`` if only one view is prompted.
        click_frames: which views are prompted with a click.
        alone: in a video, each object is tracked as if it were the only one that was prompted.
    """

    model: str
    strategy: Strategy = "scan"
    prompt: PromptKind = "clicks"
    overlap: float = 0.5
    order: Order = "column_first"
    fusion: FusionChoice = "auto"
    click_frames: PromptedViews = "all"
    alone: bool = False

    def __post_init__(self) -> None:
        if self.prompt not in ("clicks", "box", "mask"):
            raise ValueError(f"the prompt is {self.prompt!r}; it must be clicks, box or mask")

    def session(self, model: Model) -> PanoramaSession:
        """A session with these settings."""
        prompted: PromptedViews = "first" if self.prompt == "mask" else self.click_frames
        scan = Scan(overlap=self.overlap, order=self.order)
        fusion = self.fusion
        one_prompted = prompted == "first" and self.strategy in ("scan", "patches")
        if one_prompted and fusion == "auto":  # views that lost the object would outvote it
            fusion = "max"
        return PanoramaSession(
            model, search_by(self.strategy, model, scan=scan, prompted=prompted), fusion=fusion
        )


@dataclass(frozen=True)
class Score:
    """Scores of one object after a number of clicks (0 for a box or mask prompt)."""

    instance: int
    clicks: int
    size: str
    seam: bool
    pole: bool
    iou: float
    sphere_iou: float
    boundary_f: float


@dataclass(frozen=True)
class Record:
    """The results of one method on one panorama.

    Attributes:
        method: how it was segmented.
        panorama: name of the panorama.
        views: number of encoded views for all objects.
        seconds: time for all objects and all their clicks.
        peak_mb: peak memory; None if unknown.
        scores: one for each object and number of clicks.
    """

    method: Method
    panorama: str
    views: int
    seconds: float
    peak_mb: float | None
    scores: tuple[Score, ...]


def evaluate(
    model: Model,
    method: Method,
    clicks: Sequence[int],
    samples: Iterable[Sample],
    results: Path,
    masks: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Record]:
    """Segments every object of labelled panoramas, one at a time, and scores the masks.

    The first click is in the middle of the object. Each further click is in the middle of the missed or of
    the excess pixels, whichever are more: positive on missed ones, negative on excess ones.

    Args:
        model: the model.
        method: how it is used.
        clicks: numbers of clicks after which an object is scored.
        samples: the panoramas.
        results: file of records, one line of JSON per panorama. Panoramas in it are not evaluated again,
            so the same command resumes a killed run.
        masks: folder for the predicted masks, see :func:`mask_path`.
        progress: called after every panorama.

    Returns:
        The records of this method, including those of earlier runs.
    """
    counts = counted(method, clicks)
    found = [
        record
        for record in read_records([results])
        if record.method == method and {s.clicks for s in record.scores} >= {*counts}
    ]
    there = {record.panorama for record in found}
    for sample in samples:
        if sample.name not in there:
            record = segmented(model, method, counts, sample, masks)
            if not record.scores:
                continue
            found.append(record)
            append_record(results, record)
        progress()
    return [_only(record, counts) for record in found]


def counted(method: Method, clicks: Sequence[int]) -> list[int]:
    """The numbers of clicks after which a method is scored; only 0 for a box or mask prompt."""
    return sorted(set(clicks)) if method.prompt == "clicks" else [0]


def append_record(results: Path, record: Record) -> None:
    """Appends a record to a file, see :func:`read_records`."""
    with results.open("a") as file:
        # The leading newline ends a line that was truncated when an earlier run was killed.
        file.write("\n" + json.dumps(asdict(record)) + "\n")


def _only(record: Record, counts: Sequence[int]) -> Record:
    kept = tuple(s for s in record.scores if s.clicks in counts)
    return Record(**{**vars(record), "scores": kept})


def segmented(
    model: Model, method: Method, counts: Sequence[int], sample: Sample, masks: Path | None
) -> Record:
    """Segments every object of one panorama, see :func:`evaluate`; ``counts`` from :func:`counted`."""
    labels, image = sample.labels(), sample.image()
    chosen = [t for t in sample.instances if t.solid_angle >= LEAST_SOLID_ANGLE]
    scores: list[Score] = []
    with measured(model.device) as cost:
        session = method.session(model)
        session.set_image(image)
        answers = [
            (truth, count, found)
            for truth in chosen
            for count, found in _answers(session, method, labels == truth.instance_id, counts)
        ]
    for truth, count, bits in answers:
        true = labels == truth.instance_id
        found = np.unpackbits(bits, count=true.size).reshape(true.shape) > 0
        scores.append(
            Score(
                truth.instance_id,
                count,
                truth.size,
                truth.seam,
                truth.pole,
                round(iou(found, true), 5),
                round(sphere_iou(found, true), 5),
                round(boundary_f(found, true), 5),
            )
        )
        if masks is not None:
            path = mask_path(masks, method, sample.name, truth.instance_id, count)
            make_folder(path.parent)
            options = [cv2.IMWRITE_PNG_BILEVEL, 1]
            png = cv2.imencode(".png", found.astype(np.uint8) * 255, options)[1]
            write_whole(path, png.tobytes())
    return Record(
        method,
        sample.name,
        session.encoded,
        round(cost.seconds, 3),
        None if cost.peak_mb is None else round(cost.peak_mb),
        tuple(scores),
    )


def _answers(
    session: PanoramaSession, method: Method, mask: np.ndarray, counts: Sequence[int]
) -> list[tuple[int, np.ndarray]]:
    """The predicted masks of an object after each number of clicks, as packed bits."""
    answers = []
    found = np.zeros_like(mask)
    session.reset()
    for count in range(1, max(counts) + 1) if method.prompt == "clicks" else [0]:
        if method.prompt == "clicks":  # each further click corrects the object
            direction, label = correction_click(mask, found)
            prompt = Prompt(1, direction[None], np.array([label]))
        else:
            prompt = first_prompt(mask, method.prompt)
        session.add_prompt(prompt)
        found = session.segment().labels > 0
        if count in counts:
            answers.append((count, np.packbits(found)))
    return answers


def first_prompt(mask: np.ndarray, kind: PromptKind) -> Prompt:
    """The first prompt for an object with mask (H, 2H) bool, as object 1: a click, its box, or the mask."""
    if kind == "mask":
        return Prompt(1, mask=mask)
    if kind == "box":
        return _box(mask)
    return Prompt(1, centre_click(mask)[None], np.array([POSITIVE]))


def _box(mask: np.ndarray) -> Prompt:
    """The box around a mask; across the seam if that is narrower."""
    extent = measure(mask, 1, 1.0)
    half = min(extent.azimuth_width, 2 * math.pi - 0.01) / 2
    corners = [
        sphere.angles_to_direction(extent.azimuth_centre + half, extent.elevation_max),
        sphere.angles_to_direction(extent.azimuth_centre - half, extent.elevation_min),
    ]
    return Prompt(1, box=np.stack(corners))


def mask_path(masks: Path, method: Method, panorama: str, instance: int, clicks: int) -> Path:
    """File of an object's mask: a PNG with one bit per pixel."""
    part = "_".join(str(value) for value in asdict(method).values()).replace("/", "_")
    return masks / part / f"{panorama}_{instance}_{clicks}.png"


def read_records(files: Iterable[Path]) -> list[Record]:
    """Reads records, one per method and panorama. Truncated lines are skipped."""
    records: dict[tuple[Method, str], Record] = {}
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                row = json.loads(line)
                record = Record(
                    **{
                        **row,
                        "method": Method(**row["method"]),
                        "scores": tuple(Score(**score) for score in row["scores"]),
                    }
                )
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            key = record.method, record.panorama
            if key not in records or len(records[key].scores) < len(record.scores):
                records[key] = record
    return list(records.values())
