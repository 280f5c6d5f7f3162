"""`sap calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sap_ros.cli.shared import IMAGE_BACK, LENS_TOLERANCE

if TYPE_CHECKING:
    import numpy as np

    from sap_ros.core.fisheye import DualFisheye

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_BAGS = (".mcap", ".db3")


def calibrate(
    source: Annotated[
        Path, typer.Argument(help="Video, folder of pictures, or rosbag2 (folder, .mcap or .db3).")
    ],
    camera: Annotated[str, typer.Option(help="Camera file to start with, or a preset.")],
    out: Annotated[
        Path, typer.Option(help="Camera file to write; a picture of the seam is written beside it.")
    ],
    image: Annotated[
        str, typer.Option(help="Topic of the images of a bag; not needed if there is only one.")
    ] = "",
    image_back: IMAGE_BACK = "",
    lens_tolerance: LENS_TOLERANCE = 0.02,
    pictures: Annotated[
        int, typer.Option(help="Number of pictures to use, evenly spaced in the source.")
    ] = 20,
) -> None:
    """Refine the camera file of two fisheye lenses from what both see: focal lengths, centres, relative
    rotation. Far things are best: the lenses see near ones from different places."""
    from rich.console import Console

    from sap_ros.calibration import calibrate as run
    from sap_ros.camera_files import read_camera, write_camera
    from sap_ros.files import write_image

    if pictures < 1:
        raise ValueError(f"--pictures is {pictures}; it must be at least 1")
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--out is {out}; it must end in .yaml")
    start = read_camera(camera)
    found = _evenly(_images(source, image, image_back, start, lens_tolerance), pictures)
    if not found:
        raise ValueError(f"{source} holds no picture ({', '.join(_PICTURES)}, a video or a bag)")
    sizes = {(picture.shape[1], picture.shape[0]) for picture in found}
    if len(sizes) > 1:
        raise ValueError(f"{source} has pictures of several sizes: {sorted(sizes)}")
    with Console().status("Calibrating ..."):
        result = run(found, start.of_picture(sizes.pop()))
    out.parent.mkdir(parents=True, exist_ok=True)
    seam = out.with_suffix(".seam.png")
    write_image(seam, result.seam)
    lines = [
        f"{result.matches} matches in {len(found)} pictures of {source}, from {camera}",
        f"residual before: {result.before}",
        f"residual after: {result.after}",
    ]
    write_camera(out, result.camera, "Made by sap calibrate: " + "\n".join(lines))
    for line in (*lines, f"Written: {out}, {seam}"):
        typer.echo(line)


def _evenly(images: Iterator[np.ndarray], count: int) -> list[np.ndarray]:
    """At most ``count`` images, evenly spaced, of any number of them."""
    kept: list[np.ndarray] = []
    step = 1
    for i, image in enumerate(images):
        if i % step:
            continue
        kept.append(image)
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    spaced = len(kept) / min(count, len(kept)) if kept else 1
    return [kept[int(i * spaced)] for i in range(min(count, len(kept)))]


def _images(
    source: Path,
    topic: str,
    back: str = "",
    camera: DualFisheye | None = None,
    tolerance: float = 0.02,
) -> Iterator[np.ndarray]:
    """The pictures (H, W, 3) uint8 RGB of a video, a folder or a bag.

    Args:
        source: where they are.
        topic: of a bag; empty: the only one.
        back: topic of the second lens's images, if each lens has one.
        camera: describes the picture of both; needed with ``back``.
        tolerance: largest difference between the stamps of the two lenses' images, in s.
    """
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    is_bag = source.suffix in _BAGS
    if source.is_dir():
        inside = sorted(source.iterdir())
        is_bag = any(path.suffix in _BAGS for path in inside)
        if not is_bag:
            from sap_ros.files import read_image

            yield from (read_image(p) for p in inside if p.suffix.lower() in _PICTURES)
    if is_bag:
        yield from _of_bag(source, topic, back, camera, tolerance)
    elif source.is_file():
        yield from _of_video(source)


def _of_bag(
    source: Path, topic: str, back: str, camera: DualFisheye | None, tolerance: float
) -> Iterator[np.ndarray]:
    from sap_ros.core.projection import Equirectangular, TwoFisheyes
    from sap_ros.evaluation.bags import Bag
    from sap_ros.evaluation.replay import find_topics
    from sap_ros.lenses import TopicReader

    with Bag(source) as bag:
        topics = find_topics(bag, topic, back=back).cameras
        projection = TwoFisheyes(camera) if back and camera else Equirectangular()
        reader = TopicReader(
            topics, projection, lambda text: typer.echo(f"note: {text}"), tolerance
        )
        found = False
        for name, _, message in bag.messages(topics):
            for image in reader.read(name, message):
                found = True
                yield image.read()
        if not found:
            raise ValueError(f"{source} has no {reader.wanted}")


def _of_video(source: Path) -> Iterator[np.ndarray]:
    import cv2

    video = cv2.VideoCapture(str(source))
    while True:
        good, frame = video.read()
        if not good:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
