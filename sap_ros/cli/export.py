"""`sap export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_ros.cli.shared import CHECKPOINT, MODEL, VIEW_SIZE, load_model_with_bar


def export(
    model: MODEL = "sap-nano",
    checkpoint: CHECKPOINT = None,
    view_size: VIEW_SIZE = None,
    half: Annotated[
        bool, typer.Option("--half", help="Export float16 instead of float32.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random", help="Use random weights: to measure cost, not quality.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to; default: named after the model.", show_default=False
        ),
    ] = None,
) -> None:
    """Export a model as four ONNX graphs, each checked against torch: image encoder, mask decoder, memory
    attention and memory encoder, with a manifest.json."""
    from rich.console import Console
    from rich.table import Table

    from sap_ros.core.checkpoints import build_architecture
    from sap_ros.core.export import export as write

    if random_weights:
        sam = build_architecture(model, view_size).eval()
    else:
        sam = load_model_with_bar(model, checkpoint, "cpu", view_size, "torch").sam
    folder = out or Path(f"{model}-onnx{'-half' if half else ''}")
    console = Console()
    with console.status(f"exporting {model} ..."):
        manifest = write(sam, model, folder, half)
    table = Table("graph", "MB", "largest difference from torch", "relative to the largest output")
    for name, graph in manifest["graphs"].items():
        apart = graph["difference"]
        table.add_row(
            name,
            f"{graph['bytes'] / 1e6:.1f}",
            f"{apart['largest']:.2g}",
            f"{apart['of_the_largest']:.2g}",
        )
    console.print(table)
    typer.echo(
        f"Written to {folder}/: {', '.join(g['file'] for g in manifest['graphs'].values())}, manifest.json"
    )
