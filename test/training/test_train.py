"""Training: both stages on real files, the frozen encoder, killed runs, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sap_ros.core.checkpoints import build_architecture, checkpoint_path, read_weights
from sap_ros.core.loading import load_model
from sap_ros.training.config import as_yaml, read_config
from sap_ros.training.losses import LossWeights, mask_loss
from sap_ros.training.train import train

ROOT = Path(__file__).parents[2]


def _losses(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.parametrize("stage", ["views", "scan"])
def test_a_run_trains_what_its_stage_trains(make_config, tmp_path, stage):
    config, out = make_config(stage=stage, init="own", encoder_warm_up=0.0), tmp_path / "run"
    before = read_weights(checkpoint_path("sap-nano"))
    before = {key: value.clone() for key, value in before.items()}
    train(config, out)
    saved = torch.load(out / "last.pt", weights_only=True)
    assert saved["step"] == 4
    assert np.isfinite(list(_losses(out).values())).all()
    changed = {k.split(".")[0] for k, v in saved["model"].items() if not torch.equal(v, before[k])}
    assert "sam_mask_decoder" in changed
    if stage == "scan":
        assert "image_encoder" not in changed
        assert {"memory_attention", "memory_encoder"} <= changed
    else:
        assert "image_encoder" in changed
    assert list((out / "pictures").glob("*.jpg"))
    load_model("sap-nano", out / "weights.safetensors")


SIDES = {"sam2.1-tiny": 64, "efficienttam-ti": 64, "edgetam": 256}


@pytest.mark.parametrize("name", SIDES)
def test_the_frozen_encoder_encodes_as_before(make_config, tmp_path, name):
    """SAM 2's own trunk has a drop path: without care, the same view differs from pass to pass."""
    from sap_ros.core.graphs import normalize
    from sap_ros.training.train import trained_parameters

    sam = build_architecture(name, SIDES[name]).eval()
    image = torch.randint(0, 256, (1, SIDES[name], SIDES[name], 3), dtype=torch.uint8)
    with torch.no_grad():
        before = sam.image_encoder(normalize(image))["backbone_fpn"]
        trained_parameters(sam, make_config(model=name))
        sam.train()
        after = [sam.image_encoder(normalize(image))["backbone_fpn"] for _ in range(2)]
    for features in after:
        for one, other in zip(before, features, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "stage"),
    [("efficienttam-ti", "views"), ("efficienttam-ti", "scan"), ("edgetam", "scan")],
)
def test_other_architectures_are_trained(make_config, tmp_path, name, stage):
    changes = {"window": 2, "view_share": 0.5, "iterations": 2, "picture_every": 5}
    torch.manual_seed(0)  # as the run
    before = build_architecture(name, SIDES[name]).state_dict()
    train(make_config(model=name, size=SIDES[name], stage=stage, **changes), tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    assert np.isfinite(list(_losses(tmp_path / "run").values())).all()
    changed = {k for k, v in saved.items() if not torch.equal(v, before[k])}
    parts = {key.split(".")[0] for key in changed}
    assert "sam_mask_decoder" in parts
    if stage == "views":
        assert "image_encoder" in parts
    else:
        assert "image_encoder" not in parts
        assert {"memory_attention", "memory_encoder"} <= parts
        assert ("spatial_perceiver" in parts) == (name == "edgetam")
    load_model(name, tmp_path / "run" / "weights.safetensors", image_size=SIDES[name])


def test_edgetam_has_no_places_to_train_attention_to(make_config, tmp_path):
    config = make_config(model="edgetam", size=256, loss={"attention": 0.5})
    with pytest.raises(ValueError, match=r"loss.attention is 0.5; it must be 0 for edgetam"):
        train(config, tmp_path / "run")


def test_memory_may_begin_from_other_weights_and_learn_at_another_rate(make_config, tmp_path):
    from sap_ros.training.train import export_weights, initialise, trained_parameters

    other, sam = (build_architecture("sap-nano", 64) for _ in range(2))
    export_weights(other, tmp_path / "other.safetensors")
    changes = {"init": "own", "init_memory": str(tmp_path / "other.safetensors")}
    config = make_config(stage="scan", decoder_lr_scale=0.5, **changes)
    initialise(sam, config)
    own = read_weights(checkpoint_path("sap-nano"))
    for name, value in sam.state_dict().items():
        begun = own if name.startswith(("image_encoder.", "sam_")) else other.state_dict()
        assert torch.allclose(value, begun[name].to(value.dtype), atol=1e-2), name
    decoder, rest = trained_parameters(sam, config)
    assert (decoder["scale"], rest["scale"]) == (0.5, 1.0)
    presence = {id(p) for p in sam.sam_mask_decoder.pred_obj_score_head.parameters()}
    of_decoder = {id(p) for p in sam.sam_mask_decoder.parameters()} - presence
    of_memory = {id(p) for p in sam.memory_attention.parameters()}
    assert of_decoder <= {id(p) for p in decoder["params"]}
    assert presence | of_memory <= {id(p) for p in rest["params"]}


def test_a_run_that_was_ended_goes_on_with_the_losses_that_it_would_have_had(make_config, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make_config(iterations=6), whole)

    class EndedError(Exception):
        pass

    def end_at_three(figures, left):
        if figures["step"] == 3:
            raise EndedError

    config = make_config(iterations=6, save_every=0.0)
    with pytest.raises(EndedError):
        train(config, parts, report=end_at_three)
    train(config, parts)
    one, other = _losses(whole), _losses(parts)
    assert one.keys() == other.keys() == set(range(1, 7))
    for step in one:
        assert other[step] == pytest.approx(one[step], rel=1e-3), step


def test_a_resumed_run_draws_the_dropout_that_it_would_have_drawn(
    make_config, tmp_path, monkeypatch
):
    from sap_ros.training import train as module

    def with_dropout(name, size):
        sam = build_architecture(name, size)
        for part in sam.memory_attention.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.5
        return sam

    monkeypatch.setattr(module, "build_architecture", with_dropout)
    settings = {"view_share": 0.0, "click_all": 0.0, "init": "own", "save_every": 0.0}
    train(make_config(iterations=4, **settings), tmp_path / "whole")

    class EndedError(Exception):
        pass

    def end_at_two(figures, left):
        if figures["step"] == 2:
            raise EndedError

    config = make_config(iterations=4, **settings)
    with pytest.raises(EndedError):
        train(config, tmp_path / "parts", report=end_at_two)
    torch.rand(17)  # another process has drawn otherwise
    train(config, tmp_path / "parts")
    whole, parts = _losses(tmp_path / "whole"), _losses(tmp_path / "parts")
    for step in (3, 4):
        assert parts[step] == pytest.approx(whole[step], rel=1e-4), step


def test_every_process_validates_its_share(make_config, tmp_path):
    asked = []

    def validate(sam, share):
        asked.append(share)
        return {"scan": (1.5, 2), "direct": (0.0, 0)}

    train(make_config(iterations=2, validate_every=1), tmp_path, validate)
    assert asked == [(0, 1)] * 2
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [(row["val_scan"], row["val_direct"]) for row in rows if "val_scan" in row]
    assert found == [(0.75, 0.0)] * 2
    assert (tmp_path / "best.safetensors").exists()


_VALIDATING = """
import sys
from pathlib import Path
from sap_ros.training.config import read_config
from sap_ros.training.train import train

def validate(sam, share):
    (Path(sys.argv[2]) / f"share{share[0]}").write_text(str(share[1]))
    return {"scan": (float(share[0]), 1)}

train(read_config(Path(sys.argv[1])), Path(sys.argv[2]), validate)
"""


@pytest.mark.slow
def test_of_two_processes_each_validates_and_the_means_are_of_both(make_config, tmp_path):
    script, file, out = tmp_path / "run.py", tmp_path / "config.yaml", tmp_path / "run"
    script.write_text(_VALIDATING)
    file.write_text(as_yaml(make_config(iterations=2)))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *start, str(script), str(file), str(out)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(out / f"share{i}").read_text() for i in (0, 1)] == ["2", "2"]
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["val_scan"] for row in rows if "val_scan" in row] == [0.5]


