"""SAM 2's network in torch: encodes a view, decodes objects in it, encodes what is remembered of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sap_ros.core.graphs import normalize

# Held while the neck's positional encoding is exchanged: models of several sizes share it.
_NECK = threading.Lock()

# SAM 2's video predictor clamps the mask logits that a further click corrects to this.
_MOST_FEEDBACK = 32.0


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
        full: (N, 1, S, S), ``best`` in the view's size; or smaller, where the memory encoder resizes it.
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
            of a box; None where nothing is pointed at.
        mask: (N, 1, S, S) in 0 to 1, the objects' masks as a prompt. Without points it is taken as
            it is; with them, they correct it.
        previous: (N, 1, S / 4, S / 4) mask logits that the points correct, where no mask is given.

    A prompted view is decoded from its prompt alone, not from memory.
    """
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
        prev_sam_mask_logits=correction(points, mask, previous),
    )
    masks, _, predicted_ious, best, full, out["obj_ptr"], scores = heads
    return Decoded(masks, predicted_ious, best, scores, out, full, points is not None)


def correction(
    points: dict[str, Tensor] | None, mask: Tensor | None, previous: Tensor | None
) -> Tensor | None:
    """The mask logits (N, 1, S / 4, S / 4) that points correct; see :func:`decode_view`."""
    if points is None:
        return None
    if mask is not None:
        low = [side // 4 for side in mask.shape[-2:]]
        return F.interpolate(mask, size=low, mode="area") * 20 - 10  # as SAM 2 writes its own
    return None if previous is None else previous.clamp(-_MOST_FEEDBACK, _MOST_FEEDBACK)


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


class TorchNetwork:
    """A SAM 2 network on a torch device; one view at a time.

    On a GPU the host never waits in here, once a first view has gone through: it only queues work.

    Args:
        sam: the network, on its device.
        compiled: the image encoder is compiled (``torch.compile``). Its input has one shape, so that it
            is compiled once. Prompts and memory, whose lengths vary, go through as they are: SAM 2
            attends to padding points as well, so that padding them would change the masks.
    """

    def __init__(self, sam: SAM2Base, compiled: bool = False) -> None:
        self._sam, self._device = sam, sam.device
        self._bf16 = self._device.type == "cuda" and torch.cuda.is_bf16_supported()
        self._forward_image = torch.compile(sam.forward_image) if compiled else sam.forward_image
        self._positions: list[Tensor] | None = None
        self._memory_positions: list[Tensor] | None = None

    def encode(self, view: np.ndarray | Tensor) -> Features:
        """See :meth:`sap_ros.core.model.Model.encode`."""
        pixels = torch.from_numpy(view) if isinstance(view, np.ndarray) else view
        with self._precision():
            batch = normalize(pixels[None].to(self._device, non_blocking=True))
            with _NECK:
                out = self._forward_without_positions(batch)
                _, maps, _, sizes = self._sam._prepare_backbone_features(out)
                if self._positions is None:
                    self._positions = [self._position_encoding(maps[-1], sizes[-1])]
        return Features(maps, sizes)

    def decode(
        self,
        features: Features,
        index: int,
        count: int,
        memory: Memory,
        points: dict[str, Tensor] | None,
        mask: Tensor | None,
        previous: Tensor | None,
    ) -> Decoded:
        """See :meth:`sap_ros.core.model.Model.decode`."""
        assert self._positions is not None, "encode a view first"
        positions, objects = self._positions, 1 if points is None else len(points["point_labels"])
        if objects > 1:
            positions, maps = (
                [part.expand(-1, objects, -1) for part in parts]
                for parts in (positions, features.maps)
            )
            features = Features(maps, features.sizes)
        with self._precision():
            return decode_view(
                self._sam, features, positions, index, count, memory, points, mask, previous
            )

    def remember(self, features: Features, decoded: Decoded) -> dict[str, Any]:
        """See :meth:`sap_ros.core.model.Model.remember`."""
        with self._precision():
            entry = remember(self._sam, features, decoded)
        if self._memory_positions is None:
            self._memory_positions = entry["maskmem_pos_enc"]
        pointer = entry["obj_ptr"]
        return {
            "maskmem_features": as_kept(entry["maskmem_features"], pointer.dtype),
            "maskmem_pos_enc": self._memory_positions,
            "obj_ptr": pointer,
        }

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """See :meth:`sap_ros.core.model.Model.side_by_side`: one after the other."""
        for work in works:
            work()

    def _precision(self) -> AbstractContextManager[Any]:
        """bf16 autocast on a GPU that has it, else nothing: fp32."""
        return torch.autocast("cuda", torch.bfloat16) if self._bf16 else nullcontext()

    def _forward_without_positions(self, batch: Tensor) -> dict[str, Any]:
        """SAM 2's ``forward_image``, less the positional encodings that it makes anew for every view.

        They are five times as large as the features, and all but the coarsest are never read.
        """
        neck = self._sam.image_encoder.neck
        own, neck.position_encoding = neck.position_encoding, _NO_POSITIONS
        try:
            return self._forward_image(batch)
        finally:
            neck.position_encoding = own

    def _position_encoding(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Of a feature map (h * w, 1, channels), likewise."""
        encoding = self._sam.image_encoder.neck.position_encoding
        made = encoding(features.permute(1, 2, 0).unflatten(2, size)).to(features.dtype)
        return made.flatten(2).permute(2, 0, 1)


def as_kept(memory: Tensor, kind: torch.dtype) -> Tensor:
    """A memory as SAM 2 keeps it: rounded to bfloat16, then in the type that is computed with."""
    return memory.to(torch.bfloat16).to(kind)
