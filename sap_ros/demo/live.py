"""A stream: a robot drives through a room with moving objects, and the node tracks those clicked.

The room is :class:`sap_ros.synthesis.moving.MovingScene`, whose masks are exact.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye
from sap_ros.core.instances import State
from sap_ros.core.overlay import draw_overlay
from sap_ros.core.scan import Scan
from sap_ros.demo.client import Answer, Client
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.metrics import iou
from sap_ros.files import write_image
from sap_ros.synthesis.moving import MovingScene

_SHOWN = 6  # number of images in the table and in the picture


def show_live(
    client: Client,
    out: Path,
    size: tuple[int, int] = (1024, 512),
    frames: int = 32,
    rate: float = 4.0,
    camera: DualFisheye | None = None,
) -> list[Answer]:
    """Streams the moving scene to the node in real time; prints a table, writes ``live.{jpg,csv}``.

    With a camera also ``fisheyes.jpg``, the first picture that is sent.

    Args:
        client: client of an active node.
        out: folder to write to.
        size: (width, height) of the panoramas.
        frames: number of panoramas.
        rate: images per second, whether or not the node keeps up.
        camera: two fisheye lenses, whose pictures are sent in place of the panoramas.

    Raises:
        OSError: the node does not respond.
    """
    scene = MovingScene()
    # Every second object: two cores can track three at this rate.
    chosen = {i: solid.name for i, solid in enumerate(scene.solids, 1) if i % 2}
    names = dict(enumerate(chosen.values(), 1))
    if camera is not None:
        if camera.any_size:
            width, height = camera.picture_size
            scale = size[0] / max(width, height)
            camera = camera.resized((round(scale * width), round(scale * height)))
        size = camera.panorama_size
    print(f"Rendering {frames} panoramas of {size[0]}x{size[1]}, {frames / rate:.0f} s of driving")
    sequence = [scene.render(k / rate, size) for k in range(frames)]
    images, truths = ([pair[i] for pair in sequence] for i in (0, 1))
    sent = images
    if camera is not None:
        print("Rendering what the two lenses see, {}x{}".format(*camera.picture_size))
        sent = [scene.render_fisheye(k / rate, camera) for k in range(frames)]
    client.reset()
    truths = [_renumbered(truth, list(chosen)) for truth in truths]
    directions = [centre_click(truths[0] == i) for i in names]
    clicks = [sphere.direction_to_pixel(direction, size) for direction in directions]
    first = client.ask(sent[0], [(float(u), float(v)) for u, v in clicks])
    # The node has its objects now. The stream continues at full rate.
    answers = [first, *client.stream(sent[1:], 1 / rate)]
    answers[1:] = [Answer(a.index + 1, a.instances, a.latency) for a in answers[1:]]
    rows: list[dict[str, Any]] = [
        {
            "time": a.index / rate,
            "id": instance.object_id,
            "name": names[instance.object_id],
            "state": instance.state.name,
            "azimuth_deg": round(math.degrees(instance.azimuth), 2),
            "elevation_deg": round(math.degrees(instance.elevation), 2),
            "iou": round(
                iou(
                    a.instances.labels == instance.object_id, truths[a.index] == instance.object_id
                ),
                4,
            ),
            "latency_s": round(a.latency, 3),
        }
        for a in answers
        for instance in a.instances.objects
    ]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "live.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shown = [answers[round(i)] for i in np.linspace(0, len(answers) - 1, min(_SHOWN, len(answers)))]
    _print_table(rows, names, [a.index / rate for a in shown])
    write_image(out / "live.jpg", _picture(images, shown, rate))
    followed = answers[1:]
    seconds = (frames - 1) / rate
    views, full = client.views_encoded, len(Scan())
    print(
        f"First masks after {first.latency:.1f} s. Then {len(followed)} of {frames - 1} images in "
        f"{seconds:.0f} s ({len(followed) / seconds:.1f} per second; the others were replaced by "
        f"newer ones), latency {median(a.latency for a in followed):.2f} s, mean IoU "
        f"{mean(row['iou'] for row in rows if row['time'] > 0):.3f}"
    )
    if views:
        print(f"Views encoded per image: {mean(views):.1f}; a full scan has {full}")
    written = ["live.jpg", "live.csv"]
    if camera is not None:
        written.append("fisheyes.jpg")
        write_image(out / written[-1], sent[0])
    print(f"Written to {out}/: {', '.join(written)}")
    return answers


def _renumbered(labels: np.ndarray, ids: list[int]) -> np.ndarray:
    """A label image in which the given ids become 1, 2, ... and all others 0."""
    table = np.zeros(256, np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    return table[labels]


def _print_table(rows: list[dict], names: dict[int, str], times: list[float]) -> None:
    """Objects over time: azimuth, and IoU with the true mask; or LOST."""
    table = Table("object", *(f"{t:.1f} s" for t in times), box=None, pad_edge=False)
    for i, name in names.items():
        at = {row["time"]: row for row in rows if row["id"] == i}
        table.add_row(
            name,
            *(
                f"{at[t]['azimuth_deg']:+.0f}° {at[t]['iou']:.2f}"
                if at[t]["state"] == State.TRACKED.name
                else at[t]["state"]
                for t in times
            ),
        )
    Console().print(table)


def _picture(images: list[np.ndarray], shown: list[Answer], rate: float) -> np.ndarray:
    """Overlays of the chosen images, two per row."""
    tiles = []
    for answer in shown:
        tile = draw_overlay(images[answer.index], answer.instances)
        text = f"{answer.index / rate:.2f} s"
        for shade, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
            cv2.putText(tile, text, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, shade, width)
        tiles.append(tile)
    if len(tiles) % 2:
        tiles.append(np.zeros_like(tiles[0]))
    return np.vstack([np.hstack(tiles[i : i + 2]) for i in range(0, len(tiles), 2)])