def _command(config, out, *start):
    return [*start, "-m", "sap_ros.cli", "train", "--config", str(config), "--out", str(out)]


def _environment():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.mark.slow
def test_killed_in_the_middle_of_saving_it_goes_on(make_config, tmp_path):
    file, out = tmp_path / "config.yaml", tmp_path / "run"
    config = make_config(iterations=60, save_every=0.0)
    file.write_text(as_yaml(config))
    train(make_config(iterations=60), tmp_path / "whole")
    for kill in range(4):
        process = subprocess.Popen(_command(file, out, sys.executable), env=_environment())
        end = time.monotonic() + 120
        # It saves after each step: a part that is there is being written.
        while not (out / "last.pt.part").exists() and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(_command(file, out, sys.executable), env=_environment()).returncode == 0
    one, other = _losses(tmp_path / "whole"), _losses(out)
    assert other.keys() == one.keys()
    assert other[60] == pytest.approx(one[60], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_of_two_processes_one_is_killed_and_both_go_on_where_they_were(
    make_config, tmp_path, killed
):
    psutil = pytest.importorskip("psutil")
    losses = {}
    for name in ("whole", "killed"):
        file, out = tmp_path / f"{name}.yaml", tmp_path / name
        file.write_text(as_yaml(make_config(iterations=6, save_every=0.0, view_share=0.0)))
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = _command(file, out, sys.executable, *start)
        if name == "killed":
            process = subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL)
            log, end = out / "log.jsonl", time.monotonic() + 200
            while not log.exists() or log.read_text().count("\n") < 3:
                assert time.monotonic() < end
                time.sleep(0.05)
            ranks = psutil.Process(process.pid).children()
            (victim,) = (p for p in ranks if p.environ().get("RANK") == str(killed))
            victim.kill()
            assert process.wait(100) != 0  # it ends the other one
            assert len(_losses(out)) < 6
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        losses[name] = _losses(out)
    assert losses["killed"].keys() == losses["whole"].keys() == set(range(1, 7))
    for step, loss in losses["whole"].items():
        assert losses["killed"][step] == pytest.approx(loss, rel=1e-3), step


