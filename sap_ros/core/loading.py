"""Loads a model by name. torch is imported with the first one, not with this module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sap_ros.core.model import Model

DEFAULT_MODEL = "sap-nano"


def load_model(
    name: str = DEFAULT_MODEL,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    compiled: bool = False,
) -> Model:
    """Loads a model.

    Args:
        name: a key of :data:`sap_ros.core.checkpoints.MODELS`: which architecture, and which weights.
        checkpoint: a file with other weights for that architecture.
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        image_size: side of a view in pixels, a multiple of 32; None takes the model's own.
        progress: called during a download, with the bytes so far and all bytes.
        compiled: see :class:`sap_ros.core.model.Model`.

    Raises:
        ValueError: an unknown name or device; a damaged file, or one of another architecture.
        OSError: a file that is not there, a download that failed.
    """
    import torch

    from sap_ros.core import checkpoints
    from sap_ros.core.model import Model
    from sap_ros.core.nano import EfficientNetLiteTrunk

    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from error
    sam = checkpoints.build_architecture(name, image_size)
    path = checkpoint or checkpoints.checkpoint_path(name, progress)
    weights = checkpoints.read_weights(path)
    checkpoints.check_architecture(sam, weights, f"{path} does not fit {name}")
    sam.load_state_dict(weights)
    if isinstance(sam.image_encoder.trunk, EfficientNetLiteTrunk):
        sam.image_encoder.trunk.fold()
    info = checkpoints.model_info(name)
    return Model(sam, name, chosen, info.fusion, info.weak_memory, compiled)
