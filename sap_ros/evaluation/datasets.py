"""Reads labelled panoramas and panoramic videos for evaluation, each in its published layout.

| layout | folders | source |
|---|---|---|
| sap | `index.csv`, `images/NAME.jpg`, `instances/NAME.png` | `sap synth` |
| plain | `images/NAME.*` and `instances/NAME.png`, or `NAME.*` and `NAME_instances.png` | yours |
| hunyuanworld | `SCENE/panorama.png` and, made by you, `SCENE/instances.png` | HunyuanWorld-1.0, `demo_panogen.py` |
| pavs10k | `frame_key/SEQ/*` (or `Frames/SEQ/*`), `DATA/{train,test}/SEQ/*.png` | PAV-SOD, its authors' loader |
| 360vos | `SEQ/image/*.jpg`, `SEQ/mask/*.png` | 360VOTS |
| davis | `JPEGImages/SEQ/*.jpg`, `Annotations/SEQ/*.png` | DAVIS, and PAV-SOD as repackaged by others |

Instance images may hold ids in grey (8 or 16 bit), ids in a palette, or one colour per instance on black. A
video that covers the whole sphere with an aspect ratio other than 2:1 (some of PAVS10K's) is resized to 2:1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from operator import itemgetter
from pathlib import Path
from sys import intern

import cv2
import numpy as np

from sap_ros.core.instances import measure, size_class
from sap_ros.files import image_size, open_image
from sap_ros.places import Existing

# Colours that are not in the palette get ids from here on, above all 16-bit ids.
_FIRST_COLOUR = 1 << 16

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class Truth:
    """An instance of a panorama."""

    instance_id: int
    size: str  # small, medium or large
    seam: bool
    pole: bool
    solid_angle: float


@dataclass(frozen=True)
class Sample:
    """A labelled panorama, or a frame of a video; the files are read when needed.

    Attributes:
        name: unique in its data set.
        picture: file of the panorama.
        ids: file of its instances.
        listed: its instances, if known without reading the file.
    """

    name: str
    picture: Path
    ids: Path
    listed: tuple[Truth, ...] | None = None

    def image(self) -> np.ndarray:
        """(H, 2H, 3) uint8 RGB."""
        image_size(self.picture)
        try:
            with open_image(self.picture) as file:
                pixels = np.array(file.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{self.picture} cannot be read as an image: {error}") from error
        return _two_to_one(pixels, cv2.INTER_AREA)

    def labels(self) -> np.ndarray:
        """(H, 2H) int32 ids, 0 for background; of the image's size."""
        labels = _two_to_one(read_labels(self.ids), cv2.INTER_NEAREST)
        width = image_size(self.picture)[0] // 2 * 2
        if labels.shape[1] != width:
            labels = cv2.resize(labels, (width, width // 2), interpolation=cv2.INTER_NEAREST)
        return labels

    @cached_property
    def instances(self) -> tuple[Truth, ...]:
        """The instances; measured from the labels unless ``listed`` is given."""
        if self.listed is not None:
            return self.listed
        labels = self.labels()
        return tuple(_truth(labels == i, int(i)) for i in np.unique(labels[labels > 0]))


@dataclass(frozen=True)
class Sequence:
    """A labelled video: its annotated frames, in order."""

    name: str
    frames: tuple[Sample, ...]


def _truth(mask: np.ndarray, instance_id: int) -> Truth:
    instance = measure(mask, instance_id, 1.0)
    near_a_pole = max(instance.elevation_max, -instance.elevation_min) > math.radians(75)
    seam = bool(mask[:, 0].any() and mask[:, -1].any())
    return Truth(
        instance_id, size_class(instance.solid_angle), seam, near_a_pole, instance.solid_angle
    )


def _two_to_one(pixels: np.ndarray, interpolation: int) -> np.ndarray:
    width = pixels.shape[1] - pixels.shape[1] % 2
    if pixels.shape[:2] == (width // 2, width):
        return pixels
    return cv2.resize(pixels, (width, width // 2), interpolation=interpolation)


def read_labels(path: Path) -> np.ndarray:
    """Reads instance ids (H, W) int32 from an image with ids, a palette, or one colour per instance.

    A colour of DAVIS' (and VOC's) palette becomes its index in the palette. Any other colour becomes its own
    id from 65536 on, the same in all files.

    Raises:
        ValueError: the file is not such an image.
    """
    try:
        image_size(path)
        with open_image(path) as file:
            image = file.convert("RGB") if file.mode in ("RGBA", "CMYK", "YCbCr") else file.copy()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an instance image: {error}") from error
    pixels = np.array(image)
    if pixels.ndim == 2 and pixels.dtype.kind != "f":
        return pixels.astype(np.int32)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"{path} has pixels of type {image.mode}; ids in grey or in a palette, or one colour "
            "per instance, can be read"
        )
    code = (pixels.astype(np.int32) << np.array([16, 8, 0], np.int32)).sum(-1, dtype=np.int32)
    colours, places = np.unique(code, return_inverse=True)
    palette = _palette()
    numbers = np.array([palette.get(int(c), _FIRST_COLOUR + int(c)) for c in colours], np.int32)
    return numbers[places].reshape(code.shape)


@cache
def _palette() -> dict[int, int]:
    """VOC's palette, ids by 24-bit RGB: an id's bits, from the lowest, are the highest of R, G, B in turn."""
    numbers = {}
    for i in range(255, -1, -1):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (i >> bit & 1) << (7 - bit // 3)
        numbers[rgb[0] << 16 | rgb[1] << 8 | rgb[2]] = i
    return numbers


def read_dataset(folder: Path, layout: str = "auto") -> list[Sample]:
    """The labelled panoramas of a folder, or every annotated frame of its videos.

    Args:
        folder: the data set.
        layout: see the module's docstring; ``auto`` takes the first that fits.

    Raises:
        ValueError: the folder does not have this layout; the message says what is needed and where to
            get it.
    """
    layout = _layout(folder, layout)
    if layout in _VIDEOS:
        return [frame for sequence in read_sequences(folder, layout) for frame in sequence.frames]
    samples = _STILLS[layout](folder)
    if not samples:
        raise ValueError(f"{folder} holds no panorama with its instances ({_NEEDS[layout]})")
    return samples


def read_sequences(folder: Path, layout: str = "auto") -> list[Sequence]:
    """The labelled videos of a folder; see :func:`read_dataset`."""
    layout = _layout(folder, layout)
    if layout not in _VIDEOS:
        raise ValueError(
            f"{folder} holds panoramas ({layout}), not videos; those are in the layouts "
            f"{', '.join(_VIDEOS)}"
        )
    sequences = [
        Sequence(name, frames) for name, frames in _VIDEOS[layout](folder).items() if frames
    ]
    if not sequences:
        raise ValueError(f"{folder} holds no frame with its mask ({_NEEDS[layout]})")
    return sequences


def _layout(folder: Path, layout: str) -> str:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if layout != "auto":
        if layout not in _FITS:
            raise ValueError(f"the layout is {layout!r}; it must be one of {', '.join(_FITS)}")
        if not _FITS[layout](folder):
            raise ValueError(f"{folder} is not laid out as {layout}: {_NEEDS[layout]}")
        return layout
    for name, fits in _FITS.items():
        if fits(folder):
            return name
    needs = "; ".join(f"{name}: {text}" for name, text in _NEEDS.items())
    raise ValueError(f"{folder} has none of the layouts that can be read. {needs}")


def _pictures(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    return sorted(found, key=str)


def _read_sap(folder: Path) -> list[Sample]:
    by_name: dict[str, list[Truth]] = {}
    with (folder / "index.csv").open(newline="") as file:
        rows = csv.reader(file)
        wanted = ("panorama", "id", "size", "seam", "pole", "solid_angle_sr")
        columns = itemgetter(*map(next(rows).index, wanted))
        for name, number, size, seam, pole, solid_angle in map(columns, rows):
            truth = Truth(int(number), intern(size), seam == "1", pole == "1", float(solid_angle))
            by_name.setdefault(name, []).append(truth)
    images, instances = folder / "images", folder / "instances"
    return [
        Sample(
            name,
            images / f"{name}.jpg",
            instances / f"{name}.png",
            tuple(listed),
        )
        for name, listed in sorted(by_name.items())
    ]


def _read_plain(folder: Path) -> list[Sample]:
    if (folder / "images").is_dir():
        pictures, ids, ending = _pictures(folder / "images"), folder / "instances", ".png"
    else:
        pictures, ids, ending = _pictures(folder), folder, "_instances.png"
    there = Existing(ids)
    return [
        Sample(picture.stem, picture, ids / f"{picture.stem}{ending}")
        for picture in pictures
        if f"{picture.stem}{ending}" in there
    ]


def _read_hunyuanworld(folder: Path) -> list[Sample]:
    return [
        Sample(path.parent.name, path, path.with_name("instances.png"))
        for path in sorted(folder.glob("*/panorama.png"))
        if path.with_name("instances.png").exists()
    ]


def _paired(pictures: Path, masks: Path) -> tuple[Sample, ...]:
    """The frames of a sequence that have a mask of the same name."""
    by_name = {path.stem: path for path in _pictures(pictures)}
    return tuple(
        Sample(f"{masks.name}-{path.stem}", by_name[path.stem], path)
        for path in _pictures(masks)
        if path.stem in by_name
    )


def _read_pavs10k(folder: Path) -> dict[str, tuple[Sample, ...]]:
    frames = folder / ("frame_key" if (folder / "frame_key").is_dir() else "Frames")
    return {
        masks.name: _paired(frames / masks.name, masks)
        for masks in sorted(folder.glob("DATA/*/*/"))
        if masks.is_dir()
    }


def _read_360vos(folder: Path) -> dict[str, tuple[Sample, ...]]:
    found = {}
    for masks in sorted(folder.glob("*/mask")):
        name = masks.parent.name
        frames = _paired(masks.parent / "image", masks)
        found[name] = tuple(Sample(f"{name}-{f.picture.stem}", f.picture, f.ids) for f in frames)
    return found


def _read_davis(folder: Path) -> dict[str, tuple[Sample, ...]]:
    return {
        masks.name: _paired(folder / "JPEGImages" / masks.name, masks)
        for masks in sorted((folder / "Annotations").iterdir())
        if masks.is_dir()
    }


_STILLS: dict[str, Callable[[Path], list[Sample]]] = {
    "sap": _read_sap,
    "plain": _read_plain,
    "hunyuanworld": _read_hunyuanworld,
}
_VIDEOS: dict[str, Callable[[Path], dict[str, tuple[Sample, ...]]]] = {
    "pavs10k": _read_pavs10k,
    "360vos": _read_360vos,
    "davis": _read_davis,
}
_FITS: dict[str, Callable[[Path], bool]] = {
    "sap": lambda folder: (folder / "index.csv").exists(),
    "pavs10k": lambda folder: (
        (folder / "DATA").is_dir()
        and ((folder / "frame_key").is_dir() or (folder / "Frames").is_dir())
    ),
    "davis": lambda folder: (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir(),
    "360vos": lambda folder: any(folder.glob("*/mask")),
    "hunyuanworld": lambda folder: any(folder.glob("*/panorama.png")),
    "plain": lambda folder: (folder / "images").is_dir() or any(folder.glob("*_instances.png")),
}
_NEEDS = {
    "sap": "index.csv, images/ and instances/, as `sap synth` writes them",
    "pavs10k": "frame_key/SEQ/ (frames, extracted from the videos) and DATA/train/SEQ/ or "
    "DATA/test/SEQ/ (instance masks); both from github.com/PanoAsh/PAV-SOD, for research",
    "davis": "JPEGImages/SEQ/ and Annotations/SEQ/, with the same names in both",
    "360vos": "SEQ/image/ and SEQ/mask/, from huggingface.co/datasets/xuyzshaun/360VOTS (on "
    "request, CC BY-NC-SA 4.0)",
    "hunyuanworld": "SCENE/panorama.png, made by HunyuanWorld-1.0's demo_panogen.py, and "
    "SCENE/instances.png, which you draw: none are published",
    "plain": "images/NAME.jpg and instances/NAME.png, or NAME.jpg and NAME_instances.png",
}
