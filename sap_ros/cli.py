"""The `sap` command. Each subcommand imports what it needs, so that `sap --help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from sap_ros.core.model import Model
    from sap_ros.core.prompts import Prompt
    from sap_ros.core.session import FusionChoice
    from sap_ros.core.strategies import Strategy

app = typer.Typer(
    help="Point at anything in a 360° panorama: masks and bearings with SAM 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_MODEL = Annotated[str, typer.Option(help="Model; `sap models` lists them.")]
_CHECKPOINT = Annotated[
    Path | None, typer.Option(help="File with other weights for that model.", show_default=False)
]
_DEVICE = Annotated[str, typer.Option(help="Torch device: cpu, cuda, cuda:1.")]
_STRATEGY = Annotated[
    str,
    typer.Option(help="scan (the method), direct (the panorama resized) or patches (its crops)."),
]
_FUSION = Annotated[
    str, typer.Option(help="Fusion of the views: max, weighted, or auto, what suits the model.")
]


@app.command()
def segment(
    panorama: Annotated[Path, typer.Argument(help="Equirectangular image, JPEG, PNG or WebP.")],
    point: Annotated[
        list[str],
        typer.Option(
            metavar="U,V[:ID][:-]",
            help="A point, in pixels, on object ID (1 where it is left out), or, with :-, off it. "
            "Give it again for more.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("sap_out"),
    model: _MODEL = "sap-nano",
    checkpoint: _CHECKPOINT = None,
    device: _DEVICE = "cpu",
    strategy: _STRATEGY = "scan",
    fusion: _FUSION = "auto",
) -> None:
    """Segment objects of a panorama: masks.png, overlay.jpg, views.jpg and objects.json."""
    from rich.progress import Progress

    from sap_ros.core.overlay import contact_sheet, draw_overlay
    from sap_ros.core.session import PanoramaSession
    from sap_ros.files import read_panorama, write_image
    from sap_ros.report import print_objects, write_objects

    image = read_panorama(panorama)
    prompts = parse_points(point, (image.shape[1], image.shape[0]))
    session = PanoramaSession(
        load_model_with_bar(model, checkpoint, device),
        cast("Strategy", strategy),  # wrong ones are said by the session
        fusion=cast("FusionChoice", fusion),
    )
    session.set_image(image)
    for prompt in prompts:
        session.add_prompt(prompt)
    with Progress(transient=True) as bars:
        bar = bars.add_task("Looking")
        instances = session.segment(
            lambda done, count, i: bars.update(
                bar, completed=done, total=count, description=f"Object {i}"
            )
        )
    out.mkdir(parents=True, exist_ok=True)
    write_image(out / "masks.png", instances.labels)
    write_image(out / "overlay.jpg", draw_overlay(image, instances, prompts))
    views = [
        (
            view,
            _enlarged(mask.logits, view.shape[0]) * prompt.object_id,
            f"{prompt.object_id}: view {i}",
        )
        for prompt in prompts
        for i, (view, mask) in session.frame_masks(prompt.object_id).items()
    ]
    write_image(out / "views.jpg", contact_sheet(views))
    write_objects(out / "objects.json", instances)
    print_objects(instances)
    typer.echo(f"Written to {out}/: masks.png, overlay.jpg, views.jpg, objects.json")


@app.command()
def models() -> None:
    """List the models, and where their weights are."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.core.download import cache_folder
    from sap_ros.core.model import MODELS

    table = Table("model", "weights", "MB")
    for name, info in MODELS.items():
        there = cache_folder() / info.file
        place = "in the package" if not info.sha256 else "downloaded on first use"
        if info.sha256 and there.exists():
            place = str(there)
        table.add_row(name, place, f"{info.size / 1e6:.0f}" if info.size else "")
    Console().print(table)


