"""Labelled panoramas that an evaluation reads."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sap_ros.files import read_panorama


@dataclass(frozen=True)
class Truth:
    """An instance of a panorama, as ``index.csv`` has it."""

    instance_id: int
    size: str  # small, medium or large
    seam: bool
    pole: bool
    solid_angle: float


@dataclass(frozen=True)
class Sample:
    """A labelled panorama: image and instance ids are read when asked for."""

    name: str
    folder: Path
    instances: tuple[Truth, ...]

    def image(self) -> np.ndarray:
        """(H, 2H, 3) uint8 RGB."""
        return read_panorama(self.folder / "images" / f"{self.name}.jpg")

    def labels(self) -> np.ndarray:
        """(H, 2H) instance ids."""
        path = self.folder / "instances" / f"{self.name}.png"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2:
            raise ValueError(f"{path} is missing, or no image of one channel")
        return labels


def read_dataset(folder: Path) -> Iterator[Sample]:
    """The panoramas of a folder in this project's format (``index.csv``, images, instances).

    Raises:
        ValueError: it is no such folder.
    """
    index = folder / "index.csv"
    if not index.exists():
        raise ValueError(
            f"{folder} has no index.csv; it must be a folder that `sap synth` wrote (with images/ "
            "and instances/ beside it)"
        )
    by_name: dict[str, list[Truth]] = {}
    with index.open(newline="") as file:
        for row in csv.DictReader(file):
            by_name.setdefault(row["panorama"], []).append(
                Truth(
                    int(row["id"]),
                    row["size"],
                    row["seam"] == "1",
                    row["pole"] == "1",
                    float(row["solid_angle_sr"]),
                )
            )
    for name, instances in sorted(by_name.items()):
        yield Sample(name, folder, tuple(instances))
