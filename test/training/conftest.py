"""Small data sets in each format, made here."""

import json

import pytest

coco_mask = pytest.importorskip("pycocotools.mask")
pytest.importorskip("accelerate")

import cv2
import numpy as np

from sap_ros.synthesis.composite import Patch, paste
from sap_ros.training.config import Source, TrainConfig


def _code(mask):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**code, "counts": code["counts"].decode()}


@pytest.fixture
def panoramas(tmp_path, panorama):
    folder = tmp_path / "panoramas"
    rng = np.random.default_rng(0)
    for name in ("images", "instances"):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        image, ids = panorama.copy(), np.zeros((256, 512), np.uint16)
        for k in range(1, 9):
            shade = np.full((32, 32, 3), rng.integers(0, 256, 3), np.uint8)
            at = rng.normal(size=3)
            patch = Patch(shade, np.ones((32, 32), np.float32))
            paste(image, ids, patch, at / np.linalg.norm(at), 0.4, 0, k)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), image)
        cv2.imwrite(str(folder / "instances" / f"{i}.png"), ids)
    return folder


def _moving(frame, k):
    """A picture (120, 160, 3) with a square that moves, and its mask."""
    mask = np.zeros((120, 160), bool)
    left = round(20 + 6 * frame + 40 * k)
    mask[30:80, left : left + 30] = True
    image = np.full((120, 160, 3), 90, np.uint8)
    image[mask] = (30, 200 - 90 * k, 60)
    return image, mask


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(3):
        image, mask = _moving(i, i % 2)
        cv2.imwrite(str(folder / f"sa_{i}.jpg"), image)
        annotations = [{"segmentation": _code(mask)}] if i else []
        (folder / f"sa_{i}.json").write_text(json.dumps({"annotations": annotations}))
    return folder


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    for name in ("JPEGImages", "Annotations"):
        (folder / name / "square").mkdir(parents=True)
    for i in range(8):
        image, mask = _moving(i, 0)
        cv2.imwrite(str(folder / "JPEGImages" / "square" / f"{i:05d}.jpg"), image)
        label = mask.astype(np.uint8)
        cv2.imwrite(str(folder / "Annotations" / "square" / f"{i:05d}.png"), label)
    return folder


@pytest.fixture
def sav(tmp_path):
    """SA-V's format: 24 frames, every fourth of them annotated, two masklets."""
    folder = tmp_path / "sav"
    folder.mkdir()
    out = cv2.VideoWriter(
        str(folder / "sav_000001.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 24, (160, 120)
    )
    for i in range(24):
        out.write(_moving(i / 4, 0)[0])
    out.release()
    masklet = [[_code(_moving(i, k)[1]) for k in range(2)] for i in range(6)]
    annotation = {"video_id": "sav_000001", "masklet_id": [0, 1], "masklet": masklet}
    (folder / "sav_000001_manual.json").write_text(json.dumps(annotation))
    return folder


@pytest.fixture
def make_config(panoramas, photographs):
    def make(**changes):
        settings = {
            "stage": "scan",
            "model": "sap-nano",
            "sources": {
                "panoramas": Source("panoramas", str(panoramas)),
                "photographs": Source("photographs", str(photographs)),
            },
            "size": 64,
            "views": 2,
            "objects": 2,
            "window": 3,
            "iterations": 4,
            "lr": 1e-3,
            "log_every": 1,
            "picture_every": 2,
            "workers": 0,
        }
        return TrainConfig(**{**settings, **changes})

    return make