@app.command()
def demo(
    panorama: Annotated[
        Path | None, typer.Argument(help="Your own panorama; the shipped one when left out.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="U,V", help="Where to click, in pixels.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo_out"),
    model: _MODEL = "sap-nano",
    device: _DEVICE = "cpu",
    strategy: _STRATEGY = "scan",
) -> None:
    """Run the ROS 2 node as its own process, click on a panorama over DDS, show what comes back."""
    try:
        from sap_ros.demo.client import running_node
        from sap_ros.demo.live import show_live
        from sap_ros.demo.still import load_still, show_still
    except ImportError as error:
        raise ValueError(
            f"the demo needs ROS 2 and this package built with colcon ({error}); `make demo` does both"
        ) from error
    still = load_still(panorama, point or [])
    with running_node(model, device, strategy) as client:
        show_still(client, still, out)
        if panorama is None and not point:
            show_live(client, out)


@app.command("eval")
def evaluate(
    dataset: Annotated[
        Path, typer.Argument(help="Labelled panoramas, as `sap synth` writes them.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=FILE]", help="Model, or model and other weights; several."),
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="scan, direct or patches; all when left out.")
    ] = None,
    clicks: Annotated[list[int] | None, typer.Option(help="Score after so many; several.")] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many panoramas.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("eval_out"),
    device: _DEVICE = "cpu",
) -> None:
    """Click on every labelled object, compare masks: mean IoU by model, strategy, clicks and size."""
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sap_ros.evaluation.benchmark import evaluate, means
    from sap_ros.evaluation.datasets import read_dataset

    samples = list(read_dataset(dataset))[:limit]
    names, strategies = model or ["sap-nano"], strategy or ["direct", "patches", "scan"]
    out.mkdir(parents=True, exist_ok=True)
    table = Table("model", "strategy", "clicks", box=None, pad_edge=False)
    with Progress(transient=True) as bars:
        for name in names:
            base, _, file = name.partition("=")
            loaded = load_model_with_bar(base, Path(file) if file else None, device)
            for chosen in strategies:
                bar = bars.add_task(f"{name}, {chosen}", total=len(samples))
                scores = evaluate(
                    loaded,
                    name,
                    cast("Strategy", chosen),
                    clicks or [1],
                    samples,
                    out / "scores.jsonl",
                    partial(bars.advance, bar),
                )
                for count in clicks or [1]:
                    row = means([s for s in scores if s.clicks == count])
                    if not table.rows:
                        for column in row:
                            table.add_column(column, justify="right")
                    cells = ["-" if v is None else f"{v:.3f}" for v in row.values()]
                    table.add_row(name, chosen, str(count), *cells)
    Console().print(table)
    objects = len({(s.panorama, s.instance) for s in scores})
    typer.echo(f"{objects} objects of {len(samples)} panoramas; scores in {out}/scores.jsonl")


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="Configuration; config/training/ has some.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; resumed when it is there.")],
    change: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes of the configuration."),
    ] = None,
) -> None:
    """Train a SAM 2 model by the SAP recipe; several processes: accelerate launch -m sap_ros.cli train."""
    import os

    from sap_ros.training.config import read_config
    from sap_ros.training.train import train as run

    settings = read_config(config, change)
    chief = os.environ.get("RANK", "0") == "0"

    def report(figures: dict[str, float], left: str) -> None:
        shown = ", ".join(f"{k} {v:.3f}" for k, v in figures.items() if k != "step")
        typer.echo(f"step {figures['step']:.0f} of {settings.iterations}: {shown}; {left}")

    run(settings, out, _validation(settings) if settings.validation else None, report)
    if chief:
        typer.echo(
            f"Weights are in {out}/weights.safetensors; try: sap eval ... --model "
            f"{settings.model}={out}/weights.safetensors"
        )


_VALIDATED: tuple[Strategy, ...] = ("scan", "direct")


def _validation(settings: Any) -> Any:
    """Tries weights on held-out panoramas, by strategy."""
    import tempfile

    from sap_ros.core.model import Model, model_info
    from sap_ros.evaluation.benchmark import evaluate, means
    from sap_ros.evaluation.datasets import read_dataset

    samples = list(read_dataset(Path(settings.validation).expanduser()))
    samples = samples[: settings.validation_panoramas]
    info = model_info(settings.model)

    def validate(sam: Any) -> dict[str, float]:
        training = sam.training
        device = next(sam.parameters()).device
        model = Model(sam, settings.model, device, info.fusion, info.weak_memory)
        found: dict[str, float] = {}
        for strategy in _VALIDATED:
            with tempfile.TemporaryDirectory() as folder:
                results = Path(folder) / "scores.jsonl"
                scores = evaluate(model, settings.model, strategy, [1], samples, results)
            found[strategy] = means(scores)["all"] or 0.0
        sam.train(training)
        return found

    return validate


synth = typer.Typer(help="Make labelled panoramas.", no_args_is_help=True)
app.add_typer(synth, name="synth")

_OUT = Annotated[Path, typer.Option(help="Folder of the data set; gone on with when it is there.")]
_COUNT = Annotated[int, typer.Option(help="How many panoramas.")]
_SEED = Annotated[int, typer.Option(help="Seed of the first; the others follow.")]
_SHARD = Annotated[str, typer.Option(metavar="I/N", help="Only each Nth, from the Ith (from 0).")]
_WIDTH = Annotated[int, typer.Option(help="Width of a panorama; it is twice as wide as high.")]


