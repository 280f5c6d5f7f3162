"""`sap models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sap_ros.cli.shared import DEVICE

if TYPE_CHECKING:
    from sap_ros.core.checkpoints import ModelInfo


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Only these.", show_default=False),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure the time of a view here, on each backend that is installed. Weights that would have "
            "to be downloaded are replaced by random ones, which take as long.",
        ),
    ] = False,
    device: DEVICE = "auto",
) -> None:
    """List the models: where their weights are, their size and licence, and published or measured speeds."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.core.checkpoints import MODELS, input_side, model_info, packaged_weights
    from sap_ros.core.download import cache_folder

    infos = {name: model_info(name) for name in names or MODELS}
    if measure:
        _measure(list(infos), device)
        return
    table = Table(
        "model", "px", "MB", "licence", "images/s", "source", "weights", box=None, pad_edge=False
    )
    for column in table.columns:
        column.no_wrap = True
    for name, info in infos.items():
        place = "shipped"
        if info.url:
            place = "in cache" if (cache_folder() / info.file).exists() else "online"
        side, megabytes = str(input_side(info)), f"{_bytes(info) / 1e6:.0f}"
        speed = f"{info.speed:.1f}" if info.speed else "-"
        table.add_row(name, side, megabytes, info.licence, speed, info.source or "-", place)
    Console().print(table)
    typer.echo(
        "px: side of a view. images/s: followed on an A100, as published by the source; what this package "
        "does on this machine: sap models --measure, sap bench. What data sap-nano's weights have seen is on "
        f"their cards ({packaged_weights(MODELS['sap-nano']).with_suffix('.md')}). Weights are downloaded on "
        f"first use, to {cache_folder()}."
    )


def _bytes(info: ModelInfo) -> int:
    """Size of a model's weights."""
    from sap_ros.core.checkpoints import packaged_weights

    return info.size or packaged_weights(info).stat().st_size


def _measure(names: list[str], device: str) -> None:
    """Prints the speed of models on this machine, a row as soon as it is measured."""
    from rich.console import Console

    from sap_ros.bench.machine import machine
    from sap_ros.bench.models import measured_model, speeds
    from sap_ros.core.checkpoints import model_info
    from sap_ros.core.loading import installed_backends, usable_device

    chosen = usable_device(device)
    device = str(chosen)
    for key, value in machine(chosen).items():
        typer.echo(f"{key}: {value}")
    columns = "{:<20} {:>4} {:>5} {:>8} {:<12} {:<8} {:>10} {:>9}"
    typer.echo(
        columns.format("model", "px", "MB", "weights", "backend", "device", "ms a view", "images/s")
    )
    console = Console(stderr=True)
    for name in names:
        backends = installed_backends()
        with console.status(f"{name} ..."):
            models, own = zip(*(measured_model(name, device, b) for b in backends), strict=True)
            found = speeds(models)
        for model, seconds in zip(models, found, strict=True):
            typer.echo(
                columns.format(
                    name,
                    model.image_size,
                    f"{_bytes(model_info(name)) / 1e6:.0f}",
                    "own" if own[0] else "random",
                    model.backend,
                    device,
                    f"{1e3 * seconds.clicked:.1f}",
                    f"{1 / seconds.followed:.2f}",
                )
            )
    typer.echo(
        "ms a view: encoded, and decoded by a click. images/s: one object followed in one view, which is "
        "encoded, decoded from the memory of the prompted view and six more, and remembered. Backends in "
        "turn, means of the fastest quarter of repetitions."
    )
