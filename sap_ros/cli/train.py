"""`sap train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sap_ros.core.search import Strategy


def train(
    config: Annotated[Path, typer.Option(help="Configuration; see config/training/.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing run is resumed.")],
    change: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the configuration."),
    ] = None,
) -> None:
    """Train a SAM 2 model with the SAP recipe; several processes: accelerate launch -m sap_ros.cli train."""
    import os

    from sap_ros.training.config import read_config
    from sap_ros.training.train import train as run

    settings = read_config(config, change)
    chief = os.environ.get("RANK", "0") == "0"

    def report(figures: dict[str, float], left: str) -> None:
        shown = ", ".join(f"{k} {v:.3f}" for k, v in figures.items() if k != "step")
        typer.echo(f"step {figures['step']:.0f} of {settings.iterations}: {shown}; {left}")

    run(settings, out, _validation(settings) if settings.validation else None, report)
    if chief:
        typer.echo(
            f"Weights are in {out}/weights.safetensors; try: sap eval ... --model "
            f"{settings.model}={out}/weights.safetensors"
        )


_VALIDATED: tuple[Strategy, ...] = ("scan", "direct")


def _validation(settings: Any) -> Any:
    """Evaluates weights on held-out panoramas, see :data:`sap_ros.training.train.Validate`."""
    import tempfile

    from sap_ros.core.checkpoints import model_info
    from sap_ros.core.model import Model
    from sap_ros.evaluation.benchmark import Method, evaluate
    from sap_ros.evaluation.datasets import read_dataset

    samples = read_dataset(Path(settings.validation).expanduser())
    samples = samples[: settings.validation_panoramas]
    info = model_info(settings.model)

    def validate(sam: Any, share: tuple[int, int]) -> dict[str, tuple[float, int]]:
        training = sam.training
        device = next(sam.parameters()).device
        model = Model(sam, settings.model, device, info.fusion, info.weak_memory)
        found: dict[str, tuple[float, int]] = {}
        for strategy in _VALIDATED:
            with tempfile.TemporaryDirectory() as folder:
                results = Path(folder) / "scores.jsonl"
                method = Method(settings.model, strategy)
                records = evaluate(model, method, [1], samples[share[0] :: share[1]], results)
            scores = [score.iou for record in records for score in record.scores]
            found[strategy] = sum(scores), len(scores)
        sam.train(training)
        return found

    return validate
