"""The models that can be named, their architectures, and their weights: downloaded, read and checked."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sap_ros.core.download import Progress, cache_folder, download
from sap_ros.core.fusion import Fusion

_PACKAGE = Path(__file__).parents[1]
_RELEASE = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be named.

    Attributes:
        config: configuration; one of SAM 2's own, or one under ``config/models/``.
        file: file name of the weights, in the package or on the release server.
        sha256, size: hash and bytes of a file to download; empty where the package ships it.
        fusion: how its views are best fused, see :class:`sap_ros.core.fusion.Canvas`.
        weak_memory: the model's memory is not to be relied on: of a mask, only the connected parts
            are kept that contain a prompted direction, and clicks that are moved along with an object
            carry it to the next panorama.
    """

    config: str
    file: str
    sha256: str = ""
    size: int = 0
    fusion: Fusion = "max"
    weak_memory: bool = False


MODELS: dict[str, ModelInfo] = {
    # Its memory errs in some views; their mean is right where their maximum is not.
    "sap-nano": ModelInfo(
        "sap_nano.yaml",
        "sap_nano.safetensors",
        fusion="weighted",
        weak_memory=True,
    ),
    # The same architecture, trained without data for non-commercial or research use alone.
    "sap-nano-permissive": ModelInfo(
        "sap_nano.yaml",
        "sap_nano_permissive.safetensors",
        fusion="weighted",
        weak_memory=True,
    ),
    "sam2.1-tiny": ModelInfo(
        "sam2.1_hiera_t.yaml",
        "sam2.1_hiera_tiny.pt",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        156_008_466,
    ),
    "sam2.1-small": ModelInfo(
        "sam2.1_hiera_s.yaml",
        "sam2.1_hiera_small.pt",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
    ),
    "sam2.1-base-plus": ModelInfo(
        "sam2.1_hiera_b+.yaml",
        "sam2.1_hiera_base_plus.pt",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
    ),
    "sam2.1-large": ModelInfo(
        "sam2.1_hiera_l.yaml",
        "sam2.1_hiera_large.pt",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        898_083_611,
    ),
}

# What SAM 2's build_sam.py sets for its video predictor beside the configuration file; a configuration
# of ours may set it otherwise.
_POSTPROCESSING = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}


def model_info(name: str) -> ModelInfo:
    """The named model; ValueError that lists the names there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}") from None


def build_architecture(name: str, image_size: int | None = None) -> SAM2Base:
    """A named model with random weights.

    Args:
        name: a key of :data:`MODELS`.
        image_size: side of a view in pixels, a multiple of 32; None takes the configuration's.

    Raises:
        ValueError: an unknown name, or a size that does not fit.
    """
    file = model_info(name).config
    ours = [
        folder / "models" / file for folder in (_PACKAGE / "config", _PACKAGE.parent / "config")
    ]
    path = next((p for p in ours if p.exists()), None)
    if path is None:
        path = Path(str(resources.files("sam2"))) / "configs" / "sam2.1" / file
    config = OmegaConf.load(path)
    if image_size is not None:
        if image_size % 32 or not 64 <= image_size <= 2048:
            raise ValueError(f"image_size is {image_size}; it must be a multiple of 32, 64 to 2048")
        config.model.image_size = image_size
    model = instantiate(OmegaConf.merge(_POSTPROCESSING, config.model), _recursive_=True)
    assert isinstance(model, SAM2Base)
    return model


def checkpoint_path(name: str, progress: Progress | None = None) -> Path:
    """The file with a named model's weights, downloaded to the cache when it is not there.

    Raises:
        ValueError: an unknown name, or a download that is not the expected file.
        OSError: it could not be downloaded.
    """
    info = model_info(name)
    if not info.sha256:
        return _PACKAGE / "data" / "models" / info.file
    path = cache_folder() / info.file
    return download(f"{_RELEASE}/{info.file}", path, info.sha256, info.size, progress)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a ``.safetensors`` file, or of a SAM 2 ``.pt`` file (no code in it is run).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not such a file, or holds code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; a checkpoint is a .pt or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than weights, or is damaged, and is not loaded: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is truncated or no checkpoint: {reason}") from error
    weights = state.get("model", state) if isinstance(state, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"{path} holds no weights; a SAM 2 checkpoint has them under 'model'")
    return dict(weights)


def check_architecture(model: SAM2Base, weights: Mapping[str, Tensor], what: str) -> None:
    own = model.state_dict()
    faults = {
        "missing": [k for k in own if k not in weights],
        "unknown": [k for k in weights if k not in own],
        "of another shape": [k for k in own if k in weights and own[k].shape != weights[k].shape],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(k)} {name} (first {k[0]})" for name, k in faults.items() if k)
        raise ValueError(f"{what}: {listed}")
