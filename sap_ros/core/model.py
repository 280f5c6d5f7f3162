"""A SAM 2 network on a device, run view by view."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.fusion import Fusion

# Held while the neck's positional encoding is exchanged: models of several sizes share it.
_NECK = threading.Lock()

# SAM 2's video predictor clamps the mask logits that a further click corrects to this.
_MOST_FEEDBACK = 32.0

# SAM 2's ImageNet mean and deviation.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


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
        predicted_ious: (N, M) predicted IoU of each.
        best: (N, 1, S / 4, S / 4), the candidate with the highest predicted IoU.
        object_scores: (N, 1) logit of the object being in the view.
        remembered: what SAM 2 remembers of this view; without ``maskmem_features`` where its memory
            has not been encoded, see :func:`remember`.
        full: (N, 1, S, S), ``best`` in the view's size.
        prompted: points were given.
    """

    masks: Tensor
    predicted_ious: Tensor
    best: Tensor
    object_scores: Tensor
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
    previous: Tensor | None = None,
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
            of a box; None: there are none.
        mask: (N, 1, S, S) in 0 to 1, the objects' masks as a prompt. Without points it is taken as
            it is; with them, they correct it.
        previous: (N, 1, S / 4, S / 4) mask logits that the points correct, where no mask is given.

    A prompted view is decoded from its prompt alone, not from memory.
    """
    corrected = None
    if points is not None and previous is not None:
        corrected = previous.clamp(-_MOST_FEEDBACK, _MOST_FEEDBACK)
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
    masks, _, predicted_ious, best, full, out["obj_ptr"], scores = heads
    return Decoded(masks, predicted_ious, best, scores, out, full, points is not None)


def remember(sam: SAM2Base, features: Features, decoded: Decoded) -> dict[str, Any]:
    """Encodes the memory of a view that was decoded; what SAM 2 reads of it in later ones."""
    sam._encode_memory_in_output(
        features.maps,
        features.sizes,
        decoded.prompted or None,
        True,
        decoded.full,
        decoded.object_scores,
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
        fusion, weak_memory: see :class:`sap_ros.core.checkpoints.ModelInfo`.
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
