"""train: both stages run on real files, and a run that was ended goes on."""

import json

import pytest
import torch

pytest.importorskip("pycocotools")

import cv2
import numpy as np

from sap_ros.synthesis.composite import Patch, paste
from sap_ros.training.losses import LossWeights, mask_loss
from sap_ros.training.train import TrainConfig, train


@pytest.fixture
def panoramas(tmp_path, panorama):
    folder = tmp_path / "panoramas"
    rng = np.random.default_rng(0)
    for name in ("images", "instances"):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        image, ids = panorama.copy(), np.zeros((256, 512), np.uint16)
        for k in range(1, 9):
            patch = Patch(
                np.full((32, 32, 3), rng.integers(0, 256, 3), np.uint8),
                np.ones((32, 32), np.float32),
            )
            at = rng.normal(size=3)
            paste(image, ids, patch, at / np.linalg.norm(at), 0.4, 0, k)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), image)
        cv2.imwrite(str(folder / "instances" / f"{i}.png"), ids)
    return folder


def _lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["views", "scan"])
def test_a_run_trains_and_is_resumed(panoramas, tmp_path, stage):
    config = TrainConfig(
        stage=stage, model="sap-nano", panoramas=str(panoramas), size=64, batch=2, objects=2,
        window=3, iterations=4, lr=1e-3, log_every=2, view_share=0.0,
    )  # fmt: skip
    out = tmp_path / "run"
    train(config, out)
    first = torch.load(out / "last.pt", weights_only=True)
    assert first["iteration"] == 4
    assert all(np.isfinite(line["loss"]) for line in _lines(out))
    config.iterations = 6
    train(config, out)
    second = torch.load(out / "last.pt", weights_only=True)
    assert second["iteration"] == 6
    changed = {
        key.split(".")[0]
        for key, value in second["model"].items()
        if not torch.equal(value, first["model"][key])
    }
    assert "sam_mask_decoder" in changed
    if stage == "scan":
        assert "image_encoder" not in changed  # frozen
        assert {"memory_attention", "memory_encoder"} <= changed


def test_a_right_mask_costs_less_than_a_wrong_one():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    right = (target * 20 - 10)[:, None]
    presence, iou = torch.full((1, 1), 5.0), torch.ones(1, 1)
    good, found = mask_loss(right, iou, presence, target, LossWeights())
    bad, lost = mask_loss(-right, iou, presence, target, LossWeights())
    assert found.item() == 1
    assert lost.item() == 0
    assert good < 0.1 < bad


def test_an_absent_object_is_judged_by_presence_alone():
    target, masks = torch.zeros(1, 16, 16), torch.randn(1, 3, 16, 16, requires_grad=True)
    loss, _ = mask_loss(masks, torch.rand(1, 3), torch.full((1, 1), -8.0), target, LossWeights())
    assert loss < 1e-3
    loss.backward()
    assert not masks.grad.any()


def test_directions_survive_the_loader(panoramas):
    """A window's clicks lie on the object in every view that sees them."""
    from sap_ros.training.data import ScanWindows

    windows = ScanWindows(sorted((panoramas / "images").glob("*.jpg")), 64, 5, 4, seed=0)
    rng, checked = np.random.default_rng(3), 0
    while checked < 20:
        window = windows.draw(rng)
        if window is None:
            continue
        for view in range(1, 5):
            for k in range(window["masks"].shape[1]):
                if window["labels"][view, k, 0] == 1:
                    u, v = (int(x) for x in window["points"][view, k, 0].clamp(0, 63))
                    near = window["masks"][view, k, max(0, v - 2) : v + 3, max(0, u - 2) : u + 3]
                    assert near.any()
                    checked += 1
