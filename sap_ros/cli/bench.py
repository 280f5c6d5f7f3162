"""`sap bench`: speed and memory, with goals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sap_ros.cli.shared import DEVICE

if TYPE_CHECKING:
    from sap_ros.bench.result import Result

_NAMES = ("render", "views", "reprompt", "overhead", "scaling", "memory", "live")


def bench(
    what: Annotated[str, typer.Argument(help="all, or one of " + ", ".join(_NAMES) + ".")] = "all",
    model: Annotated[
        str,
        typer.Option(
            help="Model; random-tiny: SAM 2.1 tiny with random weights (for its cost alone)."
        ),
    ] = "sap-nano",
    dataset: Annotated[
        Path | None,
        typer.Option(help="Labelled panoramas for `views`; rooms made on the spot when left out."),
    ] = None,
    limit: Annotated[int, typer.Option(help="The first so many panoramas.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for a JSON a benchmark, and plots.")] = Path(
        "bench_out"
    ),
    device: DEVICE = "cpu",
) -> None:
    """Measure speed and memory against a peer or a bound in the same run; exit code 1 where a goal is
    missed."""
    from rich.console import Console
    from rich.table import Table

    if what not in ("all", *_NAMES):
        raise ValueError(f"there is no benchmark {what!r}; there are all, {', '.join(_NAMES)}")
    out.mkdir(parents=True, exist_ok=True)
    console, missed = Console(), []
    for name in _NAMES if what == "all" else (what,):
        with console.status(f"{name} ..."):
            result = _run(name, model, dataset, limit, device)
        table = Table(
            title=f"{name}: {result.title}", title_justify="left", box=None, pad_edge=False
        )
        for i, column in enumerate(result.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in result.rows:
            table.add_row(*row)
        console.print(table)
        for goal in result.goals:
            console.print(f"  {goal}", highlight=False)
        missed += [f"{name}: {goal.what}" for goal in result.goals if goal.met is False]
        console.print()
        _write(out / f"{name}.json", result)
    _plot(out)
    console.print("every goal is met" if not missed else "missed: " + "; ".join(missed))
    raise typer.Exit(1 if missed else 0)


def _run(name: str, model: str, dataset: Path | None, limit: int, device: str) -> Result:
    from sap_ros.bench import memory, rendering, sessions, views
    from sap_ros.bench.scenes import model_of

    if name == "render":
        return rendering.rendering()
    if name == "memory":
        return memory.memory()
    if name == "overhead":
        return sessions.overhead(model_of("random-tiny" if model == "sap-nano" else model, device))
    loaded = model_of(model, device)
    if name == "views":
        return views.views(loaded, dataset, limit)
    if name == "reprompt":
        return sessions.reprompt(loaded)
    return sessions.scaling(loaded) if name == "scaling" else sessions.live(loaded)


def _write(path: Path, result: Result) -> None:
    goals = [{**vars(goal), "met": goal.met} for goal in result.goals]
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({**vars(result), "goals": goals}, indent=1) + "\n")
    part.replace(path)


def _plot(out: Path) -> None:
    """The plots of all results that are in the folder."""
    from sap_ros.bench.plots import plot

    results = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    plot(out / "bench.png", results)
