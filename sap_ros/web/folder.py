"""A folder of panoramas to label; the labels are stored in the project's data set layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sap_ros.files import LARGEST_IMAGE, image_size, read_panorama
from sap_ros.synthesis.dataset import DatasetWriter, write_index

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_MOST_PROBLEMS = 3  # unreadable files that a message names


@dataclass(frozen=True)
class Labels:
    """The labels of a panorama.

    Attributes:
        image: (H, W) int32 ids, 0 is background.
        names: label of each object, by id.
    """

    image: np.ndarray
    names: Mapping[int, str]


class PanoramaFolder:
    """Panoramas to label, sorted by name.

    Args:
        path: a folder of panoramas, a data set (with panoramas in ``images``), or a panorama.
        out: folder for ``images/``, ``instances/``, ``labels/`` and ``index.csv``; None: ``path``, or the
            folder of a single panorama.

    Attributes:
        files: the panoramas.
        out: folder of the labels.

    Raises:
        ValueError: there is no panorama, or two panoramas would have the same label files.
    """

    def __init__(self, path: Path, out: Path | None = None) -> None:
        if path.is_dir():
            problems: list[str] = []
            self.files = _panoramas(path, problems) or _panoramas(path / "images", problems)
            if not self.files:
                unreadable = "".join(f"; {problem}" for problem in problems[:_MOST_PROBLEMS])
                raise ValueError(
                    f"{path} holds no panorama: no JPEG, PNG or WebP that is twice as wide as high{unreadable}"
                )
        elif not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        else:
            image_size(path)  # raises an error if it cannot be read
            self.files = [path]
        self.out = out or (path if path.is_dir() else path.parent)
        by_name: dict[str, Path] = {}
        for file in self.files:
            other = by_name.setdefault(file.stem, file)
            if other != file:
                raise ValueError(f"{other} and {file} would both be labelled as {file.stem}")

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The name of a panorama and of its label files."""
        return self.files[index].stem

    def read(self, index: int) -> np.ndarray:
        """Reads a panorama, (H, 2H, 3) uint8 RGB; raises ValueError if the file cannot be used."""
        return read_panorama(self.files[index])

    def is_labelled(self, index: int) -> bool:
        """Whether its labels have been saved."""
        name = self.name(index)
        places = (("images", "jpg"), ("instances", "png"), ("labels", "json"))
        return all((self.out / place / f"{name}.{ending}").exists() for place, ending in places)

    def first_unlabelled(self) -> int:
        """Index of the first panorama without labels; 0 if all are labelled."""
        return next((i for i in range(len(self)) if not self.is_labelled(i)), 0)

    def labels(self, index: int, size: tuple[int, int]) -> Labels | None:
        """The saved labels of a panorama with ``size`` (width, height); None if there are none.

        Raises:
            ValueError: they cannot be read, or have another size.
        """
        if not self.is_labelled(index):
            return None
        name = self.name(index)
        path = self.out / "instances" / f"{name}.png"
        found = image_size(path)
        if found != size:
            raise ValueError(
                f"{path} is {found[0]}x{found[1]}, but its panorama is {size[0]}x{size[1]}; remove the "
                "wrong one"
            )
        with Image.open(path) as file:
            ids = np.array(file)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"{path} has pixels of type {file.mode}; it must be a grey image of ids"
            )
        listing = self.out / "labels" / f"{name}.json"
        try:
            names = {int(row["id"]): str(row["name"]) for row in json.loads(listing.read_text())}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{listing} does not list instances: {error!r}") from error
        return Labels(ids.astype(np.int32), names)

    def save(self, index: int, ids: np.ndarray, names: Mapping[int, str]) -> None:
        """Writes the labels of a panorama, and the index of all.

        Args:
            index: index of the panorama.
            ids: (H, W) ids, 0 is background.
            names: label of each object, by id.
        """
        file = self.files[index]
        manifest = self.out / "manifest.json"
        # An existing data set keeps the settings with which it was made.
        settings = json.loads(manifest.read_text()) if manifest.exists() else {"made_by": "sap web"}
        writer = DatasetWriter(self.out, settings)
        image = file if _is_jpeg(file) else _bgr(self.read(index))
        writer.write(self.name(index), image, ids, names)
        write_index(self.out)


def _panoramas(folder: Path, problems: list[str]) -> list[Path]:
    """The image files in a folder that are twice as wide as high.

    The errors of files that cannot be read are added to ``problems``.
    """
    found = []
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() not in _PICTURES or path.name.startswith("."):
            continue
        try:
            width, height = image_size(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if width == 2 * height and width <= LARGEST_IMAGE[0]:
            found.append(path)
    return found


def _is_jpeg(file: Path) -> bool:
    """Whether a file is a JPEG, by its content, not by its name."""
    with Image.open(file) as image:
        return image.format == "JPEG"


def _bgr(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
