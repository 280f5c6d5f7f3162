"""project_photographs: objects of photographs lie on the panoramas where their labels say."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

from sap_ros.files import read_panorama

SCRIPT = Path(__file__).parents[2] / "scripts" / "project_photographs.py"


def test_objects_lie_where_their_labels_say(tmp_path):
    backgrounds, photographs = tmp_path / "backgrounds", tmp_path / "photographs"
    backgrounds.mkdir()
    photographs.mkdir()
    cv2.imwrite(str(backgrounds / "wall.png"), np.full((256, 512, 3), (200, 60, 60), np.uint8))
    mask = np.zeros((300, 400), np.uint8, order="F")
    mask[60:200, 50:150] = 1
    code = coco_mask.encode(mask)
    code["counts"] = code["counts"].decode()
    for name in ("one", "two"):
        image = np.full((300, 400, 3), (60, 200, 60), np.uint8)
        image[mask > 0] = 30, 30, 220
        cv2.imwrite(str(photographs / f"{name}.jpg"), image)
        (photographs / f"{name}.json").write_text(
            json.dumps({"annotations": [{"segmentation": code}]})
        )
    index = tmp_path / "index.csv"
    index.write_text("name,split,source\none,val,a\ntwo,train,a\n")
    out = tmp_path / "out"
    inputs = ["--photographs", photographs, "--index", index]
    subprocess.run([sys.executable, SCRIPT, backgrounds, out, *inputs], check=True)
    (path,) = (out / "images").iterdir()
    assert path.name == "photographs_one.jpg"
    image = read_panorama(path).astype(int)
    labels = cv2.imread(str(out / "instances" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
    inside = cv2.erode((labels == 1).astype(np.uint8), np.ones((9, 9))) > 0
    outside = cv2.dilate((labels == 1).astype(np.uint8), np.ones((9, 9))) == 0
    red = (image[..., 0] > 150) & (image[..., 1] < 100)
    assert red[inside].mean() > 0.99
    assert red[outside].mean() < 0.01
