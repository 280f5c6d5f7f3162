"""`sap segment`, `sap demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sap_ros.cli.jobs import JOBS, RAY, conclude, make_pool, run_items
from sap_ros.cli.segment_folder import SegmentSettings, segment_items, segment_job
from sap_ros.cli.shared import (
    BACKEND,
    CAMERA,
    CHECKPOINT,
    COARSE,
    DEVICE,
    FUSION,
    MODEL,
    PROJECTION,
    STRATEGY,
    VIEW_SIZE,
    load_model_with_bar,
    parse_points,
)
from sap_ros.places import is_url, place

if TYPE_CHECKING:
    from sap_ros.core.search import Strategy
    from sap_ros.core.session import FusionChoice


def segment(
    panorama: Annotated[
        Path,
        typer.Argument(
            parser=place,
            metavar="PANORAMA",
            help="Equirectangular (or dual-fisheye) image, JPEG, PNG or WebP; or a folder, with --prompts. A path, "
            "or a URL such as s3://bucket/folder.",
        ),
    ],
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="U,V[:ID][:-]",
            help="A pixel of the panorama on object ID (default 1); with :-, one that is not on it. "
            "Can be given several times.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            parser=place,
            metavar="FILE",
            help="Points, boxes or masks for the pictures of a folder, csv or jsonl (docs/scaling.md).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(parser=place, metavar="FOLDER", help="Folder to write to.")
    ] = Path("sap_out"),
    model: MODEL = "sap-nano",
    checkpoint: CHECKPOINT = None,
    device: DEVICE = "auto",
    backend: BACKEND = "auto",
    strategy: STRATEGY = "auto",
    fusion: FUSION = "auto",
    view_size: VIEW_SIZE = None,
    coarse: COARSE = 0,
    jobs: JOBS = None,
    ray: RAY = "",
    projection: PROJECTION = "equirectangular",
    camera: CAMERA = "",
) -> None:
    """Segment objects of a panorama: masks.png, overlay.jpg, views.jpg and objects.json. Or those of a
    folder: masks/NAME.png and objects/NAME.json; the command given again does what is missing, or has other prompts."""
    if (point is None) == (prompts is None):
        raise ValueError("give --point for a panorama, or --prompts for a folder of panoramas")
    from sap_ros.camera_files import projection_of

    opened = projection_of(projection, camera)
    if prompts is not None:
        if Path(camera).is_file():  # workers may run elsewhere
            camera = str(Path(camera).resolve())
        settings = SegmentSettings(
            model,
            checkpoint,
            device,
            backend,
            strategy,
            fusion,
            view_size,
            coarse,
            projection,
            camera,
        )
        from sap_ros.prompt_files import count_pictures

        total = count_pictures(prompts)
        pool = make_pool(jobs, ray, device)
        with segment_job(panorama, prompts, out, settings) as job:
            summary = run_items("Segmenting", job, segment_items(prompts), pool, total)
        typer.echo(
            f"{summary.done} segmented, {summary.kept} were there: {out}/masks/, {out}/objects/"
        )
        conclude(summary)
        return
    assert point is not None
    if is_url(out):
        raise ValueError(f"--out is {out}; of a single panorama it must be a folder of a disk")
    from rich.progress import Progress

    from sap_ros.core.overlay import contact_sheet, draw_overlay
    from sap_ros.core.session import PanoramaSession
    from sap_ros.files import read_image, read_panorama, write_image
    from sap_ros.report import advice, print_objects, write_objects

    image = read_panorama(panorama) if projection == "equirectangular" else read_image(panorama)
    parsed = parse_points(point, opened.panorama_size((image.shape[1], image.shape[0])))
    session = PanoramaSession(
        load_model_with_bar(model, checkpoint, device, view_size, backend),
        cast("Strategy", strategy),  # checked by the session
        fusion=cast("FusionChoice", fusion),
        coarse=coarse,
        projection=opened,
    )
    session.set_image(image)
    for prompt in parsed:
        session.add_prompt(prompt)
    with Progress(transient=True) as bars:
        bar = bars.add_task("Segmenting")
        instances = session.segment(
            lambda done, count, i: bars.update(
                bar, completed=done, total=count, description=f"Object {i}"
            )
        )
    out.mkdir(parents=True, exist_ok=True)
    write_image(out / "masks.png", instances.labels)
    write_image(out / "overlay.jpg", draw_overlay(session.picture.panorama(), instances, parsed))
    views = [
        (
            view,
            _enlarged(mask.logits, view.shape[0]) * prompt.object_id,
            f"{prompt.object_id}: view {i}",
        )
        for prompt in parsed
        for i, (view, mask) in session.view_masks(prompt.object_id).items()
    ]
    write_image(out / "views.jpg", contact_sheet(views))
    write_objects(out / "objects.json", instances)
    print_objects(instances)
    for line in advice(instances):
        typer.echo(line)
    typer.echo(f"Written to {out}/: masks.png, overlay.jpg, views.jpg, objects.json")


def demo(
    panorama: Annotated[
        Path | None, typer.Argument(help="Your own panorama; default: the one in the package.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="U,V", help="Where to click, in pixels.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo_out"),
    model: MODEL = "sap-nano",
    device: DEVICE = "auto",
    backend: BACKEND = "auto",
    strategy: STRATEGY = "auto",
    camera: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Stream the pictures of two fisheye lenses, by this camera file or preset.",
            show_default=False,
        ),
    ] = "",
    codec: Annotated[
        str,
        typer.Option(help="Stream a video: h264, h265 or av1 (with --camera).", show_default=False),
    ] = "",
) -> None:
    """Run the ROS 2 node as a separate process, click on a panorama over DDS, show the masks."""
    if codec and not camera:
        raise ValueError(f"--codec is {codec}; it needs --camera")
    if camera and (panorama is not None or point):
        raise ValueError("--camera streams a traced drive: give no panorama and no --point with it")
    try:
        from sap_ros.demo.client import running_node
        from sap_ros.demo.live import show_live
        from sap_ros.demo.still import load_still, show_still
    except ImportError as error:
        raise ValueError(
            f"the demo needs ROS 2 and this package built with colcon ({error}); `make demo` does both"
        ) from error
    if camera:
        from sap_ros.camera_files import read_camera
        from sap_ros.video import codec_of
        from sap_ros.video_encoder import VideoEncoder

        lenses = read_camera(camera)
        if codec:  # refused before the node is started, if it is
            codec = codec_of(codec) or codec
            VideoEncoder(codec, lenses.picture_size)
        camera = str(Path(camera).resolve()) if Path(camera).is_file() else camera
        sent: Any = "compressed" if codec else "raw"
        with running_node(model, device, strategy, backend, sent, camera, codec) as client:
            show_live(client, out, camera=lenses)
        return
    still = load_still(panorama, point or [])
    with running_node(model, device, strategy, backend) as client:
        show_still(client, still, out)
        if panorama is None and not point:
            show_live(client, out)


def _enlarged(logits: Any, side: int) -> Any:
    import cv2

    return (cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR) > 0).astype("uint16")