@synth.command()
def composite(
    backgrounds: Annotated[list[Path], typer.Option(help="Folder of panoramas; several.")],
    photographs: Annotated[Path, typer.Option(help="Folder in SA-1B's format, to cut out of.")],
    out: _OUT,
    index: Annotated[
        Path | None, typer.Option(help="csv with name and split of the photographs.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of that csv to take.")] = "train",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Backgrounds with this in their name are left out.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only backgrounds with this in their name.")
    ] = None,
    count: _COUNT = 100,
    seed: _SEED = 0,
    shard: _SHARD = "0/1",
    width: _WIDTH = 1024,
) -> None:
    """Paste cut-outs of photographs and shapes on panoramas, on the sphere itself."""
    from rich.progress import Progress

    from sap_ros.synthesis.composite import (
        CutOuts,
        find_panoramas,
        find_photographs,
        write_composites,
    )

    def wanted(name: str) -> bool:
        kept = not only or any(part in name for part in only)
        return kept and not any(part in name for part in leave_out or [])

    seeds = shard_of(range(seed, seed + count), shard)
    with Progress(transient=True) as bars:
        bar = bars.add_task("Composing", total=len(seeds))
        write_composites(
            out,
            seeds,
            [p for p in find_panoramas(backgrounds) if wanted(p.stem)],
            CutOuts(find_photographs(photographs, index, split)),
            (width, width // 2),
            done=lambda _: bars.advance(bar),
        )
    typer.echo(f"{len(seeds)} panoramas are in {out}/")


@synth.command()
def scene(
    out: _OUT,
    count: _COUNT = 10,
    seed: _SEED = 0,
    shard: _SHARD = "0/1",
    width: _WIDTH = 2048,
    samples: Annotated[int, typer.Option(help="Cycles' samples a pixel.")] = 24,
) -> None:
    """Render rooms and yards with Blender (needs bpy, in an environment of its own)."""
    from rich.progress import Progress

    try:
        from sap_ros.synthesis.scene import write_scenes
    except ImportError as error:
        raise ValueError(
            f"{error}: in an environment of Python 3.11, pip install -r requirements/blender.txt, "
            "then python -m sap_ros.cli synth scene ..."
        ) from error
    seeds = shard_of(range(seed, seed + count), shard)
    with Progress(transient=True) as bars:
        bar = bars.add_task("Rendering", total=len(seeds))
        write_scenes(out, seeds, (width, width // 2), samples, lambda _: bars.advance(bar))
    typer.echo(f"{len(seeds)} panoramas are in {out}/")


def shard_of(seeds: range, shard: str) -> range:
    """The part ``I/N`` of seeds; ValueError for another text."""
    try:
        part, parts = (int(number) for number in shard.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 0 <= part < parts:
        raise ValueError(f"the shard is {shard!r}; it must read I/N, with I from 0 to N - 1")
    return seeds[part::parts]


def parse_points(texts: list[str], size: tuple[int, int]) -> list[Prompt]:
    """Points as ``U,V[:ID][:-]``, gathered into a prompt an object.

    Raises:
        ValueError: a text that is no such point, or a point that is not valid.
    """
    import numpy as np

    from sap_ros.core.prompts import from_pixels

    points: dict[int, list[tuple[float, float, int]]] = {}
    for text in texts:
        place, *rest = text.split(":")
        label = 1
        if rest and rest[-1] == "-":
            label, rest = 0, rest[:-1]
        try:
            u, v = (float(number) for number in place.split(","))
            (object_id,) = (int(number) for number in rest or ["1"])
        except ValueError:
            raise ValueError(
                f"{text!r} is no point; it must read U,V or U,V:ID, with :- behind it where the point is off the object"
            ) from None
        points.setdefault(object_id, []).append((u, v, label))
    return [
        from_pixels(i, np.array(p)[:, :2], size, np.array(p)[:, 2].astype(int))
        for i, p in sorted(points.items())
    ]


def load_model_with_bar(name: str, checkpoint: Path | None, device: str) -> Model:
    """:func:`sap_ros.core.model.load_model`, with a bar while it downloads."""
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from sap_ros.core.model import load_model

    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as bars:
        bar: list[Any] = []

        def show(done: int, size: int) -> None:
            if not bar:
                bar.append(bars.add_task(f"Downloading {name}", total=size))
            bars.update(bar[0], completed=done)

        return load_model(name, checkpoint, device, progress=show)


def _enlarged(logits: Any, side: int) -> Any:
    import cv2

    return (cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR) > 0).astype("uint16")


def main() -> None:
    """Runs the command; bad input is one line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"sap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
