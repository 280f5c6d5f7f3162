"""A part of COCO becomes photographs in SA-1B's format, by licence, without what is held out."""

import csv
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

from sap_ros.synthesis.composite import find_photographs

SCRIPT = Path(__file__).parents[2] / "scripts" / "photographs_from_coco.py"
TRIANGLE = [10, 10, 50, 10, 50, 40, 30, 40, 10, 40]  # u, v, ...; an outline with five corners
BOX = [10, 10, 50, 10, 50, 40, 10, 40]


def _annotation(image, number, polygons, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "iscrowd": crowd,
        "area": 1200,
        "bbox": [10, 10, 40, 30],
        "segmentation": polygons,
    }


@pytest.fixture
def coco(tmp_path):
    """Pictures 1 to 5: 1 and 5 may be used, 2 has another licence, 3 a box, a crowd and a tiny mask, 4 is held out."""
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2, 3, 4, 5):
        cv2.imwrite(str(images / f"{number:012}.jpg"), np.full((60, 80, 3), 40 * number, np.uint8))
    content = {
        "images": [
            {"id": n, "file_name": f"{n:012}.jpg", "license": licence, "height": 60, "width": 80}
            for n, licence in ((1, 4), (2, 3), (3, 4), (4, 4), (5, 5), (6, 4))  # 6 is not there
        ],
        "annotations": [
            *(_annotation(n, n, [TRIANGLE]) for n in (1, 2, 4, 5, 6)),
            _annotation(1, 11, [BOX, TRIANGLE]),
            _annotation(3, 31, [BOX]),
            _annotation(3, 32, {"size": [60, 80], "counts": [4800]}, crowd=1),
            {**_annotation(3, 33, [TRIANGLE]), "area": 99},
        ],
    }
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps(content))
    held_out = tmp_path / "held_out.csv"
    held_out.write_text(
        "name,source,split,annotations\na,coco128:4,val,1\nb,coco:5:license5,train,1\n"
    )
    return [str(images), str(annotations), "--held-out", str(held_out)]


def _run(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_permitted_photographs_with_outlines_are_written(coco, tmp_path, monkeypatch):
    out = tmp_path / "more"
    arguments = [*coco[:2], str(out), *coco[2:], "--licence", "4", "--licence", "5"]
    _run(monkeypatch, arguments)
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["coco:1:license4", "coco:5:license5"]
    found = find_photographs([out], [out / "index.csv"], "train", "license[1236]$")
    assert [path.stem for path in found] == ["more_1", "more_5"]
    one, both = json.loads(found[0].with_suffix(".json").read_text())["annotations"]
    mask = coco_mask.decode(one["segmentation"])
    assert mask.shape == (60, 80)
    assert mask[25, 30] == 1
    assert mask[5, 5] == 0
    assert one["area"] == mask.sum() == pytest.approx(1200, rel=0.1)
    assert both["id"] == 11
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.jpg")}
    _run(monkeypatch, arguments)  # what is there is kept
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.jpg")} == before
    with (out / "index.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
