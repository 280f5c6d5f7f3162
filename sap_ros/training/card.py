"""The model card of a run: data and licences, recipe, metrics."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from sap_ros.training.config import TrainConfig, as_yaml


def model_card(config: TrainConfig, model: nn.Module, log: Path) -> str:
    """The card as Markdown.

    Args:
        config: configuration of the run.
        model: the trained model.
        log: ``log.jsonl`` of the run; the last training and the last validation metrics are taken from it.
    """
    lines = log.read_text().splitlines() if log.exists() else []
    rows: list[dict[str, float]] = [json.loads(line) for line in lines]
    training = next((row for row in reversed(rows) if "loss" in row), {})
    validation = next((row for row in reversed(rows) if "val_scan" in row), {})
    count = sum(p.numel() for p in model.parameters()) / 1e6
    start = config.init or (
        "ImageNet weights of its trunk" if config.imagenet else "random weights"
    )
    shares = sum(source.ratio for source in config.sources.values())
    data = [
        f"- {name} ({source.ratio / shares:.0%}): {source.credit or 'no credit is configured'}"
        for name, source in config.sources.items()
    ]
    steps = training.get("step", 0)
    return "\n".join(
        [
            f"# {config.model}, trained by sap_ros",
            "",
            f"{count:.1f} M parameters, half precision. Started from {start}; stage `{config.stage}`, "
            f"{steps} of {config.iterations} steps.",
            "",
            "## Data",
            "",
            *data,
            "",
            "The weights derive from this data and from the initial weights; the licences of both apply.",
            "",
            "## Figures",
            "",
            *_figures("held-out panoramas, one click, mean IoU", validation, "val_"),
            *_figures("training samples, running means", training, ""),
            "",
            "## Recipe",
            "",
            "```yaml",
            as_yaml(config).rstrip(),
            "```",
            "",
        ]
    )


def _figures(what: str, row: dict[str, float], prefix: str) -> list[str]:
    shown = [
        f"{name.removeprefix(prefix)} {value:.3f}"
        for name, value in row.items()
        if name.startswith(prefix) and name not in ("step", "seconds")
    ]
    return [f"- {what}: {', '.join(shown)}"] if shown else []