@pytest.mark.slow
def test_two_processes_learn_as_one_with_the_same_global_batch(make_config, tmp_path):
    figures = {}
    for processes, batch in ((1, 2), (2, 1)):
        file, out = tmp_path / f"{processes}.yaml", tmp_path / f"run{processes}"
        file.write_text(as_yaml(make_config(batch=batch, iterations=5, view_share=0.0)))
        start = [sys.executable]
        if processes == 2:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = _command(file, out, *start)
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        figures[processes] = _losses(out)
    assert figures[1].keys() == figures[2].keys()
    for step, loss in figures[1].items():
        assert figures[2][step] == pytest.approx(loss, rel=2e-2), step


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "training").rglob("*.yaml")), ids=str)
def test_the_shipped_configurations_are_valid(path):
    read_config(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("stage=dance", "stage is 'dance'"),
        ("lr=much", "lr"),
        ("learning_rate=1", "learning_rate"),
        ("sources.panoramas.kind=films", "kind is 'films'"),
        ("sources.panoramas.ratio=0", "ratio above 0"),
        ("init_memory=other.safetensors", "init_memory is given and init is not"),
    ],
)
def test_a_bad_configuration_is_said(make_config, tmp_path, change, named):
    file = tmp_path / "config.yaml"
    config = make_config()
    config.sources.pop("photographs")
    file.write_text(as_yaml(config))
    with pytest.raises(ValueError, match=named):
        read_config(file, [change])


