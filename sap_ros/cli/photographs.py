"""`sap eval photographs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_ros.cli.shared import DEVICE, load_model_with_bar


def photographs(
    folders: Annotated[
        list[Path],
        typer.Argument(help="One or more folders in SA-1B's format: NAME.jpg, NAME.json."),
    ],
    index: Annotated[
        list[Path] | None,
        typer.Option(
            help="csv with name and split; one per folder, in their order. Default: FOLDER/index.csv."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Use only this split of the csv.")] = "val",
    model: Annotated[
        str, typer.Option(metavar="NAME[=FILE]", help="Model, or model and other weights.")
    ] = "sap-nano",
    objects: Annotated[int, typer.Option(help="Maximum number of objects per photograph.")] = 8,
    limit: Annotated[
        int | None, typer.Option(help="Use only the first N photographs of each folder.")
    ] = None,
    mask_before: Annotated[
        bool,
        typer.Option(
            help="Decode each correction with the previous mask; otherwise with the clicks alone."
        ),
    ] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    device: DEVICE = "auto",
) -> None:
    """Mean IoU on photographs after 1, 3 and 5 clicks and with a box; clicks needed for an IoU of 0.85."""
    import json
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sap_ros.evaluation.interactive import (
        Answer,
        evaluate_photographs,
        find_photographs,
        table_row,
    )

    if index and len(index) != len(folders):
        raise ValueError(
            f"there are {len(index)} --index for {len(folders)} folders; give one for each folder, or none"
        )
    name, _, file = model.partition("=")
    loaded = load_model_with_bar(name, Path(file) if file else None, device)
    sets: dict[str, list[Answer]] = {}
    with Progress(transient=True) as bars:
        for i, folder in enumerate(folders):
            found = find_photographs(folder, index[i] if index else None, split)[:limit]
            bar = bars.add_task(folder.name, total=len(found))
            sets[folder.name] = evaluate_photographs(
                loaded, found, objects, mask_before, partial(bars.advance, bar)
            )
    rows = [table_row(name, answers) for name, answers in sets.items() if answers]
    if not rows:
        raise ValueError("no object in these photographs is large enough")
    if len(rows) > 1:
        rows.append(table_row("all", [a for answers in sets.values() for a in answers]))
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "set" else "right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    if out is not None:
        out.write_text(
            json.dumps({"model": model, "mask_before": mask_before, "rows": rows}, indent=1)
        )
