"""Sources of training samples: panoramas, photographs and videos give single views and windows.

A view is an image (S, S, 3) uint8 RGB with masks (N, S, S) bool. A window is a sequence of views with
masks of the same objects, see :class:`Window`.
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

#: Windows: objects that cover less than this share of the first view are not used.
MIN_AREA = 0.002

#: A view fitted to an object: its width relative to the object's, in tangents of half angles; its field of view in
#: degrees.
MARGIN, FOV = (1.2, 3.0), (20.0, 90.0)
#: Width of the reduced label image in which an object's extent is measured.
_COARSE = 512
#: Number of decoded panoramas that each loader process keeps: 10 MB each at 2048x1024.
_KEPT = 256
#: Photographs: shares of views that show nearly the whole picture, resized to a square, and of views
#: that are fitted to one object; the others are square crops.
WHOLE, OBJECT_CROPS = 0.3, 0.4

View_ = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Window:
    """A sequence of V views with N objects, all of them in the first view.

    Attributes:
        images: (V, S, S, 3) uint8 RGB.
        masks: (V, N, S, S) bool.
        clicks: (V, N, 2) position in each view of the click made in the first view, in pixels.
        seen: (V, N) bool, whether that position is inside the view.
    """

    images: np.ndarray
    masks: np.ndarray
    clicks: np.ndarray
    seen: np.ndarray


class Samples(Protocol):
    """A data set that gives random views and windows; None if the chosen one has no usable object."""

    def view(self, size: int, rng: Generator) -> View_ | None: ...

    def window(self, size: int, views: int, objects: int, rng: Generator) -> Window | None: ...


def open_source(
    source: Source, scan: bool = True, overlap: float = 0.5, object_views: float = 0.6
) -> Samples:
    """Opens a configured source; for the options, which concern panoramas, see :class:`Panoramas`.

    Raises:
        ValueError: its folder has no files of its kind.
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
        return Panoramas(files, scan, overlap, object_views)
    if source.kind == "photographs":
        return Photographs(files)
    return Videos(files) if source.kind == "videos" else SegmentAnythingVideos(files)


def large_enough(masks: np.ndarray, share: float) -> np.ndarray:
    """Those of the masks (N, S, S) that cover at least this share of the view."""
    return masks[masks.reshape(len(masks), -1).mean(1) >= share] if len(masks) else masks


def _window(
    images: np.ndarray, masks: np.ndarray, clicks: np.ndarray, seen: np.ndarray
) -> Window | None:
    """A window; None if no object is in its first view."""
    return Window(images, masks, clicks.astype(np.float32), seen) if masks.shape[1] else None


class Panoramas:
    """Labelled panoramas: views like those of the scan or of one object, and windows of the scan's loop.

    Args:
        files: ``images/*.jpg``; their labels are in ``instances/*.png``.
        scan: whether views are perspective; if false, they are crops of the panorama itself.
        overlap: overlap of the scan's views.
        object_views: share of the single views that are fitted to one object; the others are like the scan's.
    """

    def __init__(self, files: list[Path], scan: bool, overlap: float, object_views: float) -> None:
        self.files, self.scan, self.object_views = files, scan, object_views
        self.trajectory = Scan(overlap=overlap)

    def view(self, size: int, rng: Generator) -> View_ | None:
        """A view like the scan's, or one fitted to an object."""
        image, instances, _ = _panorama(self.files[rng.integers(len(self.files))])
        if self.scan:
            view = _object_view(instances, rng) if rng.random() < self.object_views else None
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
        """The view nearest to a random object, as in a scan, then consecutive views of the loop.

        With probability 1/2 these start right after the first view; otherwise anywhere in the loop, so that
        the model learns to recognise an object that it sees again late.
        """
        image, instances, ids = _panorama(self.files[rng.integers(len(self.files))])
        turn = int(rng.integers(image.shape[1]))  # the scan has no preferred yaw
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
        ids = _usable(labels[0], objects, rng)
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
        ids = _usable(labels[0], objects, rng)
        clicks, seen = np.zeros((views, len(ids), 2)), np.zeros((views, len(ids)), bool)
        for k, i in enumerate(ids):
            ray = view_to_direction(click_on(labels[0] == i, rng), chosen[0], size)
            for j, view in enumerate(chosen):
                seen[j, k] = sees(view, ray)
                clicks[j, k] = np.nan_to_num(direction_to_view(ray, view, size))
        images = np.stack([of_image.render(view) for view in chosen])
        return _window(images, labels[:, None] == ids[None, :, None, None], clicks, seen)


def _object_view(instances: np.ndarray, rng: Generator) -> View | None:
    """A view, 20 to 90° wide, with a random object of a label image (H, 2H) off its centre."""
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
    # The view is turned away from the object, but most of the object stays in it.
    room = max(0.0, math.radians(fov) / 2 - radius / 2)
    yaw, pitch = (float(a) for a in sphere.direction_to_angles(middle))
    pitch = float(np.clip(pitch + rng.uniform(-0.7, 0.7) * room, -1.5, 1.5))
    yaw += rng.uniform(-0.7, 0.7) * room / max(math.cos(pitch), 0.2)
    return View(yaw, pitch, math.radians(fov))


