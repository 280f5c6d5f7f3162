"""A panorama with one click per object: masks, bearings, and their accuracy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from sap_ros.core.overlay import contact_sheet, draw_overlay
from sap_ros.core.prompts import from_pixels
from sap_ros.core.rendering import ViewRenderer
from sap_ros.core.scan import Scan
from sap_ros.demo.client import Click, Client
from sap_ros.evaluation.metrics import iou
from sap_ros.files import read_panorama, write_image
from sap_ros.report import print_objects, write_objects

SHIPPED = Path(__file__).parents[1] / "data" / "demo"


@dataclass(frozen=True)
class Still:
    """A panorama with clicks: image (H, W, 3) uint8 RGB, clicked pixels, and true masks if known."""

    image: np.ndarray
    clicks: list[Click]
    truth: np.ndarray | None = None  # label image, (H, W)
    names: dict[int, str] = field(default_factory=dict)


def load_still(panorama: Path | None, points: list[str]) -> Still:
    """Loads a panorama file, or the shipped one if None, with clicks ``U,V``, one per object.

    The shipped panorama without ``points`` has its own clicks and true masks.

    Raises:
        ValueError: the panorama or a point cannot be used.
    """
    image = read_panorama(panorama or SHIPPED / "panorama.jpg")
    size = image.shape[1], image.shape[0]
    if points:
        clicks = [_pixel(text) for text in points]
        from_pixels(1, clicks, size)  # checks them before a node is started
        return Still(image, clicks)
    if panorama is not None:
        raise ValueError("a panorama of your own needs a point: POINT=u,v (or --point U,V)")
    objects = json.loads((SHIPPED / "objects.json").read_text())
    return Still(
        image,
        [tuple(entry["click"]) for entry in objects],
        cv2.imread(str(SHIPPED / "instances.png"), cv2.IMREAD_UNCHANGED),
        {entry["id"]: entry["name"] for entry in objects},
    )


def show_still(client: Client, still: Still, out: Path) -> None:
    """Segments a panorama with the node, over DDS; prints a table, writes pictures to the folder ``out``.

    Raises:
        OSError: the node does not answer.
    """
    image, truth = still.image, still.truth
    size = image.shape[1], image.shape[0]
    prompts = [from_pixels(i, [click], size) for i, click in enumerate(still.clicks, 1)]
    print(f"Publishing a panorama of {size[0]}x{size[1]}, clicks: {len(prompts)}")
    answer = client.ask(image, still.clicks)
    print(f"Masks and bearings came after {answer.latency:.1f} s")
    instances = answer.instances
    out.mkdir(parents=True, exist_ok=True)
    for name in ("live.jpg", "live.csv", "fisheyes.jpg"):
        (out / name).unlink(missing_ok=True)  # from an earlier run
    write_image(out / "masks.png", instances.labels)
    write_image(out / "overlay.jpg", draw_overlay(image, instances, prompts))
    write_image(out / "views.jpg", _views(image, instances.labels))
    write_objects(out / "objects.json", instances)
    agreement = None
    if truth is not None:
        agreement = {
            i: (name, iou(instances.labels == i, truth == i)) for i, name in still.names.items()
        }
    print_objects(instances, agreement)
    print(f"Written to {out}/: masks.png, overlay.jpg, views.jpg, objects.json")


def _pixel(text: str) -> Click:
    try:
        u, v = (float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no point; it must have the form U,V") from None
    return u, v


def _views(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The views of the scan with the published masks on them."""
    trajectory, side = Scan(), 256
    of_image = ViewRenderer(image, side)
    of_labels = ViewRenderer(labels, side, labels=True)
    return contact_sheet(
        [
            (of_image.render(view), of_labels.render(view), f"view {i}")
            for i, view in enumerate(trajectory.views)
        ]
    )
