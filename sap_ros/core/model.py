"""SAM 2 models: built from a configuration, loaded by name or from a file, run view by view."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sap_ros.core.download import Progress, cache_folder, download
from sap_ros.core.nano import EfficientNetLiteTrunk
from sap_ros.core.projection import Fusion

_PACKAGE = Path(__file__).parents[1]
_RELEASE = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"

# Held while the neck's positional encoding is exchanged: models of several sizes share it.
_NECK = threading.Lock()

# SAM 2's ImageNet mean and deviation.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be named.

    Attributes:
        config: configuration; one of SAM 2's own, or one under ``config/models/``.
        file: file name of the weights, in the package or on the release server.
        sha256, size: hash and bytes of a file to download; empty where the package ships it.
        fusion: how its views are best fused, see :class:`sap_ros.core.projection.Canvas`.
        weak_memory: memory is not to be relied on: of a mask, only what hangs together with what was
            pointed at is kept, and a click in the middle of where an object is expected carries it
            to the next panorama.
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
        "sap_nano.yaml", "sap_nano.safetensors", fusion="weighted", weak_memory=True
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
DEFAULT_MODEL = "sap-nano"

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


def _check_architecture(model: SAM2Base, weights: Mapping[str, Tensor], what: str) -> None:
    own = model.state_dict()
    faults = {
        "missing": [k for k in own if k not in weights],
        "unknown": [k for k in weights if k not in own],
        "of another shape": [k for k in own if k in weights and own[k].shape != weights[k].shape],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(k)} {name} (first {k[0]})" for name, k in faults.items() if k)
        raise ValueError(f"{what}: {told}")


@dataclass(frozen=True)
class Features:
    """What the image encoder makes of one view.

    Attributes:
        maps: feature maps, fine to coarse, each (h * w, 1, channels).
        sizes: their (h, w).
    """

    maps: list[Tensor]
    sizes: list[tuple[int, int]]


#: What has been seen of the objects, by SAM 2's names: conditioning views, and the others, by index.
Memory = dict[str, dict[int, dict[str, Any]]]


def empty_memory() -> Memory:
    """A memory bank that holds nothing."""
    return {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}


@dataclass(frozen=True)
class Decoded:
    """Masks of N objects in one view.

    Attributes:
        masks: (N, M, S / 4, S / 4) logits of the M candidates.
        qualities: (N, M) predicted IoU of each.
        best: (N, 1, S / 4, S / 4), the candidate of the highest quality.
        presence: (N, 1) logit of the object being in the view.
        remembered: what SAM 2 remembers of this view; without ``maskmem_features`` where its memory
            has not been encoded, see :func:`remember`.
        full: (N, 1, S, S), ``best`` in the view's size.
        prompted: points were given.
    """

    masks: Tensor
    qualities: Tensor
    best: Tensor
    presence: Tensor
    remembered: dict[str, Any]
    full: Tensor
    prompted: bool


def decode_view(
    sam: SAM2Base,
    features: Features,
    positions: list[Tensor],
    index: int,
    count: int,
    memory: Memory,
    points: dict[str, Tensor] | None,
    mask: Tensor | None = None,
    before: Tensor | None = None,
) -> Decoded:
    """Decodes one view of a sequence, as SAM 2's video predictor and its trainer do.

    Args:
        sam: the network.
        features: of the view, with a batch of N objects.
        positions: positional encodings, likewise.
        index: the view's place in the sequence.
        count: length of the sequence.
        memory: what came before; is not changed.
        points: ``point_coords`` (N, P, 2) and ``point_labels`` (N, P), with 2 and 3 for the corners
            of a box; None where nothing is pointed at.
        mask: (N, 1, S, S) in 0 to 1, the objects' masks as a prompt. Without points it is taken as
            it is; with them, they correct it.
        before: (N, 1, S / 4, S / 4), the logits that an earlier decoding found, which the points
            correct; 0 for objects of which none is known.

    A prompted view is decoded from its prompt alone.
    """
    # As SAM 2 limits the logits of a mask that is corrected.
    corrected = None if before is None else before.clamp(-32.0, 32.0)
    if points is not None and mask is not None:
        low = [side // 4 for side in mask.shape[-2:]]
        corrected = F.interpolate(mask, size=low, mode="area") * 20 - 10  # as SAM 2 writes its own
    out, heads, _, _ = sam._track_step(
        frame_idx=index,
        is_init_cond_frame=points is not None or mask is not None,
        current_vision_feats=features.maps,
        current_vision_pos_embeds=positions,
        feat_sizes=features.sizes,
        point_inputs=points,
        mask_inputs=mask if points is None else None,
        output_dict=memory,
        num_frames=count,
        track_in_reverse=False,
        prev_sam_mask_logits=corrected,
    )
    masks, _, qualities, best, full, out["obj_ptr"], presence = heads
    return Decoded(masks, qualities, best, presence, out, full, points is not None)


def remember(sam: SAM2Base, features: Features, decoded: Decoded) -> dict[str, Any]:
    """Encodes the memory of a view that was decoded; what SAM 2 reads of it in later ones."""
    sam._encode_memory_in_output(
        features.maps,
        features.sizes,
        decoded.prompted or None,
        True,
        decoded.full,
        decoded.presence,
        decoded.remembered,
    )
    return decoded.remembered


class _NoPositions(nn.Module):
    """Stands for a positional encoding where none is wanted; takes no memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(1).expand(x.shape)