def _ids(labels: np.ndarray) -> np.ndarray:
    """The ids above 0 in a label image. Uses bincount: sorting two million pixels is slow."""
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _run(length: int, views: int, rng: Generator) -> list[int]:
    """Indices into a loop: 0, then a run that starts at 1 or at a random index."""
    rest = min(views, length) - 1
    start = 1 if rng.random() < 0.5 else int(rng.integers(1, length - rest + 1))
    return [0, *range(start, start + rest)]


def _usable(labels: np.ndarray, objects: int, rng: Generator) -> np.ndarray:
    """At most ``objects`` random ids of a label image (S, S), of those that are large enough."""
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    ids = np.flatnonzero(counts >= max(1, MIN_AREA * labels.size))
    return rng.permutation(ids)[:objects]


class Photographs:
    """Photographs with masks, in SA-1B's format: NAME.jpg with NAME.json (COCO run-length masks)."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def view(self, size: int, rng: Generator) -> View_ | None:
        """A whole photograph, a square crop, or a crop of one object; mirrored at random."""
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
    """A window of pictures made from one photograph by affine maps ``moves`` (2, 3) of its pixels."""
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
        """Every frame, or every second or third, forwards or backwards, all with the same crop."""
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
                video.release()
                return None
            masks = [coco_mask.decode(masklets[i][k]) > 0 for k in some]
            frames.append((cv2.cvtColor(image, cv2.COLOR_BGR2RGB), masks))
        video.release()
        return frames


def _first_clicked(views: list[View_], objects: int, rng: Generator) -> Window | None:
    """A window whose click positions are known only in the first view."""
    images, masks = (np.stack(part) for part in zip(*views, strict=True))
    kept = np.flatnonzero(masks[0].reshape(len(masks[0]), -1).mean(1) >= MIN_AREA)
    kept = rng.permutation(kept)[:objects]
    clicks, seen = np.zeros((len(images), len(kept), 2)), np.zeros((len(images), len(kept)), bool)
    for k, i in enumerate(kept):
        clicks[0, k], seen[0, k] = click_on(masks[0, i], rng), True
    return _window(images, masks[:, kept], clicks, seen)


def _frames(count: int, views: int, rng: Generator) -> list[int]:
    """Indices of frames of a video of ``count`` frames; if it is too short, the last is repeated."""
    step = int(rng.integers(1, 4))
    first = int(rng.integers(max(1, count - (views - 1) * step)))
    chosen = [min(first + i * step, count - 1) for i in range(views)]
    return chosen[::-1] if rng.random() < 0.5 else chosen


def _crop(shape: tuple[int, ...], size: int, rng: Generator, turn: float = 0.0) -> np.ndarray:
    """An affine map (2, 3) from a picture's pixels to those of a random square crop."""
    height, width = shape
    side = min(height, width) * rng.uniform(0.5, 1)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    angle, scale = rng.normal(0, turn) if turn else 0.0, size / side
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([x + side / 2, y + side / 2])
    return np.column_stack([linear, size / 2 - linear @ middle])


def _squeezed(shape: tuple[int, ...], size: int, rng: Generator) -> np.ndarray:
    """An affine map (2, 3) from nearly the whole picture to a square."""
    height, width = shape
    share = rng.uniform(0.9, 1)
    x, y = (rng.uniform(0, length * (1 - share)) for length in (width, height))
    scale = np.array([size / (width * share), size / (height * share)])
    return np.column_stack([np.diag(scale), -scale * [x, y]])


def _object_crop(shape: tuple[int, ...], mask: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """An affine map (2, 3) to a crop around one object, off its centre, slightly stretched and turned.

    The crop lies inside the picture where the picture is large enough. It is enlarged at most 4 times.
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
    """Applies an affine map to a picture and its masks; outside, the picture is mirrored, masks are 0."""
    shrinks = np.sqrt(abs(np.linalg.det(move[:, :2])))
    if shrinks < 0.5:  # avoids aliasing
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
        raise ValueError(f"{path} cannot be read as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


@lru_cache(maxsize=_KEPT)
def _panorama(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, 2H, 3) RGB, label image (H, 2H), and the ids above 0 in it."""
    labels = path.parent.parent / "instances" / f"{path.stem}.png"
    if not labels.exists():
        raise ValueError(f"{path} has no instance image {labels}")
    instances = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    image = _read(path)
    if instances is None or instances.shape != image.shape[:2]:
        raise ValueError(f"{path} and its instance image cannot be read, or differ in size")
    return image, instances, _ids(instances)


def _photograph(path: Path, rng: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Image (h, w, 3) RGB, and at most 24 random masks (h, w) uint8 of it."""
    annotations = _annotations(path)
    chosen = rng.permutation(len(annotations))[:24]
    return _read(path), [coco_mask.decode(annotations[i]["segmentation"]) for i in chosen]


@lru_cache(maxsize=4096)
def _annotations(path: Path) -> list[dict]:
    return json.loads(path.with_suffix(".json").read_text())["annotations"]


@lru_cache(maxsize=16)
def _masklets(path: Path) -> list[list[dict]]:
    return json.loads(path.read_text())["masklet"]
