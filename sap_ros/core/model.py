"""SAM 2 models: built from a configuration, loaded from a file or by name, run view by view."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

_MEAN = torch.tensor([0.485, 0.456, 0.406])
_STD = torch.tensor([0.229, 0.224, 0.225])


def normalize(views: Tensor) -> Tensor:
    """RGB views (B, S, S, 3) uint8 to SAM 2's input (B, 3, S, S) float32, on the same device."""
    mean, std = _MEAN.to(views.device), _STD.to(views.device)
    return ((views.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def build_architecture(name: str, image_size: int | None = None) -> SAM2Base:
    path = Path(__file__).parents[2] / "config" / "models" / f"{name}.yaml"
    config = OmegaConf.load(path)
    if image_size:
        config.model.image_size = image_size
    return instantiate(config.model, _recursive_=True)
