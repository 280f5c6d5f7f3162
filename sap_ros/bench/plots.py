"""Plots the results of the benchmarks in one picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sap_ros.places import write_whole


def plot(path: Path, results: dict[str, Any]) -> None:
    """Plots the available results of `views`, `scaling`, `reprompt` and `live`.

    Args:
        path: PNG to write.
        results: the benchmarks' JSON files, by name.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawn = [name for name in ("views", "scaling", "reprompt", "live") if name in results]
    if not drawn:
        return
    figure = Figure(figsize=(3.6 * len(drawn), 3.2), layout="constrained")
    for i, name in enumerate(drawn, 1):
        axes = figure.add_subplot(1, len(drawn), i)
        {"views": _views, "scaling": _scaling, "reprompt": _reprompt, "live": _live}[name](
            axes, results[name]["figures"]
        )
    picture = BytesIO()
    figure.savefig(picture, dpi=90, format="png")
    write_whole(path, picture.getvalue())


def _views(axes: Any, figures: dict[str, Any]) -> None:
    answers = figures["answers"]
    for name in ("auto", "gimbal", "frontier", "scan"):
        views = float(np.mean([a["views"] for a in answers[name]]))
        value = float(np.mean([a["iou"] for a in answers[name]]))
        axes.plot(views, value, "o", markersize=9, label=name)
    axes.legend(frameon=False)
    axes.set(
        xscale="log", xlim=(0.8, 60), xlabel="views encoded per object", ylabel="mean IoU",
        title="fewer views",
    )  # fmt: skip
    axes.margins(y=0.3)


def _scaling(axes: Any, figures: dict[str, Any]) -> None:
    for name in ("auto", "gimbal", "frontier", "scan"):
        axes.plot(figures["counts"], figures["objects"][name], "o-", label=name)
    axes.set(xlabel="objects on 2048x1024", ylabel="s", title="further objects", ylim=(0, None))
    axes.legend(frameon=False)


def _reprompt(axes: Any, figures: dict[str, Any]) -> None:
    names = ["first prompt", "correction", "another object"]
    axes.bar(names, figures["auto"], color=["tab:blue", "tab:green", "tab:orange"])
    axes.set(ylabel="s", title="prompts on 4096x2048 (auto)")
    axes.tick_params(axis="x", labelsize=8)


def _live(axes: Any, figures: dict[str, Any]) -> None:
    names = ["auto", "full scan of every frame"]
    axes.bar(["auto", "full scan"], [1 / figures[n]["seconds"] for n in names], color="tab:blue")
    axes.set(ylabel="images per second", title="tracking one object")
