"""Rendering views of a 4K panorama, compared with cv2.remap with ready tables and with other packages."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from sap_ros.bench.result import Goal, Result, Timing, timed, timing_of
from sap_ros.bench.scenes import DEMO
from sap_ros.camera_files import read_camera
from sap_ros.core import sphere
from sap_ros.core.camera import View, view_to_direction
from sap_ros.core.fisheye import DualFisheye
from sap_ros.core.fisheye_rendering import FisheyeRenderer, view_table
from sap_ros.core.rendering import TorchRenderer, ViewRenderer
from sap_ros.core.scan import Scan
from sap_ros.files import read_panorama
from sap_ros.synthesis.fisheyes import fisheyes_of

_SIZE = 1024
_FISHEYES = "sap_ros, from two fisheyes"


def rendering(device: str = "cpu", repeats: int = 9) -> Result:
    """24 views of 1024 px from 4096x2048: a new panorama each time, look-up tables are kept; and from a
    dual-fisheye picture of that resolution.

    With a GPU, a row is added for it; its time includes the upload of the panorama.
    """
    image = read_panorama(DEMO)
    views = Scan().views
    tables = [_plain_table(view, image) for view in views]

    def bound() -> None:
        for x, y in tables:
            cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def ours() -> None:
        renderer = ViewRenderer(image, _SIZE)
        for view in views:
            renderer.render(view)

    camera = _same_resolution(image.shape[1])
    picture = fisheyes_of(image, camera)

    def from_fisheyes() -> None:
        renderer = FisheyeRenderer(picture, camera)
        for view in views:
            renderer.render(view, _SIZE)

    # In turn, so that what else the machine does meets all of them.
    works = {"cv2.remap, a ready table a view (the bound)": bound, "sap_ros": ours}
    works[_FISHEYES] = from_fisheyes
    taken: dict[str, list[float]] = {name: [] for name in works}
    for i in range(repeats + 1):
        for name, work in works.items():
            timing = timed(work, 1, warm=0)
            if i:  # the first makes the tables
                taken[name].append(timing.median)
    found: dict[str, Timing | None] = {name: timing_of(times) for name, times in taken.items()}
    place = torch.device(device)
    if place.type == "cuda":

        def remote() -> None:
            renderer = TorchRenderer(image, _SIZE, place)
            for view in views:
                renderer.render(view)

        found[f"sap_ros on {device}"] = timed(remote, repeats, device=place)
    missing = {}
    for name, prepare in (("py360convert", _py360convert), ("pyequilib", _pyequilib)):
        try:
            work = prepare(image, [(view.yaw, view.pitch) for view in views])
        except ImportError:
            found[name] = None
            missing[name] = f"needs {name}: pip install {name}"
            continue
        found[name] = timed(work, max(1, repeats // 4))
    base, own, fisheyes = (found[name] for name in works)
    assert base is not None
    assert own is not None
    assert fisheyes is not None
    renderer = ViewRenderer(image, _SIZE)
    own_tables = {id(table[0]): table for table in (renderer.table(view)[1] for view in views)}
    kept = sum(array.nbytes for table in own_tables.values() for array in table)
    share = kept / sum(x.nbytes + y.nbytes for x, y in tables)
    fisheye_tables = sum(view_table(camera, view, _SIZE).nbytes for view in views)
    peer = found["py360convert"]
    return Result(
        "render",
        f"{len(views)} views of {_SIZE} px from {image.shape[1]}x{image.shape[0]}, median of {repeats}",
        ["", "time", "relative to the bound"],
        [
            [name, str(t) if t else missing[name], f"{t.median / base.median:.2f}" if t else "-"]
            for name, t in found.items()
        ]
        + [
            ["table memory, of one table per view", f"{kept / 1e6:.0f} MB", f"{share:.3f}"],
            [
                "table memory for fisheyes",
                f"{fisheye_tables / 1e6:.0f} MB",
                f"{fisheye_tables / sum(x.nbytes + y.nbytes for x, y in tables):.3f}",
            ],
        ],
        [
            Goal("time, relative to the bound", own.median / base.median, 1.15),
            Goal(
                "speed-up over py360convert",
                peer.median / own.median if peer else None,
                20,
                at_least=True,
                note=missing.get("py360convert", ""),
            ),
            Goal("table memory, relative to one table per view", share, 1 / 8),
            Goal(
                "time from a dual-fisheye picture of the same resolution, relative to the panorama",
                fisheyes.median / own.median,
                1.2,
            ),
        ],
        {name: t.median for name, t in found.items() if t},
    )


def _same_resolution(width: int) -> DualFisheye:
    """A camera with two lenses whose panorama has a width."""
    known = read_camera("insta360")
    side = round(width / (2 * np.pi * known.resolution / known.picture_size[1]))
    return known.of_picture((2 * side, side))


def _plain_table(view: View, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[:_SIZE, :_SIZE] + 0.5
    directions = view_to_direction(np.stack([u, v], -1), view, _SIZE)
    pixels = sphere.direction_to_pixel(directions, (image.shape[1], image.shape[0])) - 0.5
    x, y = np.moveaxis(pixels.astype(np.float32), -1, 0)
    return cv2.convertMaps(x, y, cv2.CV_16SC2)


def _py360convert(image: np.ndarray, angles: list[tuple[float, float]]) -> Callable[[], None]:
    import py360convert

    def work() -> None:
        for yaw, pitch in angles:
            py360convert.e2p(
                image, 90, -np.degrees(yaw), np.degrees(pitch), (_SIZE, _SIZE), mode="bilinear"
            )

    return work


def _pyequilib(image: np.ndarray, angles: list[tuple[float, float]]) -> Callable[[], None]:
    import equilib

    channels = np.ascontiguousarray(image.transpose(2, 0, 1))

    def work() -> None:
        for yaw, pitch in angles:
            equilib.equi2pers(
                equi=channels,
                rots={"roll": 0.0, "pitch": pitch, "yaw": yaw},
                height=_SIZE,
                width=_SIZE,
                fov_x=90.0,
                mode="bilinear",
            )

    return work
