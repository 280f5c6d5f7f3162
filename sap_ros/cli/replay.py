"""`sap replay` and `sap bag`: process and make rosbags, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sap_ros.cli.shared import (
    BACKEND,
    CHECKPOINT,
    DEVICE,
    MODEL,
    STRATEGY,
    load_model_with_bar,
    parse_points,
)

if TYPE_CHECKING:
    from sap_ros.core.prompts import Prompt
    from sap_ros.core.search import Strategy

_STORAGE = Annotated[str, typer.Option(help="Storage of the bag that is written: mcap or sqlite3.")]


def _check_storage(storage: str) -> Any:
    if storage not in ("mcap", "sqlite3"):
        raise ValueError(f"the storage is {storage!r}; it must be mcap or sqlite3")
    return storage


def _library() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("rosbags", "mcap") if find_spec(name) is None]:
        raise ValueError(f"bags need {' and '.join(missing)}: pip install {' '.join(missing)}")


def replay(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, or its .mcap or .db3 file.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("replay_out"),
    image: Annotated[
        str, typer.Option(help="Topic of the panoramas; not needed if there is only one.")
    ] = "",
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Topic of prompts; can be given several times. Default: all in the bag."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="U,V[:ID][:-]", help="A point on the first image; see `sap segment`."),
    ] = None,
    truth: Annotated[str, typer.Option(help="Topic of true label images, by stamp.")] = "",
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.")] = None,
    rate: Annotated[
        float, typer.Option(help="Images per second of the video; 0: as recorded.")
    ] = 0.0,
    forward_column: Annotated[
        float, typer.Option(help="See the node's parameter forward_column.")
    ] = 0.5,
    convention: Annotated[
        str,
        typer.Option(help="body or optical, see the node's parameter image_frame_convention."),
    ] = "body",
    storage: _STORAGE = "mcap",
    model: MODEL = "sap-nano",
    checkpoint: CHECKPOINT = None,
    device: DEVICE = "cpu",
    backend: BACKEND = "auto",
    strategy: STRATEGY = "auto",
) -> None:
    """Run the node's processing on a rosbag, without ROS. Writes masks and objects as a bag, a video, a
    table and a summary."""
    _library()
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sap_ros.core.prompts import MAX_OBJECT_ID
    from sap_ros.core.session import PanoramaSession
    from sap_ros.engine.axes import ImageAxes
    from sap_ros.engine.events import Settings
    from sap_ros.evaluation.bags import Bag
    from sap_ros.evaluation.replay import find_topics
    from sap_ros.evaluation.replay import replay as run

    settings = Settings(largest_id=MAX_OBJECT_ID, axes=ImageAxes(forward_column, convention))
    if (out / "bag").exists():
        raise ValueError(f"{out}/bag exists; give another folder to write to")
    with Bag(bag) as recorded, Progress(transient=True) as bars:
        topics = find_topics(recorded, image, prompt or [], truth)
        prompts: list[Prompt] = []
        if point:
            prompts = parse_points(point, _first_size(recorded, topics.images))
        elif not topics.prompts:
            raise ValueError(
                f"{bag} has no prompts, and no --point is given: there is nothing to look for"
            )
        session = PanoramaSession(
            load_model_with_bar(model, checkpoint, device, backend=backend),
            cast("Strategy", strategy),
        )
        bar = bars.add_task("Replaying", total=limit)
        result = run(
            recorded,
            topics,
            session,
            out,
            prompts,
            settings,
            limit=limit,
            video_rate=rate,
            storage=_check_storage(storage),
            progress=lambda: bars.advance(bar),
        )
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in result.summary().items():
        if name != "notes":
            table.add_row(name, "-" if value is None else str(value))
    Console().print(table)
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"Written to {out}/: bag, overlay.mp4, images.csv, summary.json")


def _first_size(recorded: Any, topic: str) -> tuple[int, int]:
    from sap_ros.messages import image_to_rgb

    for _, _, message in recorded.messages([topic]):
        image = image_to_rgb(message)
        return image.shape[1], image.shape[0]
    raise ValueError(f"{recorded.path} has no image on {topic}")


def bag(
    source: Annotated[Path, typer.Argument(help="Folder of panoramas, or a video file.")],
    out: Annotated[Path, typer.Option(help="Folder of the bag; must not exist.")],
    rate: Annotated[float, typer.Option(help="Images per second.")] = 10.0,
    topic: Annotated[str, typer.Option(help="Topic of the images.")] = "/image",
    raw: Annotated[bool, typer.Option("--raw", help="Write raw images instead of JPEG.")] = False,
    truth: Annotated[
        Path | None, typer.Option(help="Folder of instance images NAME.png, for the topic /truth.")
    ] = None,
    storage: _STORAGE = "mcap",
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.")] = None,
) -> None:
    """Make a rosbag of panoramas, from a folder of pictures or a video."""
    _library()
    from rich.progress import Progress

    from sap_ros.evaluation.make_bag import write_bag

    with Progress(transient=True) as bars:
        bar = bars.add_task("Writing", total=limit)
        count = write_bag(
            source,
            out,
            rate,
            topic,
            compressed=not raw,
            truth=truth,
            storage=_check_storage(storage),
            limit=limit,
            progress=lambda: bars.advance(bar),
        )
    typer.echo(f"Written to {out}/: {count} images")
