"""Writes the results: ``results.json``, and ``report.html``, a self-contained page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View
from sap_ros.core.instances import measure
from sap_ros.core.rendering import ViewRenderer
from sap_ros.evaluation.benchmark import Method, Record, mask_path
from sap_ros.evaluation.datasets import Sample
from sap_ros.evaluation.summary import Row
from sap_ros.files import open_image, write_text

_CASES = 4  # number of pictures each of the best, median and worst objects
_SIDE = 360
_RIGHT, _MISSED, _EXCESS = (46, 160, 67), (9, 105, 218), (207, 34, 46)  # RGB

LEGEND = (
    "Mean IoU over objects, and its 95 % confidence interval (bootstrap over panoramas). Sizes by solid "
    "angle: small below 0.03 sr (about 11° across), large from 0.25 sr (32°) on. Seam/pole: objects across "
    "the panorama's border, or within 15° of a pole. Sphere: IoU weighted by solid angle. F: boundary F, "
    "tolerance 0.8 % of the diagonal. Views: encoded views per panorama. s and MB: time and peak memory per "
    "panorama, for all its objects and clicks."
)


def name_of(method: Method) -> str:
    """The name of a row: the model, the strategy, and all settings that differ from their defaults."""
    differs = [
        f"{field.name.replace('_', ' ')} {getattr(method, field.name)}"
        for field in fields(method)
        if field.name not in ("model", "strategy") and getattr(method, field.name) != field.default
    ]
    return ", ".join([f"{method.model} + {method.strategy}", *differs])


def columns(row: Row) -> dict[str, str]:
    """The cells of a row by column name."""

    def shown(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return {
        "method": name_of(row.method),
        "clicks": str(row.clicks) if row.clicks else row.method.prompt,
        "IoU": shown(row.iou),
        "95 %": f"{row.interval[0]:.3f} to {row.interval[1]:.3f}",
        "small": shown(row.small),
        "medium": shown(row.medium),
        "large": shown(row.large),
        "seam/pole": shown(row.seam_or_pole),
        "sphere": shown(row.sphere_iou),
        "F": shown(row.boundary_f),
        "views": shown(row.views, 1),
        "s": shown(row.seconds, 1),
        "MB": shown(row.peak_mb, 0),
    }


def write_results(path: Path, dataset: str, rows: Sequence[Row]) -> None:
    """Writes the table as JSON."""
    text = json.dumps({"dataset": dataset, "rows": [asdict(row) for row in rows]}, indent=2)
    write_text(path, text + "\n")


def write_report(
    path: Path,
    dataset: str,
    rows: Sequence[Row],
    records: Sequence[Record],
    samples: Mapping[str, Sample],
    masks: Path,
) -> None:
    """Writes ``report.html``.

    Args:
        path: the file.
        dataset: name of the data set.
        rows: the table.
        records: the records that the table was made from.
        samples: the panoramas by name, for the pictures; missing ones are left out.
        masks: folder of the predicted masks.
    """
    render_page(
        path,
        "report.html.j2",
        title=f"Segmentation of {dataset}",
        subtitle=f"{rows[0].objects} objects of {rows[0].panoramas} panoramas" if rows else "",
        columns=list(columns(rows[0])) if rows else [],
        rows=[list(columns(row).values()) for row in rows],
        legend=LEGEND,
        plots=_plots(rows, records),
        cases=[_cases(row, records, samples, masks) for row in rows],
    )


def render_page(path: Path, template: str, **values: Any) -> None:
    """Writes a page of the package's templates.

    Args:
        path: the file.
        template: its name; all extend ``base.html.j2``, which shows the values ``title``, ``subtitle``, ``columns``,
            ``rows``, ``legend`` and ``plots`` (PNG in base64).
        values: see the template.
    """
    from jinja2 import Environment, PackageLoader

    pages = Environment(loader=PackageLoader("sap_ros.evaluation"), autoescape=True)
    write_text(path, pages.get_template(template).render(**values))


def _plots(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    """Bar chart of IoU by size, and the share of objects that reach each IoU; PNG in base64."""
    from matplotlib.figure import Figure

    sizes = ("small", "medium", "large", "seam_or_pole")
    bars = Figure(figsize=(9, 3.4), layout="constrained")
    axes = bars.subplots()
    width = 0.8 / max(1, len(rows))
    for i, row in enumerate(rows):
        heights = [getattr(row, size) or 0.0 for size in ("iou", *sizes)]
        places = np.arange(len(heights)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(places, heights, width, label=_label(row))
    axes.set_xticks(range(5), ["all", "small", "medium", "large", "seam, pole"])
    axes.set_ylim(0, 1)
    axes.set_ylabel("mean IoU")
    axes.legend(fontsize=8)
    curves = Figure(figsize=(9, 3.4), layout="constrained")
    axes = curves.subplots()
    for row in rows:
        scores = [s.iou for r in records if r.method == row.method for s in r.scores
                  if s.clicks == row.clicks]  # fmt: skip
        axes.plot(np.sort(scores), np.linspace(1, 0, len(scores)), label=_label(row))
    axes.set_xlim(0, 1)
    axes.set_xlabel("IoU")
    axes.set_ylabel("share of objects that reach it")
    axes.legend(fontsize=8)
    return [png_of(bars), png_of(curves)]


def _label(row: Row) -> str:
    clicks = f", {row.clicks} click{'s' if row.clicks > 1 else ''}" if row.clicks else ""
    return name_of(row.method) + clicks


def png_of(figure: Any) -> str:
    """A figure of matplotlib as PNG, in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode()


