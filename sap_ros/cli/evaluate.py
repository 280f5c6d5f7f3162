"""`sap eval`: evaluation on panoramas, ablations, merging of results, and videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from sap_ros.cli.photographs import photographs
from sap_ros.cli.shared import DEVICE, SHARD, load_model_with_bar, shard_of

if TYPE_CHECKING:
    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import Sample

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
    typer.Argument(help="Labelled panoramas: from `sap synth`, your own, or a published data set."),
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
_OUT = Annotated[Path, typer.Option(help="Folder to write to; an existing run is resumed.")]


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
    shard: SHARD = "0/1",
    out: _OUT = Path("eval_out"),
    device: DEVICE = "cpu",
) -> None:
    """Mean IoU by model, strategy, clicks and size: a table, results.json and report.html."""
    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_dataset

    samples = read_dataset(dataset, layout)[:limit]
    methods = [
        Method(name, cast("Any", chosen), cast("Any", prompt))
        for name in _labelled(model)
        for chosen in strategy or ["direct", "patches", "scan", "auto"]
    ]
    _run(
        _labelled(model), methods, clicks or [1], list(shard_of(samples, shard)), shard, out, device
    )
    _conclude([out], dataset, samples, out)


@app.command()
def ablations(
    dataset: _DATASET,
    layout: _LAYOUT = "auto",
    model: _MODELS = None,
    limit: _LIMIT = None,
    shard: SHARD = "0/1",
    out: _OUT = Path("ablations_out"),
    device: DEVICE = "cpu",
) -> None:
    """Ablations: the full method with each model, and its scan with one part left out at a time."""
    from dataclasses import replace

    from sap_ros.core.checkpoints import model_info
    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_dataset

    samples = read_dataset(dataset, layout)[:limit]
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
    _run(_labelled(model), methods, [1], list(shard_of(samples, shard)), shard, out, device)
    _conclude([out], dataset, samples, out)


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of earlier evaluations, or shards.")
    ],
    dataset: Annotated[
        Path | None, typer.Option(help="The data set, for the pictures in the report.")
    ] = None,
    layout: _LAYOUT = "auto",
    out: _OUT = Path("eval_out"),
) -> None:
    """Merge evaluations into one table; each object is counted once."""
    from sap_ros.evaluation.datasets import read_dataset

    out.mkdir(parents=True, exist_ok=True)
    samples = read_dataset(dataset, layout) if dataset else []
    _conclude(list(dict.fromkeys([*folders, out])), dataset, samples, out)


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
    shard: SHARD = "0/1",
    out: _OUT = Path("eval_out"),
    device: DEVICE = "cpu",
) -> None:
    """Track the objects of a video's first frame: J and F, wrong takes, times to find them again."""
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sap_ros.evaluation.benchmark import Method
    from sap_ros.evaluation.datasets import read_sequences
    from sap_ros.evaluation.report import name_of
    from sap_ros.evaluation.video import (
        evaluate_videos,
        read_tracks,
        return_columns,
        track_columns,
    )

    if rate <= 0:
        raise ValueError(f"the rate is {rate:g} frames per second; it must be above 0")
    videos = list(shard_of(read_sequences(dataset, layout)[:limit], shard))
    out.mkdir(parents=True, exist_ok=True)
    frames = sum(len(v.frames) for v in videos)
    with Progress(transient=True) as bars:
        for name, source in _labelled(model).items():
            loaded = _load(source, device)
            for chosen in strategy or ["auto"]:
                method = Method(name, cast("Any", chosen), cast("Any", prompt), alone=alone)
                bar = bars.add_task(name_of(method), total=frames)
                evaluate_videos(
                    loaded,
                    method,
                    videos,
                    _part(out, "tracks", shard),
                    partial(bars.advance, bar),
                    rate,
                )
    tracks = read_tracks(sorted(out.glob("tracks*.jsonl")))
    if not tracks:
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


def _labelled(models: list[str] | None) -> dict[str, str]:
    """The models by short name; a model with other weights is named after their folder or file."""
    named = {}
    for model in models or ["sap-nano"]:
        base, _, file = model.partition("=")
        path = Path(file)
        short = path.parent.name if path.stem in ("weights", "best") else path.stem
        named[f"{base}={short}" if file else base] = model
    return named


def _load(model: str, device: str) -> Any:
    base, _, file = model.partition("=")
    return load_model_with_bar(base, Path(file) if file else None, device)


def _part(out: Path, stem: str, shard: str) -> Path:
    return out / (
        f"{stem}.jsonl" if shard == "0/1" else f"{stem}-{shard.replace('/', '-of-')}.jsonl"
    )


def _run(
    models: dict[str, str],
    methods: list[Method],
    clicks: list[int],
    samples: list[Sample],
    shard: str,
    out: Path,
    device: str,
) -> None:
    from functools import partial

    import jinja2  # noqa: F401  for the report: a missing package is reported now, not after hours
    import matplotlib  # noqa: F401
    from rich.progress import Progress

    from sap_ros.evaluation.benchmark import evaluate
    from sap_ros.evaluation.report import name_of

    out.mkdir(parents=True, exist_ok=True)
    loaded: dict[str, Any] = {}
    with Progress(transient=True) as bars:
        for method in methods:
            if method.model not in loaded:
                loaded = {method.model: _load(models[method.model], device)}
            bar = bars.add_task(name_of(method), total=len(samples))
            evaluate(
                loaded[method.model],
                method,
                clicks,
                samples,
                _part(out, "scores", shard),
                out / "masks",
                partial(bars.advance, bar),
            )


def _conclude(folders: list[Path], dataset: Path | None, samples: list[Sample], out: Path) -> None:
    """Prints the table of all records; writes results.json and report.html."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.evaluation.benchmark import read_records
    from sap_ros.evaluation.report import columns, write_report, write_results
    from sap_ros.evaluation.summary import summarize

    files = [file for folder in folders for file in sorted(folder.glob("scores*.jsonl"))]
    records = read_records(files)
    if not records:
        raise ValueError(f"there are no scores in {', '.join(str(folder) for folder in folders)}")
    rows = summarize(records)
    names = [name for name in columns(rows[0]) if name not in ("95 %", "sphere", "MB")]
    table = Table(box=None, pad_edge=False, padding=(0, 1))  # fits into 80 columns
    for name in names:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        cells = columns(row)
        table.add_row(*(cells[name] for name in names))
    Console().print(table)
    name = dataset.name if dataset else out.name
    write_results(out / "results.json", name, rows)
    masks = [folder / "masks" for folder in folders]
    write_report(out / "report.html", name, rows, records, {s.name: s for s in samples}, masks)
    typer.echo(
        f"{rows[0].objects} objects of {rows[0].panoramas} panoramas; "
        f"written to {out}/: results.json, report.html"
    )
