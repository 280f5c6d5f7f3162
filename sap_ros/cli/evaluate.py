"""`sap eval`: evaluation on panoramas, ablations, and videos."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from sap_ros.cli.jobs import JOBS, RAY, conclude, make_pool, run_items
from sap_ros.cli.photographs import photographs
from sap_ros.cli.shared import DEVICE, load_model_with_bar
from sap_ros.places import absolute, appended, check_output, make_folder, place

if TYPE_CHECKING:
    from sap_ros.core.model import Model
    from sap_ros.evaluation.benchmark import Method, Record
    from sap_ros.evaluation.datasets import Sample
    from sap_ros.evaluation.video import Track
    from sap_ros.jobs.run import Pool, Summary

_DEFAULT = "images"


class _WithDefault(TyperGroup):
    """Makes `sap eval DATASET` an abbreviation of `sap eval images DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args.insert(0, _DEFAULT)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WithDefault,
    no_args_is_help=True,
    help="Segment every labelled object and score the masks. `sap eval DATASET` is short for `sap eval images DATASET`.",
)

app.command()(photographs)

_DATASET = Annotated[
    Path,
    typer.Argument(
        parser=place,
        metavar="DATASET",
        help="Labelled panoramas: from `sap synth`, your own, or a published data set; a folder or a URL.",
    ),
]
_LAYOUT = Annotated[
    str,
    typer.Option(
        help="Layout of the data set: auto, sap, plain, hunyuanworld, pavs10k, 360vos, davis."
    ),
]
_MODELS = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME[=FILE]",
        help="Model, optionally with other weights; can be given several times.",
    ),
]
_STRATEGIES = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        help="auto, gimbal, frontier, scan, direct, patches; can be given several times. Default: auto, scan, direct and patches.",
    ),
]
_LIMIT = Annotated[int | None, typer.Option(help="Use only the first N panoramas.")]
_OUT = Annotated[
    Path,
    typer.Option(
        parser=place,
        metavar="FOLDER",
        help="Folder to write to, or a URL; an existing run is resumed.",
    ),
]


@app.command(_DEFAULT)
def images(
    dataset: _DATASET,
    layout: _LAYOUT = "auto",
    model: _MODELS = None,
    strategy: _STRATEGIES = None,
    clicks: Annotated[
        list[int] | None,
        typer.Option(help="Score after this number of clicks; can be given several times."),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt for each object: clicks, box or mask.")
    ] = "clicks",
    limit: _LIMIT = None,
    out: _OUT = Path("eval_out"),
    device: DEVICE = "auto",
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Mean IoU by model, strategy, clicks and size: a table, results.json and report.html."""
    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_dataset

    samples = read_dataset(absolute(dataset), layout)[:limit]
    methods = [
        Method(name, cast("Any", chosen), cast("Any", prompt))
        for name in _labelled(model)
        for chosen in strategy or ["direct", "patches", "scan", "auto"]
    ]
    pool = make_pool(jobs, ray, device)
    summary = _run(_labelled(model), methods, clicks or [1], samples, out, device, pool)
    if not summary.done + summary.kept:
        conclude(summary)
    _finish(dataset, samples, out)
    conclude(summary)


@app.command()
def ablations(
    dataset: _DATASET,
    layout: _LAYOUT = "auto",
    model: _MODELS = None,
    limit: _LIMIT = None,
    out: _OUT = Path("ablations_out"),
    device: DEVICE = "auto",
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Ablations: the full method with each model, and its scan with one part left out at a time."""
    from dataclasses import replace

    from sap_ros.core.checkpoints import model_info
    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_dataset

    samples = read_dataset(absolute(dataset), layout)[:limit]
    methods = []
    for name, source in _labelled(model).items():
        scan, own = Method(name), model_info(source.partition("=")[0]).fusion
        methods += [
            scan,
            replace(scan, strategy="direct"),  # no scan
            replace(
                scan, strategy="patches"
            ),  # crops of the panorama in place of perspective views
            replace(scan, overlap=0.0),
            replace(scan, order="row_first"),
            replace(scan, fusion="max" if own == "weighted" else "weighted"),
            replace(scan, click_frames="first"),
        ]
    summary = _run(
        _labelled(model), methods, [1], samples, out, device, make_pool(jobs, ray, device)
    )
    if not summary.done + summary.kept:
        conclude(summary)
    _finish(dataset, samples, out)
    conclude(summary)


@app.command()
def video(
    dataset: _DATASET,
    layout: _LAYOUT = "auto",
    model: _MODELS = None,
    strategy: _STRATEGIES = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt in the first frame: clicks (one click), box or mask.")
    ] = "mask",
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Track each object as if it were the only one prompted."),
    ] = False,
    rate: Annotated[float, typer.Option(help="Frames per second of the videos.")] = 4.0,
    limit: _LIMIT = None,
    out: _OUT = Path("eval_out"),
    device: DEVICE = "auto",
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Track the objects of a video's first frame: J and F, wrong takes, times to find them again."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_sequences
    from sap_ros.evaluation.report import name_of
    from sap_ros.evaluation.video import (
        append_tracks,
        read_tracks,
        return_columns,
        track_columns,
    )
    from sap_ros.jobs.run import Item, Job

    if rate <= 0:
        raise ValueError(f"the rate is {rate:g} frames per second; it must be above 0")
    videos = read_sequences(absolute(dataset), layout)[:limit]
    models = _labelled(model)
    methods = [
        Method(name, cast("Any", chosen), cast("Any", prompt), alone=alone)
        for name in models
        for chosen in strategy or ["auto"]
    ]
    items = (
        Item(f"{video.name} by {name_of(method)}", (method, video))
        for method in methods
        for video in videos
    )
    check_output(out)
    make_folder(out)
    with appended(out / "tracks.jsonl") as (results, keep):
        there = {(track.method, track.video) for track in read_tracks([results])}

        def is_done(item: Item) -> bool:
            method, video = item.work
            return (method, video.name) in there

        def finished(item: Item, found: list[Track]) -> None:
            append_tracks(results, found)
            keep()

        summary = run_items(
            "Tracking",
            Job(partial(_make_tracker, models, device, rate), is_done, finished),
            items,
            make_pool(jobs, ray, device),
            len(methods) * len(videos),
        )
    tracks = read_tracks([out / "tracks.jsonl"])
    if not tracks:
        conclude(summary)
        raise ValueError(
            f"no video in {dataset} has an object in its first frame and a second frame"
        )
    by_method = {m: [t for t in tracks if t.method == m] for m in {t.method: None for t in tracks}}
    for rows in (
        {name_of(m): track_columns(m, own) for m, own in by_method.items()},
        {name_of(m): return_columns(own) for m, own in by_method.items()},
    ):
        table = Table("method", box=None, pad_edge=False)
        for column in next(iter(rows.values())):
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(name, *row.values())
        Console().print(table)
    conclude(summary)


def _labelled(models: list[str] | None) -> dict[str, str]:
    """The models by short name; a model with other weights is named after their folder or file."""
    named = {}
    for model in models or ["sap-nano"]:
        base, _, file = model.partition("=")
        path = Path(file)
        short = path.parent.name if path.stem in ("weights", "best") else path.stem
        # Workers on other machines have another working folder.
        named[f"{base}={short}" if file else base] = f"{base}={path.resolve()}" if file else base
    return named


def _load(model: str, device: str) -> Any:
    base, _, file = model.partition("=")
    return load_model_with_bar(base, Path(file) if file else None, device)


def _run(
    models: dict[str, str],
    methods: list[Method],
    clicks: list[int],
    samples: list[Sample],
    out: Path,
    device: str,
    pool: Pool,
) -> Summary:
    """Scores each panorama by each method; the records are written here, whoever made them."""
    import jinja2  # noqa: F401  for the report: a missing package is reported now, not after hours
    import matplotlib  # noqa: F401

    from sap_ros.evaluation.benchmark import append_record, counted, read_records
    from sap_ros.evaluation.report import name_of
    from sap_ros.jobs.run import Item, Job

    check_output(out)
    make_folder(out)
    items = (
        Item(f"{sample.name} by {name_of(method)}", (method, counted(method, clicks), sample))
        for method in methods
        for sample in samples
    )
    with appended(out / "scores.jsonl") as (results, keep):
        there = {
            (r.method, r.panorama): {s.clicks for s in r.scores} for r in read_records([results])
        }

        def is_done(item: Item) -> bool:
            method, counts, sample = item.work
            return there.get((method, sample.name), set()) >= {*counts}

        def finished(item: Item, record: Record) -> None:
            if record.scores:
                append_record(results, record)
                keep()

        worker = partial(_make_scorer, models, device, absolute(out) / "masks")
        total = len(methods) * len(samples)
        return run_items("Evaluating", Job(worker, is_done, finished), items, pool, total)


class _Models:
    """The model that was used last, so that a worker has one at a time.

    Args:
        models: by short name, see :func:`_labelled`; the first is loaded at once: one that cannot be ends the run.
    """

    def __init__(self, models: dict[str, str], device: str) -> None:
        self._models, self._device = models, device
        self._loaded = next(iter(models)), _load(next(iter(models.values())), device)

    def __getitem__(self, name: str) -> Model:
        if self._loaded[0] != name:
            del self._loaded
            self._loaded = name, _load(self._models[name], self._device)
        return self._loaded[1]


def _make_tracker(models: dict[str, str], device: str, rate: float) -> Callable[[Any], list[Track]]:
    from sap_ros.evaluation.video import followed

    loaded = _Models(models, device)

    def track(work: Any) -> list[Track]:
        method, video = work
        return followed(loaded[method.model], method, video, rate)

    return track


def _make_scorer(models: dict[str, str], device: str, masks: Path) -> Callable[[Any], Record]:
    from sap_ros.evaluation.benchmark import segmented

    loaded = _Models(models, device)

    def score(work: Any) -> Record:
        method, counts, sample = work
        return segmented(loaded[method.model], method, counts, sample, masks)

    return score


def _finish(dataset: Path, samples: list[Sample], out: Path) -> None:
    """Prints the table of all records; writes results.json and report.html."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.evaluation.benchmark import read_records
    from sap_ros.evaluation.report import columns, write_report, write_results
    from sap_ros.evaluation.summary import summarize

    records = read_records([out / "scores.jsonl"])
    if not records:
        raise ValueError(f"there are no scores in {out}")
    rows = summarize(records)
    names = [name for name in columns(rows[0]) if name not in ("95 %", "sphere", "MB")]
    table = Table(box=None, pad_edge=False, padding=(0, 1))  # fits into 80 columns
    for name in names:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        cells = columns(row)
        table.add_row(*(cells[name] for name in names))
    Console().print(table)
    write_results(out / "results.json", dataset.name, rows)
    by_name = {sample.name: sample for sample in samples}
    write_report(out / "report.html", dataset.name, rows, records, by_name, out / "masks")
    typer.echo(
        f"{rows[0].objects} objects of {rows[0].panoramas} panoramas; "
        f"written to {out}/: results.json, report.html"
    )
