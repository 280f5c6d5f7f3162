"""`sap bench`: speed and memory, with goals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sap_ros.cli.shared import DEVICE
from sap_ros.missing import how_to_install

if TYPE_CHECKING:
    from rich.console import Console

    from sap_ros.bench.result import Result

_NAMES = (
    "render",
    "views",
    "reprompt",
    "overhead",
    "scaling",
    "memory",
    "live",
    "backend",
    "latency",
    "video",
    "fleet",
)

# What a benchmark needs beside the package's own requirements.
_NEEDED = {
    "backend": ("onnxruntime", "onnx"),
    "latency": ("psutil", "rclpy", "sap_ros.msg"),
}


def bench(
    what: Annotated[str, typer.Argument(help="all, or one of " + ", ".join(_NAMES) + ".")] = "all",
    model: Annotated[
        str | None,
        typer.Option(
            help="Model; random-tiny: SAM 2.1 tiny with random weights (measures cost only). Default: "
            "sap-nano, but random-tiny for `overhead`; `memory` always uses random-tiny."
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Labelled panoramas for `views`; default: generated rooms."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Use only the first N panoramas.")] = 3,
    out: Annotated[
        Path, typer.Option(help="Folder for one JSON file per benchmark, and plots.")
    ] = Path("bench_out"),
    device: DEVICE = "auto",
) -> None:
    """Measure speed and memory, mostly relative to another method or a lower bound in the same run; exit code 1
    if a goal is missed."""
    from rich import get_console
    from rich.table import Table

    from sap_ros.bench.machine import machine
    from sap_ros.core.loading import usable_device

    if what not in ("all", *_NAMES):
        raise ValueError(f"there is no benchmark {what!r}; there are all, {', '.join(_NAMES)}")
    chosen = usable_device(device)
    here, device = machine(chosen), str(chosen)
    out.mkdir(parents=True, exist_ok=True)
    console = get_console()
    if what == "all":
        for key, value in here.items():
            console.print(f"{key}: {value}", highlight=False)
        # Each in its own process, so that memory is not counted for the wrong benchmark.
        options = ["--limit", str(limit), "--out", str(out), "--device", device]
        if model is not None:
            options += ["--model", model]
        if dataset is not None:
            options += ["--dataset", str(dataset)]
        skipped = {name: reason for name in _NAMES if (reason := _unavailable(name))}
        for name in _NAMES:
            (out / f"{name}.json").unlink(missing_ok=True)
            if name in skipped:
                console.print(f"{name}: skipped: {skipped[name]}", highlight=False)
                continue
            command = [sys.executable, "-m", "sap_ros.cli", "bench", name, *options]
            subprocess.run(command, check=False)
        raise typer.Exit(_conclude(console, out, _NAMES, "all: ", skipped))
    if reason := _unavailable(what):
        raise ValueError(f"`{what}` cannot be run here: {reason}")
    with console.status(f"{what} ..."):
        result = _run(what, model, dataset, limit, device)
    table = Table(title=f"{what}: {result.title}", title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(result.columns):
        table.add_column(column, justify="right" if i else "left")
    for row in result.rows:
        table.add_row(*row)
    console.print(table)
    for goal in result.goals:
        console.print(f"  {goal}", highlight=False)
    _write(out / f"{what}.json", result, here)
    _plot(out)
    code = _conclude(console, out, (what,), "")
    console.print()
    raise typer.Exit(code)


def _conclude(
    console: Console, out: Path, names: tuple[str, ...], prefix: str, skipped: Collection[str] = ()
) -> int:
    """Prints which goals were missed or not measured; returns the exit code, 1 if one was missed.

    A benchmark without a result counts as missed, unless it was skipped.
    """
    missed, unmeasured = [], [f"{name}: skipped" for name in names if name in skipped]
    for name in names:
        if name in skipped:
            continue
        path = out / f"{name}.json"
        if not path.exists():
            missed.append(f"{name}: it did not finish")
            continue
        goals = json.loads(path.read_text())["goals"]
        missed += [f"{name}: {goal['what']}" for goal in goals if goal["met"] is False]
        unmeasured += [f"{name}: {goal['what']}" for goal in goals if goal["met"] is None]
    found = "missed: " + "; ".join(missed) if missed else "all goals are met"
    if unmeasured:
        found += " that were measured" if not missed else ""
        found += ". Not measured: " + "; ".join(unmeasured)
    console.print(prefix + found, highlight=False)
    return 1 if missed else 0


def _unavailable(name: str) -> str | None:
    """Why a benchmark cannot be run here: what it needs is not installed. None if it can."""
    for module in _NEEDED.get(name, ()):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            return how_to_install(error)
        except ImportError as error:
            return f"{module} cannot be imported: {error}"
    return None


def _run(name: str, model: str | None, dataset: Path | None, limit: int, device: str) -> Result:
    from sap_ros.bench import backends, fleet, memory, rendering, sessions, video, views
    from sap_ros.bench.scenes import model_of
    from sap_ros.core.loading import DEFAULT_MODEL

    if name == "render":
        return rendering.rendering(device)
    if name == "fleet":
        return fleet.fleet()
    if name == "video":
        return video.decoding()
    if name == "memory":
        return memory.memory()
    if name == "overhead":
        return sessions.overhead(model_of(model or "random-tiny", device))
    if name == "latency":
        from sap_ros.bench import latency  # needs ROS 2

        return latency.latency(model or DEFAULT_MODEL, device)
    if name == "backend":
        return backends.backends(model or DEFAULT_MODEL, device)
    loaded = model_of(model or DEFAULT_MODEL, device)
    if name == "views":
        return views.views(loaded, dataset, limit)
    if name == "reprompt":
        return sessions.reprompt(loaded)
    return sessions.scaling(loaded) if name == "scaling" else sessions.live(loaded)


def _write(path: Path, result: Result, here: Mapping[str, str]) -> None:
    from sap_ros.files import write_text

    goals = [{**vars(goal), "met": goal.met} for goal in result.goals]
    write_text(path, json.dumps({**vars(result), "goals": goals, "machine": here}, indent=1) + "\n")


def _plot(out: Path) -> None:
    """Plots all results in the folder."""
    from sap_ros.bench.plots import plot

    results = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    plot(out / "bench.png", results)
