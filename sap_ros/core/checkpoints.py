"""The models that can be named, their architectures, and their weights: downloaded, read and checked."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sap_ros.core.download import Progress, cache_folder, download
from sap_ros.core.fusion import Fusion

_PACKAGE = Path(__file__).parents[1]
# Where the authors publish their checkpoints.
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_EFFICIENT_TAM = "https://huggingface.co/yunyangx/efficient-track-anything/resolve/main"
_EDGE_TAM = (
    "https://raw.githubusercontent.com/facebookresearch/EdgeTAM/"
    "7711e012a30a2402c4eaab637bdb00a521302c91/checkpoints"
)


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be named.

    Attributes:
        config: configuration; one of SAM 2's own, or one under ``config/models/``.
        file: file name of the weights, in the package or in the cache.
        licence: of the weights; ``its card``: the model card lists the data and their licences.
        speed: images per second on an A100, as published by the authors; 0 if they publish none.
        source: where it is published.
        url: address of the weights; empty if they are in the package.
        sha256, size: hash and bytes of a file to download.
        settings: values of the configuration's top-level keys for this model.
        size_step: the side of a view must be a multiple of this, in pixels.
        fusion: how its views are best fused, see :class:`sap_ros.core.fusion.Canvas`.
        weak_memory: the model's memory is not to be relied on: of a mask, only the connected parts
            are kept that contain a prompted direction, and clicks that are moved along with an object
            carry it to the next panorama.
        faster_in_torch: on a CPU torch runs it in less time than ONNX Runtime, see `sap models --measure`;
            the backend ``auto`` goes by that.
    """

    config: str
    file: str
    licence: str
    speed: float = 0.0
    source: str = ""
    url: str = ""
    sha256: str = ""
    size: int = 0
    settings: Mapping[str, int] = field(default_factory=dict)
    size_step: int = 32
    fusion: Fusion = "max"
    weak_memory: bool = False
    faster_in_torch: bool = False


def _sam2(config: str, file: str, speed: float, sha256: str, size: int) -> ModelInfo:
    return ModelInfo(
        config,
        file,
        "Apache-2.0",
        speed,
        "sam2 README",
        f"{_SAM2}/{file}",
        sha256,
        size,
    )


def _efficient_tam(
    file: str, speed: float, sha256: str, size: int, width: int, heads: int, side: int
) -> ModelInfo:
    return ModelInfo(
        "efficient_tam.yaml",
        file,
        "Apache-2.0",
        speed,
        "arXiv 2411.18933" if speed else "",
        f"{_EFFICIENT_TAM}/{file}",
        sha256,
        size,
        settings={"width": width, "heads": heads, "side": side},
        faster_in_torch=True,
    )


def _nano(side: int) -> ModelInfo:
    # Its memory errs in some views; their mean is right where their maximum is not.
    return ModelInfo(
        "sap_nano.yaml",
        "sap_nano.safetensors",
        "its card",
        settings={"side": side},
        fusion="weighted",
        weak_memory=True,
    )


MODELS: dict[str, ModelInfo] = {
    "sap-nano": _nano(side=320),
    "sap-micro": _nano(side=256),  # the same weights
    "efficienttam-ti-512": _efficient_tam(
        "efficienttam_ti_512x512.pt",
        0.0,
        "7d4d652a465f0081391050932f45d8a66768ccc99c8ea393ce8a5927e83f3b9b",
        71_620_052,
        width=192,
        heads=3,
        side=512,
    ),
    "efficienttam-s-512": _efficient_tam(
        "efficienttam_s_512x512.pt",
        0.0,
        "67b5840012737ed2c94a4cb8787c5c1b27b3a946045d2e602e65ef77230b6085",
        136_379_145,
        width=384,
        heads=6,
        side=512,
    ),
    "efficienttam-ti": _efficient_tam(
        "efficienttam_ti.pt",
        96.2,
        "acbb17b28cca1f860acee09c9ecb6efdb732080dc7a85a07292c31813175fa7d",
        71_616_316,
        width=192,
        heads=3,
        side=1024,
    ),
    "efficienttam-s": _efficient_tam(
        "efficienttam_s.pt",
        85.0,
        "2b572be30d9e96ee29c8d785fe157c6b079ede7d56fbc8a3671d4120e63c89cd",
        136_375_868,
        width=384,
        heads=6,
        side=1024,
    ),
    "edgetam": ModelInfo(
        "edge_tam.yaml",
        "edgetam.pt",
        "Apache-2.0",
        150.9,
        "EdgeTAM README",
        f"{_EDGE_TAM}/edgetam.pt",
        "ed2d4850b8792c239689b043c47046ec239b6e808a3d9b6ae676c803fd8780df",
        56_116_523,
        size_step=256,  # a memory of 16x16 regions, at a sixteenth of the resolution
    ),
    "sam2.1-tiny": _sam2(
        "sam2.1_hiera_t.yaml",
        "sam2.1_hiera_tiny.pt",
        91.2,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        156_008_466,
    ),
    "sam2.1-small": _sam2(
        "sam2.1_hiera_s.yaml",
        "sam2.1_hiera_small.pt",
        84.8,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
    ),
    "sam2.1-base-plus": _sam2(
        "sam2.1_hiera_b+.yaml",
        "sam2.1_hiera_base_plus.pt",
        64.1,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
    ),
    "sam2.1-large": _sam2(
        "sam2.1_hiera_l.yaml",
        "sam2.1_hiera_large.pt",
        39.5,
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
        image_size: side of a view in pixels, a multiple of ``ModelInfo.size_step``; None takes the
            configuration's.

    Raises:
        ValueError: an unknown name, or a size that does not fit.
    """
    info = model_info(name)
    config = _config(info)
    if image_size is not None:
        if image_size % info.size_step or not 64 <= image_size <= 2048:
            raise ValueError(
                f"image_size is {image_size}; for {name} it must be a multiple of {info.size_step}, 64 to 2048"
            )
        config.model.image_size = image_size
    model = instantiate(OmegaConf.merge(_POSTPROCESSING, config.model), _recursive_=True)
    assert isinstance(model, SAM2Base)
    return model


def input_side(info: ModelInfo) -> int:
    """The side of a model's views, in pixels, unless another is asked for."""
    return int(_config(info).model.image_size)


def _config(info: ModelInfo) -> DictConfig:
    """A model's configuration, with its settings."""
    folders = [folder / "models" for folder in (_PACKAGE / "config", _PACKAGE.parent / "config")]
    own = [folder / info.config for folder in folders if (folder / info.config).exists()]
    path = (
        own[0] if own else Path(str(resources.files("sam2"))) / "configs" / "sam2.1" / info.config
    )
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    config.update(info.settings)
    OmegaConf.resolve(config)
    return config


def checkpoint_path(name: str, progress: Progress | None = None) -> Path:
    """The file with a named model's weights, downloaded to the cache when it is not there.

    Raises:
        ValueError: an unknown name, or a download that is not the expected file.
        OSError: it could not be downloaded.
    """
    info = model_info(name)
    if not info.url:
        return packaged_weights(info)
    return download(info.url, cache_folder() / info.file, info.sha256, info.size, progress)


def packaged_weights(info: ModelInfo) -> Path:
    """The file of a model that the package ships."""
    return _PACKAGE / "data" / "models" / info.file


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
