"""`sap synth`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sap_ros.cli.jobs import JOBS, RAY, conclude, make_pool, run_items
from sap_ros.places import Existing, absolute, check_output, place

if TYPE_CHECKING:
    from sap_ros.core.fisheye import DualFisheye

synth = typer.Typer(help="Make labelled panoramas.", no_args_is_help=True)

_OUT = Annotated[
    Path,
    typer.Option(
        parser=place,
        metavar="FOLDER",
        help="Folder of the data set, or a URL; an existing run is resumed.",
    ),
]
_COUNT = Annotated[int, typer.Option(help="Number of panoramas.")]
_SEED = Annotated[int, typer.Option(help="Seed of the first; each further one adds 1.")]
_CAMERA = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Also the pictures of a camera with two fisheye lenses: a camera file, or a preset.",
        show_default=False,
    ),
]
_WIDTH = Annotated[int, typer.Option(help="Width of a panorama, in pixels; its height is half.")]


def _read(camera: str) -> DualFisheye | None:
    from sap_ros.camera_files import read_camera

    return read_camera(camera) if camera else None


@synth.command()
def composite(
    backgrounds: Annotated[
        list[Path], typer.Option(help="Folder of panoramas; can be given several times.")
    ],
    photographs: Annotated[
        list[Path],
        typer.Option(
            help="Folder in SA-1B's format, from which objects are cut out; can be given several times."
        ),
    ],
    out: _OUT,
    index: Annotated[
        list[Path] | None,
        typer.Option(
            help="csv with name and split of the photographs; can be given several times."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Use only this split of the csv.")] = "train",
    leave_out_source: Annotated[
        str,
        typer.Option(help="Leave out photographs whose source in the csv matches this regex."),
    ] = "",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Leave out backgrounds whose name contains this.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Use only backgrounds whose name contains this.")
    ] = None,
    count: _COUNT = 100,
    seed: _SEED = 0,
    width: _WIDTH = 1024,
    soft: Annotated[
        bool, typer.Option("--soft", help="Blur the objects' edges and add shadows, for training.")
    ] = False,
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Paste cut-outs of photographs and drawn shapes onto panoramas, with spherical geometry."""
    from sap_ros.synthesis.composite import find_panoramas, find_photographs

    def wanted(name: str) -> bool:
        kept = not only or any(part in name for part in only)
        return kept and not any(part in name for part in leave_out or [])

    worker = partial(
        _make_composer,
        absolute(out),
        [p.resolve() for p in find_panoramas(backgrounds) if wanted(p.stem)],
        [p.resolve() for p in find_photographs(photographs, index or [], split, leave_out_source)],
        (width, width // 2),
        soft,
    )
    _make("Composing", worker, out, range(seed, seed + count), jobs, ray)


def _make_composer(
    out: Path, backgrounds: list[Path], photographs: list[Path], size: tuple[int, int], soft: bool
) -> Callable[[int], None]:
    from sap_ros.synthesis.composite import CutOuts, composite_writer

    return composite_writer(out, backgrounds, CutOuts(photographs), size, soft=soft)


@synth.command()
def scene(
    out: _OUT,
    count: _COUNT = 10,
    seed: _SEED = 0,
    width: _WIDTH = 2048,
    samples: Annotated[int, typer.Option(help="Cycles' samples per pixel.")] = 24,
    camera: _CAMERA = "",
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Render rooms and yards with Blender (needs bpy, in a separate environment)."""
    try:
        from sap_ros.synthesis.scene import scene_writer
    except ImportError as error:
        raise ValueError(
            f"{error}: in an environment of Python 3.11, pip install -r requirements/blender.txt, "
            "then python -m sap_ros.cli synth scene ..."
        ) from error
    worker = partial(scene_writer, absolute(out), (width, width // 2), samples, _read(camera))
    _make("Rendering", worker, out, range(seed, seed + count), jobs, ray)


@synth.command()
def moving(
    out: _OUT,
    count: Annotated[int, typer.Option(help="Number of videos.")] = 4,
    seed: _SEED = 0,
    width: _WIDTH = 1024,
    frames: Annotated[int, typer.Option(help="Frames per video.")] = 24,
    rate: Annotated[float, typer.Option(help="Frames per second.")] = 4.0,
    occluders: Annotated[
        int,
        typer.Option(
            help="Number of pillars that hide objects for a while, 3 to 15 s after the start."
        ),
    ] = 0,
    twins: Annotated[
        bool, typer.Option("--twins", help="Objects come in pairs that look the same.")
    ] = False,
    camera: _CAMERA = "",
    jobs: JOBS = None,
    ray: RAY = "",
) -> None:
    """Ray-trace videos of a robot driving among moving objects (for sap eval video, sap bag)."""
    from sap_ros.jobs.run import Item, Job
    from sap_ros.synthesis.moving import video_writer

    if rate <= 0:
        raise ValueError(f"the rate is {rate:g} frames per second; it must be above 0")
    check_output(out)
    folder, size = absolute(out), (width, width // 2)
    worker = partial(video_writer, folder, size, frames, rate, occluders, twins, _read(camera))
    seeds = range(seed, seed + count)

    there = Existing(out / "JPEGImages")

    def is_done(item: Item) -> bool:
        return f"{item.name}/{frames - 1:05d}.jpg" in there

    items = (Item(f"{number:08d}", number) for number in seeds)
    summary = run_items("Tracing", Job(worker, is_done), items, make_pool(jobs, ray), count)
    typer.echo(f"{summary.done + summary.kept} videos are in {out}/")
    conclude(summary)


@synth.command()
def infinigen(
    out: _OUT,
    place: Annotated[str, typer.Option(help="indoors or outdoors.")] = "indoors",
    count: _COUNT = 10,
    seed: _SEED = 0,
    width: _WIDTH = 2048,
    samples: Annotated[int, typer.Option(help="Cycles' samples per pixel.")] = 64,
    positions: Annotated[
        int, typer.Option(min=1, help="Number of panoramas of an indoor scene, from places apart.")
    ] = 1,
    at_once: Annotated[int, typer.Option(help="Number of concurrent jobs of InfiniGen.")] = 1,
    manager: Annotated[
        str, typer.Option(help="InfiniGen's configuration of the machine: local_64GB, slurm, ...")
    ] = "local_64GB",
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting of InfiniGen's scenes (gin)."),
    ] = None,
) -> None:
    """Make scenes with InfiniGen and render them (needs InfiniGen, in a separate environment)."""
    from importlib.util import find_spec

    from sap_ros.synthesis.infinigen import write_scenes

    if find_spec("infinigen") is None:
        raise ValueError(
            "InfiniGen is not installed: in an environment of Python 3.11, pip install --no-deps "
            "infinigen==1.15.5, pip install -r requirements/infinigen.txt, "
            "then python -m sap_ros.cli synth infinigen ..."
        )
    if place not in ("indoors", "outdoors"):
        raise ValueError(f"the place is {place!r}; it must be indoors or outdoors")
    seeds = range(seed, seed + count)
    typer.echo(f"InfiniGen is running, which takes long; its log is {out}/work/*/manager.log")
    missing = write_scenes(
        out,
        seeds,
        cast("Any", place),
        (width, width // 2),
        samples,
        positions,
        at_once,
        manager,
        setting or [],
    )
    if missing:
        raise ValueError(
            f"no panorama was made for the seeds {missing}; the logs are in {out}/work/"
        )
    typer.echo(f"The panoramas of {len(seeds)} scenes are in {out}/")


def _make(
    title: str,
    worker: Callable[[], Callable[[int], None]],
    out: Path,
    seeds: range,
    jobs: int | None,
    ray: str,
) -> None:
    """Makes the panorama of each seed, and the data set's index."""
    from sap_ros.jobs.run import Item, Job
    from sap_ros.synthesis.dataset import write_index

    check_output(out)
    there = Existing(out / "images")

    def is_done(item: Item) -> bool:
        return f"{item.name}.jpg" in there

    items = (Item(f"{seed:08d}", seed) for seed in seeds)
    summary = run_items(title, Job(worker, is_done), items, make_pool(jobs, ray), len(seeds))
    if summary.done + summary.kept:
        write_index(out)
    typer.echo(f"{summary.done + summary.kept} panoramas are in {out}/")
    conclude(summary)