def _cases(
    row: Row, records: Sequence[Record], samples: Mapping[str, Sample], masks: Path
) -> dict[str, Any]:
    """The best, the median and the worst objects of a row, as pictures."""
    ranked = sorted(
        (
            (score.iou, record.panorama, score.instance)
            for record in records
            if record.method == row.method
            for score in record.scores
            if score.clicks == row.clicks
        ),
        reverse=True,
    )
    middle = max(0, len(ranked) // 2 - _CASES // 2)
    groups = {"best": ranked[:_CASES], "median": ranked[middle : middle + _CASES],
              "worst": ranked[-_CASES:]}  # fmt: skip
    pictures, shown = [], set()
    for kind, group in groups.items():
        for value, panorama, instance in group:
            file = mask_path(masks, row.method, panorama, instance, row.clicks)
            if panorama not in samples or not file.exists() or (panorama, instance) in shown:
                continue
            shown.add((panorama, instance))
            sample = samples[panorama]
            with open_image(file) as mask:
                found = np.array(mask) > 0
            picture = _picture(sample.image(), sample.labels() == instance, found)
            caption = f"{kind}: IoU {value:.3f}, object {instance} of {panorama}"
            pictures.append({"data": _jpeg(picture), "caption": caption})
    note = "" if pictures else "The panoramas or the masks were not found; there are no pictures."
    return {"title": _label(row), "pictures": pictures, "note": note}


def _picture(image: np.ndarray, true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A view (S, S, 3) RGB of an object with its found, missed and excess pixels tinted."""
    instance = measure(true, 1, 1.0)
    radius = math.degrees(math.sqrt(instance.solid_angle / math.pi))
    fov = min(110.0, max(40.0, 5 * radius))
    azimuth, elevation = sphere.direction_to_angles(instance.direction)
    view = View(float(azimuth), float(elevation), math.radians(fov))
    kinds = (true & found) + 2 * (true & ~found) + 3 * (found & ~true).astype(np.uint8)
    picture = ViewRenderer(image, _SIDE).render(view).astype(np.float32)
    shown = ViewRenderer(kinds.astype(np.uint8), _SIDE, labels=True).render(view)
    for kind, colour in ((1, _RIGHT), (2, _MISSED), (3, _EXCESS)):
        picture[shown == kind] = 0.5 * picture[shown == kind] + 0.5 * np.array(colour)
    return picture.astype(np.uint8)


def _jpeg(picture: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return base64.b64encode(data.tobytes()).decode()