def test_a_setting_may_be_emptied():
    path = ROOT / "config" / "training" / "nano_sap.yaml"
    config = read_config(path, ["init=own", "init_memory=", "validation="])
    assert (config.init, config.init_memory, config.validation) == ("own", "", "")


def test_windows_are_trained_to_look_at_the_object(make_config):
    from sap_ros.training.data import TrainingSamples
    from sap_ros.training.steps import window_loss

    config = make_config(view_share=0.0, click_all=0.0, corrections=0)
    sample = TrainingSamples(config, 64)[0]
    sam = build_architecture("sap-nano", 64)
    sam.load_state_dict(read_weights(checkpoint_path("sap-nano")))
    sam.pred_obj_scores = False
    plain, without = window_loss(sam, sample, LossWeights())
    total, figures = window_loss(sam, sample, LossWeights(attention=2.0))
    assert "window_attention" not in without
    extra = 2.0 * figures["window_attention"]
    assert total.item() == pytest.approx(plain.item() + extra, rel=1e-3)
    assert 0 < figures["window_attention"] < 10


def test_what_a_correction_is_about_weighs_more():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    masks, clicked = (target * 20 - 10)[:, None], torch.zeros(1, 16, 16)
    masks[..., 4:8, 4:8] *= -1  # missed
    given = (masks, torch.ones(1, 1), torch.full((1, 1), 5.0), target)
    clicked[:, 4:8, 4:8] = 1
    weights = LossWeights(clicked=3.0)
    without, there = mask_loss(*given, weights)[0], mask_loss(*given, weights, clicked)[0]
    elsewhere = mask_loss(*given, weights, clicked.flip(-1))[0]
    assert there > 2 * without
    assert elsewhere == pytest.approx(without.item(), rel=1e-3)


def test_the_error_of_the_predicted_iou_is_absolute_and_of_all_candidates():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    masks = (target * 20 - 10)[:, None].expand(-1, 3, -1, -1)
    only = LossWeights(focal=0, dice=0, presence=0)
    loss, _ = mask_loss(masks, torch.tensor([[1.0, 0.7, 0.4]]), torch.ones(1, 1), target, only)
    assert loss.item() == pytest.approx((0 + 0.3 + 0.6) / 3, abs=1e-5)


def test_corrections_of_single_views_are_trained_with_all_clicks_and_the_mask_before(
    make_config, monkeypatch
):
    from sap_ros.training.data import TrainingSamples
    from sap_ros.training.steps import view_loss

    kinds = {"click": 1.0, "clicks": 0.0, "box": 0.0}
    config = make_config(stage="views", view_corrections=3, kinds=kinds)
    samples = TrainingSamples(config, 64)
    sample = next(s for s in (samples[k] for k in range(50)) if s["corrections"] == 3)
    sam = build_architecture("sap-nano", 64)
    sam.load_state_dict(read_weights(checkpoint_path("sap-nano")))
    given, heads = [], sam._forward_sam_heads

    def seen(**kwargs):
        given.append(kwargs)
        return heads(**kwargs)

    monkeypatch.setattr(sam, "_forward_sam_heads", seen)
    _, figures = view_loss(sam, sample, LossWeights(), frozen=True)
    assert set(figures) == {"iou_click", "iou_click_1", "iou_click_2", "iou_click_3"}
    assert [g["point_inputs"]["point_labels"].shape[1] for g in given] == [1, 2, 3, 4]
    assert [g["multimask_output"] for g in given] == [True, False, False, False]
    assert given[0]["mask_inputs"] is None
    shown = torch.cat([g["mask_inputs"].flatten(1).abs().amax(1) for g in given[1:]])
    assert shown.max() > 1
    assert torch.isfinite(shown).all()


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
