"""Where training samples come from: panoramas, photographs and videos, each a view or a window.

A view is an image (S, S, 3) uint8 RGB with masks (N, S, S) bool. A window is a sequence of views with
the same objects in all, see :class:`Window`.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from pycocotools import mask as coco_mask

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view, sees, view_to_direction
from sap_ros.core.rendering import ViewRenderer
from sap_ros.core.scan import Scan
from sap_ros.core.views import Crops
from sap_ros.training.config import Source
from sap_ros.training.prompts import click_on

#: Objects of a view smaller than this share of it are not asked for.
MIN_AREA = 0.002

#: Share of the single views of panoramas that are of one object; the others are like the scan's.
OBJECT_VIEWS = 0.6
#: How much wider than its object such a view is, by the tangent; and its field of view in degrees.
MARGIN, FOV = (1.2, 3.0), (20.0, 90.0)
#: Width of the label image that an object's extent is measured in.
_COARSE = 512
#: Panoramas that are kept decoded, by each process that makes samples: of 2048x1024, 10 MB each.
_KEPT = 256
#: Photographs: shares of views that show all of it, squeezed to a square, and that are of one object;
#: the others are square crops.
WHOLE, OBJECT_CROPS = 0.3, 0.4

View_ = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Window:
    """A sequence of V views with N objects, all of them in the first view.

    Attributes:
        images: (V, S, S, 3) uint8 RGB.
        masks: (V, N, S, S) bool.
        clicks: (V, N, 2) where the click on the first view's object falls in each view, in pixels.
        seen: (V, N) bool, whether it falls into the view.
    """

    images: np.ndarray
    masks: np.ndarray
    clicks: np.ndarray
    seen: np.ndarray


class Samples(Protocol):
    """A data set that views and windows are drawn from; None where a draw has nothing to ask for."""

    def view(self, size: int, rng: Generator) -> View_ | None: ...

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None: ...


def open_source(source: Source, scan: bool = True, overlap: float = 0.5) -> Samples:
    """A configured source.

    Raises:
        ValueError: there is nothing in its folder.
    """
    folder = Path(source.path).expanduser()
    endings = {"panoramas": "*.jpg", "photographs": "*.jpg", "videos": "*", "sav": "*.mp4"}
    inside = {"panoramas": "images", "videos": "JPEGImages"}.get(source.kind, "")
    files = sorted((folder / inside).glob(endings[source.kind]))
    if source.index:
        with Path(source.index).expanduser().open(newline="") as file:
            left_out = re.compile(source.leave_out or r"(?!)")  # (?!) matches nothing
            chosen = {
                row["name"]
                for row in csv.DictReader(file)
                if row["split"] == source.split and not left_out.search(row.get("source", ""))
            }
        files = [path for path in files if path.stem in chosen]
    if not files:
        raise ValueError(
            f"{folder / inside} holds nothing of the kind {source.kind} ({endings[source.kind]})"
        )
    if source.kind == "panoramas":
        return Panoramas(files, scan, overlap)
    if source.kind == "photographs":
        return Photographs(files)
    return Videos(files) if source.kind == "videos" else SegmentAnythingVideos(files)


def large_enough(masks: np.ndarray) -> np.ndarray:
    """Those of masks (N, S, S) that cover ``MIN_AREA`` or more."""
    return masks[masks.reshape(len(masks), -1).mean(1) >= MIN_AREA] if len(masks) else masks


def _window(
    images: np.ndarray, masks: np.ndarray, clicks: np.ndarray, seen: np.ndarray
) -> Window | None:
    """A window, unless no object is in its first view."""
    return Window(images, masks, clicks.astype(np.float32), seen) if masks.shape[1] else None


class Panoramas:
    """Labelled panoramas: views near those of the scan, and windows of its loop.

    Args:
        files: ``images/*.jpg``, with ``instances/*.png`` beside.
        scan: windows are of perspective views; else of crops of the panorama itself.
        overlap: of the scan's views.
    """

    def __init__(self, files: list[Path], scan: bool, overlap: float) -> None:
        self.files, self.scan = files, scan
        self.trajectory = Scan(overlap=overlap)

    def view(self, size: int, rng: Generator) -> View_ | None:
        """One like the scan's, or of an object, as it is looked at for itself."""
        image, instances, _ = _panorama(self.files[rng.integers(len(self.files))])
        if self.scan:
            view = _object_view(instances, rng) if rng.random() < OBJECT_VIEWS else None
            if view is None:
                pitch = rng.choice([-np.pi / 4, 0, np.pi / 4]) + round(rng.uniform(-0.2, 0.2), 2)
                view = View(-2 * np.pi * rng.integers(64) / 64, round(pitch, 2))
            picture = ViewRenderer(image, size).render(view)
            labels = ViewRenderer(instances, size, labels=True).render(view)
        else:
            i = int(rng.integers(24))
            picture = Crops(image, size).render(i)
            labels = Crops(instances, size, labels=True).render(i)
        return picture, labels == _ids(labels)[:, None, None]

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None:
        """A run of the loop, written twice, from a random start; the first view is near an object.

        Half of the time the first view is the one nearest to the object, as in a scan, and the
        others follow it or are a run from anywhere: what comes back late must still be known.
        """
        image, instances, ids = _panorama(self.files[rng.integers(len(self.files))])
        turn = int(rng.integers(image.shape[1]))  # the scan has no preferred heading
        image, instances = np.roll(image, turn, axis=1), np.roll(instances, turn, axis=1)
        if not len(ids):
            return None
        v, u = np.argwhere(instances == rng.choice(ids)).T
        extent = (image.shape[1], image.shape[0])
        middle = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, extent).mean(0)
        if self.scan:
            return self._scan_window(image, instances, middle, size, views, objects, rng)
        frames = Crops(image, size)
        labels_of = Crops(instances, size, labels=True)
        order = frames.order(middle)
        chosen = _run(len(order), views, rng)
        order = tuple(order[i] for i in chosen)
        labels = np.stack([labels_of.render(i) for i in order])
        ids = _asked(labels[0], objects, rng)
        clicks, seen = np.zeros((views, len(ids), 2)), np.zeros((views, len(ids)), bool)
        for k, i in enumerate(ids):
            ray = frames.direction(order[0], click_on(labels[0] == i, rng))[None]
            places = np.stack([frames.locate(j, ray)[0] for j in order])
            seen[:, k] = np.isfinite(places).all(1)
            clicks[:, k] = np.nan_to_num(places)
        images = np.stack([frames.render(i) for i in order])
        return _window(images, labels[:, None] == ids[None, :, None, None], clicks, seen)

    def _scan_window(
        self,
        image: np.ndarray,
        instances: np.ndarray,
        middle: np.ndarray,
        size: int,
        views: int,
        objects: int,
        rng: Generator,
    ) -> Window | None:
        trajectory = self.trajectory
        loop = trajectory.window(trajectory.nearest(middle))
        chosen = [trajectory.views[loop[i]] for i in _run(len(loop), views, rng)]
        of_image, of_labels = ViewRenderer(image, size), ViewRenderer(instances, size, labels=True)
        labels = np.stack([of_labels.render(view) for view in chosen])
        ids = _asked(labels[0], objects, rng)
        clicks, seen = np.zeros((views, len(ids), 2)), np.zeros((views, len(ids)), bool)
        for k, i in enumerate(ids):
            ray = view_to_direction(click_on(labels[0] == i, rng), chosen[0], size)
            for j, view in enumerate(chosen):
                seen[j, k] = sees(view, ray)
                clicks[j, k] = np.nan_to_num(direction_to_view(ray, view, size))
        images = np.stack([of_image.render(view) for view in chosen])
        return _window(images, labels[:, None] == ids[None, :, None, None], clicks, seen)


def _object_view(instances: np.ndarray, rng: Generator) -> View | None:
    """A view of one object of a label image (H, 2H), 20 to 90° wide, the object beside its middle."""
    step = max(1, instances.shape[1] // _COARSE)
    instances = instances[step // 2 :: step, step // 2 :: step]
    ids = _ids(instances)
    if not len(ids):
        return None
    pixels = np.argwhere(instances == rng.choice(ids))
    extent = (instances.shape[1], instances.shape[0])
    rays = sphere.pixel_to_direction(pixels[:, ::-1] + 0.5, extent)
    middle = rays.mean(0)
    middle /= np.linalg.norm(middle)
    radius = math.acos(float(np.clip((rays @ middle).min(), 0, 1)))
    fov = 2 * math.atan(math.tan(min(radius, math.pi / 4)) * rng.uniform(*MARGIN))
    fov = float(np.clip(math.degrees(fov), *FOV))
    # Turned away, so that the object stays in the view with most of itself.
    room = max(0.0, math.radians(fov) / 2 - radius / 2)
    yaw, pitch = (float(a) for a in sphere.direction_to_angles(middle))
    pitch = float(np.clip(pitch + rng.uniform(-0.7, 0.7) * room, -1.5, 1.5))
    yaw += rng.uniform(-0.7, 0.7) * room / max(math.cos(pitch), 0.2)
    return View(yaw, pitch, math.radians(fov))


def _ids(labels: np.ndarray) -> np.ndarray:
    """The ids above 0 in a label image; by counting, since sorting two million pixels takes long."""
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _run(length: int, views: int, rng: Generator) -> list[int]:
    """Places of a loop: the first, then those after it, or a run from anywhere."""
    rest = min(views, length) - 1
    start = 1 if rng.random() < 0.5 else int(rng.integers(1, length - rest + 1))
    return [0, *range(start, start + rest)]


def _asked(labels: np.ndarray, objects: int, rng: Generator) -> np.ndarray:
    """Some ids of a label image (S, S) whose objects are large enough to be asked for."""
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    ids = np.flatnonzero(counts >= max(1, MIN_AREA * labels.size))
    return rng.permutation(ids)[:objects]


class Photographs:
    """Photographs with masks, in SA-1B's format: NAME.jpg with NAME.json (COCO run-length masks)."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def view(self, size: int, rng: Generator) -> View_ | None:
        """All of a photograph, a square crop, or one object of it; mirrored at random."""
        image, masks = _photograph(self.files[rng.integers(len(self.files))], rng)
        if not masks:
            return None
        way = rng.random()
        if way < WHOLE:
            move = _squeezed(image.shape[:2], size, rng)
        elif way < WHOLE + OBJECT_CROPS:
            move = _object_crop(image.shape[:2], masks[0], size, rng)
        else:
            move = _crop(image.shape[:2], size, rng)
        crop, found = _warped(image, masks, move, size)
        if rng.random() < 0.5:
            crop, found = np.ascontiguousarray(crop[:, ::-1]), found[:, :, ::-1]
        return crop, found

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None:
        """A pseudo-video: the camera moves, turns and zooms over the photograph."""
        image, masks = _photograph(self.files[rng.integers(len(self.files))], rng)
        if not masks:
            return None
        one, other = (_crop(image.shape[:2], size, rng, turn=0.3) for _ in range(2))
        share = np.linspace(0, rng.uniform(0.3, 1), views)
        moves = [(1 - s) * one + s * other for s in share]
        frames, found = zip(*(_warped(image, masks, m, size) for m in moves), strict=True)
        return _clicked(np.stack(frames), np.stack(found), moves, objects, rng)


def _clicked(
    images: np.ndarray,
    masks: np.ndarray,
    moves: list[np.ndarray],
    objects: int,
    rng: Generator,
) -> Window | None:
    """A window of pictures that a plane's affine ``moves`` (2, 3) to pixels have made."""
    size = images.shape[1]
    kept = np.flatnonzero(masks[0].reshape(len(masks[0]), -1).mean(1) >= MIN_AREA)
    kept = rng.permutation(kept)[:objects]
    back = cv2.invertAffineTransform(moves[0])
    clicks = np.zeros((len(images), len(kept), 2))
    for k, i in enumerate(kept):
        point = back @ np.append(click_on(masks[0, i], rng), 1)
        clicks[:, k] = [move @ np.append(point, 1) for move in moves]
    seen = ((clicks >= 0) & (clicks < size)).all(-1)
    return _window(images, masks[:, kept], clicks, seen)


class Videos:
    """Videos with masks in DAVIS' format: JPEGImages/SEQUENCE/*.jpg, Annotations/SEQUENCE/*.png."""

    def __init__(self, sequences: list[Path]) -> None:
        self.sequences = sequences

    def view(self, size: int, rng: Generator) -> View_ | None:
        frames = sorted(self.sequences[rng.integers(len(self.sequences))].glob("*.jpg"))
        image, labels = self._frame(frames[rng.integers(len(frames))])
        ids = np.unique(labels)[1:]
        move = _crop(image.shape[:2], size, rng)
        return _warped(image, [labels == i for i in ids], move, size)

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None:
        """Consecutive frames, or each second or third, forwards or backwards, in one crop."""
        frames = sorted(self.sequences[rng.integers(len(self.sequences))].glob("*.jpg"))
        chosen = _frames(len(frames), views, rng)
        read = [self._frame(frames[i]) for i in chosen]
        ids = np.unique(read[0][1])[1:]
        move = _crop(read[0][0].shape[:2], size, rng)
        views_ = [_warped(image, [labels == i for i in ids], move, size) for image, labels in read]
        return _first_clicked(views_, objects, rng)

    @staticmethod
    def _frame(path: Path) -> tuple[np.ndarray, np.ndarray]:
        folder = path.parents[2] / "Annotations" / path.parent.name
        labels = cv2.imread(str(folder / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if labels is None:
            raise ValueError(f"{folder} has no {path.stem}.png for the frame {path}")
        return _read(path), labels if labels.ndim == 2 else labels.max(2)


class SegmentAnythingVideos:
    """Videos in SA-V's format: NAME.mp4 with NAME_manual.json or NAME_auto.json (masklets).

    Every fourth frame is annotated: ``masklet[frame][object]`` is a run-length mask.
    """

    _STEP = 4

    def __init__(self, files: list[Path]) -> None:
        self.files = [path for path in files if self._annotation(path) is not None]
        if not self.files:
            raise ValueError(f"{files[0].parent} has no NAME_manual.json or NAME_auto.json")

    def view(self, size: int, rng: Generator) -> View_ | None:
        drawn = self._draw(1, rng)
        if drawn is None:
            return None
        ((image, masks),) = drawn
        return _warped(image, masks, _crop(image.shape[:2], size, rng), size)

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None:
        drawn = self._draw(views, rng)
        if drawn is None:
            return None
        move = _crop(drawn[0][0].shape[:2], size, rng)
        return _first_clicked([_warped(*frame, move, size) for frame in drawn], objects, rng)

    @staticmethod
    def _annotation(path: Path) -> Path | None:
        for kind in ("manual", "auto"):
            beside = path.with_name(f"{path.stem}_{kind}.json")
            if beside.exists():
                return beside
        return None

    def _draw(self, views: int, rng: Generator) -> list[tuple[np.ndarray, list[np.ndarray]]] | None:
        path = self.files[rng.integers(len(self.files))]
        annotation = self._annotation(path)
        assert annotation is not None
        masklets = _masklets(annotation)
        chosen = _frames(len(masklets), views, rng)
        some = rng.permutation(len(masklets[0]))[:6]
        video = cv2.VideoCapture(str(path))
        frames: list[tuple[np.ndarray, list[np.ndarray]]] = []
        for i in chosen:
            video.set(cv2.CAP_PROP_POS_FRAMES, i * self._STEP)
            good, image = video.read()
            if not good:
                return None
            masks = [coco_mask.decode(masklets[i][k]) > 0 for k in some]
            frames.append((cv2.cvtColor(image, cv2.COLOR_BGR2RGB), masks))
        video.release()
        return frames


def _first_clicked(views: list[View_], objects: int, rng: Generator) -> Window | None:
    """A window whose clicks are known in the first view alone."""
    images, masks = (np.stack(part) for part in zip(*views, strict=True))
    kept = np.flatnonzero(masks[0].reshape(len(masks[0]), -1).mean(1) >= MIN_AREA)
    kept = rng.permutation(kept)[:objects]
    clicks, seen = np.zeros((len(images), len(kept), 2)), np.zeros((len(images), len(kept)), bool)
    for k, i in enumerate(kept):
        clicks[0, k], seen[0, k] = click_on(masks[0, i], rng), True
    return _window(images, masks[:, kept], clicks, seen)


def _frames(count: int, views: int, rng: Generator) -> list[int]:
    """Indices of frames of a video of ``count``; the last is repeated where it is too short."""
    step = int(rng.integers(1, 4))
    first = int(rng.integers(max(1, count - (views - 1) * step)))
    chosen = [min(first + i * step, count - 1) for i in range(views)]
    return chosen[::-1] if rng.random() < 0.5 else chosen


def _crop(shape: tuple[int, ...], size: int, rng: Generator, turn: float = 0.0) -> np.ndarray:
    """An affine map (2, 3) of a picture's pixels to those of a random square crop of it."""
    height, width = shape
    side = min(height, width) * rng.uniform(0.5, 1)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    angle, scale = rng.normal(0, turn) if turn else 0.0, size / side
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([x + side / 2, y + side / 2])
    return np.column_stack([linear, size / 2 - linear @ middle])


def _squeezed(shape: tuple[int, ...], size: int, rng: Generator) -> np.ndarray:
    """An affine map (2, 3) of nearly all of a picture to a square."""
    height, width = shape
    share = rng.uniform(0.9, 1)
    x, y = (rng.uniform(0, length * (1 - share)) for length in (width, height))
    scale = np.array([size / (width * share), size / (height * share)])
    return np.column_stack([np.diag(scale), -scale * [x, y]])


def _object_crop(shape: tuple[int, ...], mask: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """An affine map (2, 3) to a crop about one object of a picture, beside its middle, stretched a bit.

    As far as the picture goes the crop lies within it; it is enlarged four times at most.
    """
    x, y, w, h = cv2.boundingRect(mask)
    side = max(w, h) * rng.uniform(*MARGIN)
    side = max(min(side, max(shape)), size / 4)
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    sides = side * np.array([stretch, 1 / stretch])
    centre = np.array([x + w / 2, y + h / 2]) + rng.uniform(-0.35, 0.35, 2) * sides
    for axis, length in enumerate((shape[1], shape[0])):
        half = sides[axis] / 2
        centre[axis] = (
            np.clip(centre[axis], half, length - half) if length > 2 * half else length / 2
        )
    angle, scale = rng.normal(0, 0.1), size / sides
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.diag(scale) @ np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, size / 2 - linear @ centre])


def _warped(image: np.ndarray, masks: list[np.ndarray], move: np.ndarray, size: int) -> View_:
    """A picture and its masks through an affine map; what lies outside is mirrored, and no object."""
    shrinks = np.sqrt(abs(np.linalg.det(move[:, :2])))
    if shrinks < 0.5:  # against aliasing
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / shrinks)
    picture = cv2.warpAffine(image, move, (size, size), borderMode=cv2.BORDER_REFLECT)
    found = np.zeros((len(masks), size, size), bool)
    for i, mask in enumerate(masks):
        warped = cv2.warpAffine(mask.astype(np.float32), move, (size, size), flags=cv2.INTER_LINEAR)
        found[i] = warped > 0.5
    return picture, found


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} cannot be read as a picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


@lru_cache(maxsize=_KEPT)
def _panorama(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, 2H, 3) RGB, instance ids (H, 2H), and those of them that are objects."""
    labels = path.parent.parent / "instances" / f"{path.stem}.png"
    if not labels.exists():
        raise ValueError(f"{path} has no instance image {labels}")
    instances = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    image = _read(path)
    if instances is None or instances.shape != image.shape[:2]:
        raise ValueError(f"{path} and its instance image cannot be read, or differ in size")
    return image, instances, _ids(instances)


def _photograph(path: Path, rng: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Image (h, w, 3) RGB, and up to 24 of its masks (h, w) uint8."""
    annotations = _annotations(path)
    chosen = rng.permutation(len(annotations))[:24]
    return _read(path), [coco_mask.decode(annotations[i]["segmentation"]) for i in chosen]


@lru_cache(maxsize=4096)
def _annotations(path: Path) -> list[dict]:
    return json.loads(path.with_suffix(".json").read_text())["annotations"]


@lru_cache(maxsize=16)
def _masklets(path: Path) -> list[list[dict]]:
    return json.loads(path.read_text())["masklet"]
