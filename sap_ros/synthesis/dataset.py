"""The on-disk format of labelled panoramas, the only one that this project writes.

    images/NAME.jpg        panorama, (H, 2H) pixels
    instances/NAME.png     uint16 ids: 0 background, else an instance
    labels/NAME.json       its instances: id, name, size class, direction, solid angle
    index.csv              all instances, one row each
    manifest.json          how the panoramas were made
    fisheyes/NAME.png      the same scene by a camera with two fisheye lenses, if one was given
    camera.yaml            that camera

The image of a panorama is written last, and every file is written under a temporary name and then renamed:
a panorama is complete if its image exists. So the same command continues a killed run, and several processes
and machines can write different seeds to one folder without coordination.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.camera_files import write_camera
from sap_ros.core.fisheye import DualFisheye
from sap_ros.core.instances import Instance, measure, size_class
from sap_ros.files import write_text
from sap_ros.places import Existing, is_url, make_folder, write_whole

#: Columns of ``index.csv``.
COLUMNS = (
    "panorama", "id", "name", "size", "azimuth_deg", "elevation_deg", "solid_angle_sr",
    "seam", "pole",
)  # fmt: skip


class DatasetWriter:
    """Writes labelled panoramas into a folder.

    Args:
        folder: the folder; created if missing.
        settings: what the panoramas are made from and how; the same for all panoramas of a folder.
        camera: the camera of the fisheye pictures, if there are any.

    Raises:
        ValueError: the folder was made with other settings, or with another camera.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], camera: DualFisheye | None = None
    ) -> None:
        self.folder = folder
        for name in ("images", "instances", "labels", *(["fisheyes"] if camera else [])):
            make_folder(folder / name)
        if camera:
            # The whole camera, so that a resumed run with another one is refused.
            settings = {**settings, "camera": repr(camera)}
        text = json.dumps(dict(settings), indent=2, sort_keys=True) + "\n"
        manifest = folder / "manifest.json"
        if not manifest.exists():
            write_text(manifest, text)
        elif json.loads(manifest.read_text()) != json.loads(text):
            raise ValueError(
                f"{manifest} says that the folder was made with other settings; use the same settings "
                "or another folder"
            )
        if camera:
            write_camera(folder / "camera.yaml", camera)

    def has(self, name: str) -> bool:
        """Whether a panorama exists."""
        return (self.folder / "images" / f"{name}.jpg").exists()

    def write(
        self,
        name: str,
        panorama: np.ndarray | Path,
        instances: np.ndarray,
        names: Mapping[int, str] | None = None,
        fisheyes: np.ndarray | None = None,
    ) -> None:
        """Writes a panorama (H, 2H, 3) uint8 BGR, or copies a JPEG file; and instances (H, 2H) uint16.

        ``fisheyes`` is the camera's picture (h, w, 3) uint8 BGR.
        """
        rows = describe(name, instances, names or {})
        _write_image(self.folder / "instances" / f"{name}.png", instances.astype(np.uint16))
        write_text(self.folder / "labels" / f"{name}.json", json.dumps(rows, indent=1) + "\n")
        if fisheyes is not None:
            _write_image(self.folder / "fisheyes" / f"{name}.png", fisheyes)
        image = self.folder / "images" / f"{name}.jpg"
        if isinstance(panorama, np.ndarray):
            _write_image(image, panorama)
        elif is_url(image) or not (image.exists() and image.samefile(panorama)):
            write_whole(image, panorama.read_bytes())


def write_index(folder: Path) -> int:
    """Writes ``index.csv`` from all existing labels of a data set; returns the number of rows."""
    text, count = io.StringIO(newline=""), 0
    images = Existing(folder / "images")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for path in sorted((folder / "labels").glob("*.json")):
        if f"{path.stem}.jpg" in images:
            rows = json.loads(path.read_text())
            writer.writerows(rows)
            count += len(rows)
    write_text(folder / "index.csv", text.getvalue())
    return count


def describe(
    panorama: str, instances: np.ndarray, names: Mapping[int, str]
) -> list[dict[str, object]]:
    """One row of the index for each instance of an instance image (H, 2H)."""
    rows = []
    for i in np.unique(instances[instances > 0]):
        mask = instances == i
        thing = measure(mask, int(i), 1.0)
        rows.append(
            {
                "panorama": panorama,
                "id": int(i),
                "name": names.get(int(i), ""),
                "size": size_class(thing.solid_angle),
                "azimuth_deg": round(math.degrees(thing.azimuth), 2),
                "elevation_deg": round(math.degrees(thing.elevation), 2),
                "solid_angle_sr": round(thing.solid_angle, 5),
                "seam": int(mask[:, 0].any() and mask[:, -1].any()),
                "pole": int(_near_a_pole(thing)),
            }
        )
    return rows


def _near_a_pole(thing: Instance) -> bool:
    """Whether an instance reaches within 15 degrees of a pole."""
    return max(thing.elevation_max, -thing.elevation_min) > math.radians(75)


def _write_image(path: Path, image: np.ndarray) -> None:
    """Writes BGR or single-channel pixels."""
    write_whole(path, cv2.imencode(path.suffix, image)[1].tobytes())
