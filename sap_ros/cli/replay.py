"""`sap replay` and `sap bag`: process and make rosbags, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sap_ros.cli.jobs import JOBS, RAY, conclude, make_pool, run_items
from sap_ros.cli.shared import (
    BACKEND,
    CAMERA,
    CHECKPOINT,
    DEVICE,
    IMAGE_BACK,
    LENS_TOLERANCE,
    MODEL,
    PROJECTION,
    STRATEGY,
    check_bag_packages,
    load_model_with_bar,
    parse_points,
)
from sap_ros.places import (
    Existing,
    absolute,
    check_output,
    fetched,
    is_url,
    make_folder,
    place,
    written,
)

if TYPE_CHECKING:
    from sap_ros.core.loading import Backend
    from sap_ros.core.projection import Projection
    from sap_ros.core.prompts import Prompt
    from sap_ros.core.search import Strategy
    from sap_ros.core.session import PanoramaSession
    from sap_ros.evaluation.replay import Replay
    from sap_ros.jobs.run import Pool

_STORAGE = Annotated[str, typer.Option(help="Storage of the bag that is written: mcap or sqlite3.")]


def _check_storage(storage: str) -> Any:
    if storage not in ("mcap", "sqlite3"):
        raise ValueError(f"the storage is {storage!r}; it must be mcap or sqlite3")
    return storage


def replay(
    bags: Annotated[
        list[Path],
        typer.Argument(
            parser=place,
            metavar="BAG...",
            help="rosbag2 folders, or their .mcap or .db3 files; also at URLs.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=place,
            metavar="FOLDER",
            help="Folder to write to; of several bags, and at a URL, each has a folder in it.",
        ),
    ] = Path("replay_out"),
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
    level_frame: Annotated[
        str, typer.Option(help="See the node's parameter level_frame; by the bag's /tf.")
    ] = "",
    imu: Annotated[
        str, typer.Option(help="Topic of the IMU with which views are laid out level.")
    ] = "",
    storage: _STORAGE = "mcap",
    model: MODEL = "sap-nano",
    checkpoint: CHECKPOINT = None,
    device: DEVICE = "auto",
    backend: BACKEND = "auto",
    strategy: STRATEGY = "auto",
    jobs: JOBS = None,
    ray: RAY = "",
    projection: PROJECTION = "equirectangular",
    camera: CAMERA = "",
    image_back: IMAGE_BACK = "",
    lens_tolerance: LENS_TOLERANCE = 0.02,
) -> None:
    """Run the node's processing on rosbags, without ROS. Writes masks and objects as a bag, a video, a
    table and a summary. Of several bags, also summary.csv and report.html; the same command given again does those that are missing."""
    check_bag_packages()
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sap_ros.core.session import PanoramaSession

    if Path(camera).is_file():  # workers may run elsewhere
        camera = str(Path(camera).resolve())
    settings = ReplaySettings(
        image, tuple(prompt or ()), tuple(point or ()), truth, limit, rate, forward_column, convention,
        _check_storage(storage), projection, camera, image_back, lens_tolerance, level_frame, imu,
    )  # fmt: skip
    opened = settings.opened()
    if len(bags) > 1 or ray or jobs not in (None, 1) or any(map(is_url, [*bags, out])):
        worker = partial(
            _make_replayer,
            settings,
            model,
            checkpoint and checkpoint.resolve(),
            device,
            backend,
            strategy,
        )
        _replay_all(bags, absolute(out), worker, make_pool(jobs, ray, device))
        return
    (bag,) = bags
    if (out / "bag").exists():
        raise ValueError(f"{out}/bag exists; give another folder to write to")

    def session() -> PanoramaSession:
        loaded = load_model_with_bar(model, checkpoint, device, backend=backend)
        return PanoramaSession(loaded, cast("Strategy", strategy), projection=opened)

    with Progress(transient=True) as bars:
        bar = bars.add_task("Replaying", total=limit)
        result = settings.replay(bag, session, out, lambda: bars.advance(bar))
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in result.summary().items():
        if name not in ("notes", "moments"):
            table.add_row(name, "-" if value is None else str(value))
    Console().print(table)
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"Written to {out}/: bag, overlay.mp4, images.csv, moments, summary.json")


@dataclass(frozen=True)
class ReplaySettings:
    """The options of `sap replay` that do not concern the model."""

    image: str
    prompt: tuple[str, ...]
    point: tuple[str, ...]
    truth: str
    limit: int | None
    rate: float
    forward_column: float
    convention: str
    storage: Any
    projection: str
    camera: str
    image_back: str
    lens_tolerance: float
    level_frame: str
    imu: str

    def opened(self) -> Projection:
        """How the images show the sphere."""
        from sap_ros.camera_files import projection_of

        return projection_of(self.projection, self.camera)

    def replay(
        self,
        bag: Path,
        session: Callable[[], PanoramaSession],
        out: Path,
        progress: Callable[[], None] = lambda: None,
    ) -> Replay:
        """Replays a bag; the session is made when the bag was found to be usable.

        Raises:
            ValueError: the bag cannot be replayed.
        """
        from sap_ros.core.prompts import MAX_OBJECT_ID
        from sap_ros.engine.axes import ImageAxes
        from sap_ros.engine.events import Settings
        from sap_ros.evaluation.bags import Bag
        from sap_ros.evaluation.replay import find_topics, first_size, replay

        axes = ImageAxes(self.forward_column, self.convention)
        with Bag(bag) as recorded:
            topics = find_topics(
                recorded, self.image, self.prompt, self.truth, self.image_back, self.imu
            )
            prompts: list[Prompt] = []
            if self.point:
                size = first_size(recorded, topics, self.opened(), self.lens_tolerance)
                prompts = parse_points(list(self.point), size)
            elif not topics.prompts:
                raise ValueError(
                    f"{bag} has no prompts, and no --point is given: there is nothing to look for"
                )
            return replay(
                recorded,
                topics,
                session(),
                out,
                prompts,
                Settings(largest_id=MAX_OBJECT_ID, axes=axes, level_frame=self.level_frame),
                limit=self.limit,
                video_rate=self.rate,
                storage=self.storage,
                progress=progress,
                lens_tolerance=self.lens_tolerance,
            )


def _replay_all(bags: list[Path], out: Path, worker: Callable[[], Any], pool: Pool) -> None:
    """Replays several bags into ``out/NAME``; lists them in ``out/summary.csv``, and shows them in ``report.html``."""
    import csv
    import io
    import json

    import jinja2  # noqa: F401  for the report: a missing package is reported now, not after hours
    import matplotlib  # noqa: F401

    from sap_ros.evaluation.fleet import write_fleet_report
    from sap_ros.files import write_text
    from sap_ros.jobs.run import Item, Job

    names = [absolute(bag).name if bag.is_dir() else bag.stem for bag in bags]
    if twice := {name for name, count in Counter(names).items() if count > 1}:
        raise ValueError(f"several bags are called {', '.join(sorted(twice))}; rename them")
    check_output(out)
    make_folder(out)
    items = (Item(name, (absolute(bag), out / name)) for name, bag in zip(names, bags, strict=True))
    there = Existing(out)
    job = Job(worker, lambda item: f"{item.name}/summary.json" in there)
    summary = run_items("Replaying", job, items, pool, len(names))
    there = Existing(out)
    summaries = {
        name: json.loads((out / name / "summary.json").read_text())
        for name in names
        if f"{name}/summary.json" in there
    }
    columns = dict.fromkeys(
        key for found in summaries.values() for key in found if key != "moments"
    )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["bag", *columns], extrasaction="ignore")
    writer.writeheader()
    for name, found in summaries.items():
        writer.writerow({"bag": name, **found, "notes": "; ".join(found["notes"])})
    write_text(out / "summary.csv", text.getvalue())
    write_fleet_report(out / "report.html", out, summaries, summary.failed)
    typer.echo(f"{len(summaries)} bags are in {out}/: a folder each, summary.csv, report.html")
    conclude(summary)


def _make_replayer(
    settings: ReplaySettings,
    model: str,
    checkpoint: Path | None,
    device: str,
    backend: str,
    strategy: str,
) -> Callable[[Any], None]:
    """A worker that replays bags with a model that it loads once."""
    from sap_ros.core.loading import load_model
    from sap_ros.core.session import PanoramaSession

    loaded = load_model(model, checkpoint, device, backend=cast("Backend", backend))
    opened = settings.opened()

    def session() -> PanoramaSession:
        return PanoramaSession(loaded, cast("Strategy", strategy), projection=opened)

    def replay_one(work: tuple[Path, Path]) -> None:
        bag, out = work
        with fetched(bag) as local, written(out, "summary.json") as part:
            settings.replay(local, session, part)

    return replay_one


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
    check_bag_packages()
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
