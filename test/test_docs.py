"""The program of docs/export.md, run as it is printed there."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sap_ros.core.export import graph_files
from sap_ros.core.model import load_model

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
SIZE = 256

# Makes torch, and this package, as if they were not installed.
_WITHOUT = "import sys; sys.modules['torch'] = sys.modules['sap_ros'] = None\n"


def disk(centre):
    image = np.full((SIZE, SIZE, 3), (70, 110, 90), np.uint8)
    cv2.circle(image, centre, 45, (210, 60, 40), -1)
    return image


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the program writes of a disk that moves a little, and what it prints."""
    folder = tmp_path_factory.mktemp("program")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "follow.py").write_text(_WITHOUT + program)
    images = []
    for i, centre in enumerate([(100, 120), (106, 123)]):
        images.append(disk(centre))
        cv2.imwrite(str(folder / f"{i}.png"), images[-1][..., ::-1])
    model = load_model(backend="torch")
    graphs = graph_files(model.sam, "sap-nano", print)["image_encoder"].parent
    command = [sys.executable, "follow.py", str(graphs), "100", "120", "0.png", "1.png"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    masks = [cv2.imread(str(folder / f"{i}.mask.png"), 0) > 0 for i in range(2)]
    return model, images, masks, done.stdout


def _shown(decoded):
    return cv2.resize(decoded.best[0, 0].numpy(), (SIZE, SIZE)) > 0


def _iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def test_the_program_finds_what_torch_finds(answers):
    model, images, masks, printed = answers
    assert printed.count("predicted IoU") == 2
    points = {
        "point_coords": torch.tensor([[[100.0, 120.0]]]),
        "point_labels": torch.ones(1, 1, dtype=torch.int32),
    }
    features = model.encode(images[0])
    clicked = model.decode(features, points=points)
    assert _iou(masks[0], _shown(clicked)) > 0.999
    true = (images[0] == (210, 60, 40)).all(2)
    assert _iou(masks[0], true) > 0.8
    bank = {
        "cond_frame_outputs": {0: model.remember(features, clicked)},
        "non_cond_frame_outputs": {},
    }
    followed = model.decode(model.encode(images[1]), index=1, count=17, memory=bank)
    assert masks[1].any()
    assert _iou(masks[1], _shown(followed)) > 0.98  # the program does not round its memory
