"""The program of docs/export.md, run as it is printed there."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sap_ros.bench.scenes import DEMO
from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view
from sap_ros.core.export import graph_files
from sap_ros.core.loading import load_model
from sap_ros.core.rendering import ViewRenderer
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.datasets import read_labels
from sap_ros.evaluation.metrics import iou
from sap_ros.files import read_panorama

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
SIZE = 320  # of sap-nano's views
_COLUMN = 4  # its label

# Makes torch, and this package, as if they were not installed.
_WITHOUT = "import sys; sys.modules['torch'] = sys.modules['sap_ros'] = None\n"


@pytest.fixture(scope="module")
def views():
    """Two views of the demo panorama's yellow column, its masks in them, and a pixel on it in the first."""
    labels = read_labels(DEMO.with_name("instances.png"))
    click = centre_click(labels == _COLUMN)
    azimuth, elevation = (float(angle) for angle in sphere.direction_to_angles(click))
    looks = [View(azimuth + yaw, elevation + 0.05, np.radians(60)) for yaw in (0.1, -0.07)]
    picture = ViewRenderer(read_panorama(DEMO), SIZE)
    truth = ViewRenderer(labels, SIZE, labels=True)
    (pixel,) = direction_to_view(click[None], looks[0], SIZE)
    images = [picture.render(look) for look in looks]
    return images, [truth.render(look) == _COLUMN for look in looks], pixel.tolist()


@pytest.fixture(scope="module")
def found(views, tmp_path_factory):
    """The program's masks, and the model that was exported for it."""
    folder = tmp_path_factory.mktemp("program")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "follow.py").write_text(_WITHOUT + program)
    images, _, (u, v) = views
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    model = load_model(backend="torch")
    graphs = graph_files(model.sam, "sap-nano", print)["image_encoder"].parent
    command = [sys.executable, "follow.py", str(graphs), str(u), str(v), "0.png", "1.png"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predicted IoU") == 2
    return model, [cv2.imread(str(folder / f"{i}.mask.png"), 0) > 0 for i in range(2)]


def _shown(decoded):
    return cv2.resize(decoded.best[0, 0].numpy(), (SIZE, SIZE)) > 0


def test_the_program_finds_what_torch_finds(views, found):
    images, true, pixel = views
    model, masks = found
    points = {
        "point_coords": torch.tensor([[pixel]], dtype=torch.float32),
        "point_labels": torch.ones(1, 1, dtype=torch.int32),
    }
    features = model.encode(images[0])
    clicked = model.decode(features, points=points)
    entry = model.remember(features, clicked)
    bank = {"cond_frame_outputs": {0: entry}, "non_cond_frame_outputs": {}}
    followed = model.decode(model.encode(images[1]), index=1, count=17, memory=bank)
    for mask, decoded, truth in zip(masks, (clicked, followed), true, strict=True):
        assert iou(mask, truth) > 0.8
        assert iou(mask, _shown(decoded)) > 0.99  # the program does not round its memory
