"""Options and functions shared by several subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from sap_ros.core.loading import Backend
    from sap_ros.core.model import Model
    from sap_ros.core.prompts import Prompt

MODEL = Annotated[str, typer.Option(help="Model; `sap models` lists them.")]
CHECKPOINT = Annotated[
    Path | None, typer.Option(help="File with other weights for that model.", show_default=False)
]
DEVICE = Annotated[
    str,
    typer.Option(
        help="Torch device: auto (CUDA if there is a GPU for it, else cpu), cpu, cuda, cuda:1."
    ),
]
BACKEND = Annotated[
    str,
    typer.Option(
        help="What runs the model: torch; onnxruntime, for which it is exported once; or auto: onnxruntime "
        "on a CPU if it is installed and not slower for the model, otherwise torch."
    ),
]
STRATEGY = Annotated[
    str,
    typer.Option(
        help="auto: views centred on the object; scan: all views (the paper's method); frontier: those "
        "of the scan that the mask extends into; gimbal, direct, patches (see the README)."
    ),
]
VIEW_SIZE = Annotated[
    int | None,
    typer.Option(
        help="Side of a view, in pixels, a multiple of 32 (edgetam: of 256); default: that of the model."
    ),
]
COARSE = Annotated[
    int, typer.Option(help="First find objects in smaller views with this side, in pixels; 0: off.")
]
FUSION = Annotated[
    str,
    typer.Option(
        help="How overlapping views are fused: max, weighted, or auto (depends on the model)."
    ),
]
PROJECTION = Annotated[
    str,
    typer.Option(
        help="How an image shows the sphere: equirectangular, or dual_fisheye (two lenses; needs --camera)."
    ),
]
IMAGE_BACK = Annotated[
    str,
    typer.Option(
        metavar="TOPIC",
        help="Topic of the second lens's images, if each lens has a topic; --image is then that of the first.",
        show_default=False,
    ),
]
LENS_TOLERANCE = Annotated[
    float, typer.Option(help="See the node's parameter lens_tolerance, in s.")
]
CAMERA = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Camera file for dual_fisheye, or a preset: insta360, theta_s, side_by_side, stacked.",
        show_default=False,
    ),
]


def parse_points(texts: list[str], size: tuple[int, int]) -> list[Prompt]:
    """Parses points ``U,V[:ID][:-]``; returns one prompt per object.

    Raises:
        ValueError: a text is not such a point, or a point is not valid.
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
                f"{text!r} is no point; it must be U,V or U,V:ID, followed by :- if the point is not on the object"
            ) from None
        points.setdefault(object_id, []).append((u, v, label))
    return [
        from_pixels(i, np.array(p)[:, :2], size, np.array(p)[:, 2].astype(int))
        for i, p in sorted(points.items())
    ]


def load_model_with_bar(
    name: str,
    checkpoint: Path | None,
    device: str,
    view_size: int | None = None,
    backend: str = "auto",
) -> Model:
    """:func:`sap_ros.core.loading.load_model` with a progress bar during a download."""
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from sap_ros.core.loading import load_model

    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as bars:
        bar: list[Any] = []

        def show(done: int, size: int) -> None:
            if not bar:
                bar.append(bars.add_task(f"Downloading {name}", total=size))
            bars.update(bar[0], completed=done)

        return load_model(
            name,
            checkpoint,
            device,
            view_size,
            progress=show,
            backend=cast("Backend", backend),  # load_model checks it
            log=bars.console.print,
        )


def check_bag_packages() -> None:
    """Says which packages to install for bags.

    Raises:
        ValueError: a package is missing.
    """
    from importlib.util import find_spec

    if missing := [name for name in ("rosbags", "mcap") if find_spec(name) is None]:
        raise ValueError(f"bags need {' and '.join(missing)}: pip install {' '.join(missing)}")
