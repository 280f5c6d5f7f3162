"""The options of commands whose work is divided into items, and their progress bar."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sap_ros.jobs.run import Item, Job, Pool, Summary

JOBS = Annotated[
    int | None,
    typer.Option(
        help="Number of worker processes (default: 1); with --ray, of workers (default: as many as the cluster "
        "has room for).",
        show_default=False,
    ),
]
RAY = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster: auto (the one that this machine is part of), HOST:PORT, or local. The "
        "package and the files must be on each machine, at the same paths.",
        show_default=False,
    ),
]
_SHOWN = 10  # failures that are listed


def make_pool(jobs: int | None, ray: str, device: str = "cpu") -> Pool:
    """The workers that the options ask for. On a cluster, ``auto`` is the device of this machine.

    Raises:
        ValueError: the number of jobs is too small, or the device cannot be used here.
    """
    if ray:
        from sap_ros.core.loading import usable_device
        from sap_ros.jobs.cluster import RayPool

        if device == "auto":
            device = str(usable_device(device))
        return RayPool(ray, jobs or 0, device.startswith("cuda"))
    from sap_ros.jobs.local import InProcess, Processes

    return InProcess() if jobs in (None, 1) else Processes(jobs or 0)


def run_items(
    title: str, job: Job, items: Iterable[Item], pool: Pool, total: int | None
) -> Summary:
    """Does the work of all items, with a bar: rate, time left and failures.

    Args:
        title: of the bar.
        job, items, pool: see :func:`sap_ros.jobs.run.run`.
        total: number of items; None: not known yet.
    """
    from sap_ros.jobs.run import run

    with _bar(title, total) as show:
        return run(job, items, pool, show)


def conclude(summary: Summary) -> None:
    """Names the items that failed, and ends the command with exit code 1 if there are any."""
    if not summary.failed:
        return
    for name, reason in list(summary.failed.items())[:_SHOWN]:
        typer.echo(f"failed: {name}: {reason}", err=True)
    if len(summary.failed) > _SHOWN:
        typer.echo(f"... and {len(summary.failed) - _SHOWN} more", err=True)
    typer.echo(
        f"{len(summary.failed)} failed, {summary.done + summary.kept} are done; the same command tries them "
        "again",
        err=True,
    )
    raise typer.Exit(1)


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Any]:
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as bars:
        bar = bars.add_task(title, total=total, rate="")

        def show(summary: Summary) -> None:
            failed = len(summary.failed)
            elapsed = bars.tasks[0].elapsed or 0.0
            rate = (summary.done + failed) / elapsed if elapsed else 0.0
            text = f"{rate:.2f}/s" + (f", {failed} failed" if failed else "")
            bars.update(bar, completed=summary.done + summary.kept + failed, rate=text)

        yield show