_NO_POSITIONS = _NoPositions()


class Model:
    """A SAM 2 model on a device; encodes views. Views are square, of ``image_size`` pixels.

    Args:
        sam: the network.
        name: what to call it.
        device: a torch device.
        fusion, weak_memory: see :class:`ModelInfo`.
        compiled: the image encoder is compiled (``torch.compile``). Its input has one shape, so that it
            is compiled once; prompts and memory, whose lengths vary, go through as they are.
    """

    def __init__(
        self,
        sam: SAM2Base,
        name: str,
        device: str | torch.device = "cpu",
        fusion: Fusion = "max",
        weak_memory: bool = False,
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.sam = sam.to(self.device).eval()
        self.name, self.fusion, self.weak_memory = name, fusion, weak_memory
        self.image_size: int = sam.image_size
        self._bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.compiled = compiled
        self._forward_image = (
            torch.compile(self.sam.forward_image) if compiled else sam.forward_image
        )
        self._positions: list[Tensor] | None = None
        self._memory_positions: list[Tensor] | None = None

    def precision(self) -> AbstractContextManager[Any]:
        """bf16 autocast on a GPU that has it, else nothing: fp32."""
        return torch.autocast("cuda", torch.bfloat16) if self._bf16 else nullcontext()

    def resized(self, image_size: int) -> Model:
        """The same model, its weights shared, for views of another size.

        Raises:
            ValueError: a size that does not fit.
        """
        sam = build_architecture(self.name, image_size)
        sam.image_encoder = self.sam.image_encoder  # the same for all sizes
        sam.load_state_dict(self.sam.state_dict(), assign=True)
        return Model(sam, self.name, self.device, self.fusion, self.weak_memory, self.compiled)

    @torch.inference_mode()
    def encode(self, view: np.ndarray | Tensor) -> Features:
        """Encodes a view, (S, S, 3) RGB: uint8, or a tensor on the model's device, 0 to 255."""
        pixels = torch.from_numpy(view) if isinstance(view, np.ndarray) else view
        with self.precision():
            batch = normalize(pixels[None].to(self.device))
            with _NECK:
                out = self._forward_without_positions(batch)
                _, maps, _, sizes = self.sam._prepare_backbone_features(out)
                if self._positions is None:
                    self._positions = [self._position_encoding(maps[-1], sizes[-1])]
        return Features(maps, sizes)

    @torch.inference_mode()
    def remember(self, features: Features, decoded: Decoded) -> dict[str, Any]:
        """:func:`remember`, kept as SAM 2 keeps it: in bfloat16, the positional encodings once."""
        with self.precision():
            entry = remember(self.sam, features, decoded)
        if self._memory_positions is None:
            self._memory_positions = entry["maskmem_pos_enc"]
        pointer = entry["obj_ptr"]
        return {
            # Rounded as SAM 2 does, then in the type that is computed with.
            "maskmem_features": entry["maskmem_features"].to(torch.bfloat16).to(pointer.dtype),
            "maskmem_pos_enc": self._memory_positions,
            "obj_ptr": pointer,
        }

    def _forward_without_positions(self, batch: Tensor) -> dict[str, Any]:
        """SAM 2's ``forward_image``, less the positional encodings that it makes anew for every view.

        They are five times as large as the features, and all but the coarsest are never read.
        """
        neck = self.sam.image_encoder.neck
        own, neck.position_encoding = neck.position_encoding, _NO_POSITIONS
        try:
            return self._forward_image(batch)
        finally:
            neck.position_encoding = own

    def _position_encoding(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Of a feature map (h * w, 1, channels), likewise."""
        encoding = self.sam.image_encoder.neck.position_encoding
        made = encoding(features.permute(1, 2, 0).unflatten(2, size)).to(features.dtype)
        return made.flatten(2).permute(2, 0, 1)

    @property
    def positions(self) -> list[Tensor]:
        """Positional encoding of the coarsest feature map, the same for every view."""
        assert self._positions is not None, "encode a view first"
        return self._positions


def normalize(views: Tensor) -> Tensor:
    """RGB views (B, S, S, 3), 0 to 255, to SAM 2's input (B, 3, S, S) float32, on the same device."""
    mean = torch.tensor(_MEAN, device=views.device)
    std = torch.tensor(_STD, device=views.device)
    return ((views.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def load_model(
    name: str = DEFAULT_MODEL,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    progress: Progress | None = None,
    compiled: bool = False,
) -> Model:
    """Loads a model.

    Args:
        name: a key of :data:`MODELS`: which architecture, and which weights.
        checkpoint: a file with other weights for that architecture.
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        image_size: side of a view in pixels, a multiple of 32; None takes the model's own.
        progress: told of a download, as (bytes, all bytes).
        compiled: see :class:`Model`.

    Raises:
        ValueError: an unknown name or device; a damaged file, or one of another architecture.
        OSError: a file that is not there, a download that failed.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from error
    sam = build_architecture(name, image_size)
    path = checkpoint or checkpoint_path(name, progress)
    weights = read_weights(path)
    _check_architecture(sam, weights, f"{path} does not fit {name}")
    sam.load_state_dict(weights)
    if isinstance(sam.image_encoder.trunk, EfficientNetLiteTrunk):
        sam.image_encoder.trunk.fold()
    info = model_info(name)
    return Model(sam, name, place, info.fusion, info.weak_memory, compiled)
