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
