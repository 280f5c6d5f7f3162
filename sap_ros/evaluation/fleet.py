"""Writes ``report.html`` of many replayed bags: their rates, losses, IoU, and the worst moments."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sap_ros.evaluation.report import png_of, render_page

_ROWS = 200  # bags that are listed
_MOMENTS = 12  # pictures
_NOTES = 50

LEGEND = (
    "A row per bag, the slowest first. Images/s: as processed, by the median time of an image; recorded: as the bag "
    "was. Dropped: images that a live node would have dropped at that rate. Lost, regained: how many times an object "
    "that had been tracked was lost, and found again. J (IoU) and F (boundary F): means over images and objects, "
    "where there are true masks."
)


def write_fleet_report(
    path: Path, out: Path, summaries: Mapping[str, dict[str, Any]], failed: Mapping[str, str]
) -> None:
    """Writes the page.

    Args:
        path: the file.
        out: folder of the replays, each in a folder of its bag's name.
        summaries: contents of their ``summary.json``, by bag.
        failed: why bags could not be replayed, by bag.
    """
    ordered = sorted(summaries.items(), key=lambda pair: _rate(pair[1]))
    lost, regained, images = (
        sum(s[key] for s in summaries.values()) for key in ("lost", "regained", "images")
    )
    subtitle = (
        f"{images} images of {len(summaries)} bags; objects lost: {lost}, regained: {regained}"
    )
    if failed:
        subtitle += f"; failed bags: {len(failed)}"
    if true := [s["J"] for s in summaries.values() if "J" in s]:
        subtitle += f"; mean IoU {statistics.fmean(true):.3f} (bags with true masks: {len(true)})"
    if len(ordered) > _ROWS:
        subtitle += f". The slowest {_ROWS} are listed; all are in summary.csv"
    cells = [_cells(name, summary) for name, summary in ordered[:_ROWS]]
    render_page(
        path,
        "fleet.html.j2",
        title="Replayed bags",
        subtitle=subtitle,
        columns=list(cells[0]) if cells else [],
        rows=[list(row.values()) for row in cells],
        legend=LEGEND,
        plots=[_plot(summaries)] if summaries else [],
        failed=list(failed.items()),
        moments=_moments(out, summaries),
        notes=[(name, note) for name, s in ordered for note in s["notes"]][:_NOTES],
    )


def _rate(summary: Mapping[str, Any]) -> float:
    """Images per second."""
    seconds = summary["seconds_per_image"]
    return 1 / seconds if seconds else 0.0


def _cells(name: str, summary: Mapping[str, Any]) -> dict[str, str]:
    def shown(key: str, digits: int) -> str:
        value = summary.get(key)
        return "-" if value is None else f"{value:.{digits}f}"

    return {
        "bag": name,
        "images": shown("images", 0),
        "objects": shown("objects", 0),
        "images/s": f"{_rate(summary):.1f}",
        "recorded": shown("recorded_rate_hz", 1),
        "dropped": shown("dropped_if_live", 0),
        "lost": shown("lost", 0),
        "regained": shown("regained", 0),
        "J": shown("J", 3),
        "F": shown("F", 3),
    }


def _plot(summaries: Mapping[str, dict[str, Any]]) -> str:
    """How many bags are processed at which rate, and how many reach which IoU; PNG in base64."""
    from matplotlib.figure import Figure

    true = [s["J"] for s in summaries.values() if "J" in s]
    figure = Figure(figsize=(9, 3.0), layout="constrained")
    panels = figure.subplots(1, 2 if true else 1, squeeze=False)[0]
    panels[0].hist([_rate(s) for s in summaries.values()], bins=20)
    panels[0].set_xlabel("images/s")
    panels[0].set_ylabel("bags")
    for axes in panels:
        axes.yaxis.get_major_locator().set_params(integer=True)
    if true:
        panels[1].hist(true, bins=20, range=(0, 1))
        panels[1].set_xlabel("mean IoU")
    return png_of(figure)


def _moments(out: Path, summaries: Mapping[str, dict[str, Any]]) -> list[dict[str, str]]:
    ranked = sorted(
        (
            (moment["badness"], name, moment)
            for name, s in summaries.items()
            for moment in s["moments"]
        ),
        key=lambda entry: -entry[0],
    )
    return [
        {
            "data": base64.b64encode((out / name / moment["picture"]).read_bytes()).decode(),
            "caption": f"{name}, image {moment['image']}, object {moment['object_id']}: {moment['what']}",
        }
        for _, name, moment in ranked[:_MOMENTS]
    ]
