"""A SAM 2 model as four networks with tensors alone as inputs and outputs: what is exported to ONNX.

They cover SAM 2.1, sap-nano, EfficientTAM (no finer maps, no ages of pointers) and EdgeTAM (a memory is 512 tokens).
The memory bank stays outside: its entries are inputs of the memory attention. Numbers of objects, points,
memories and pointers are free; the side of a view is fixed. Rotary positions are written in real
arithmetic, for ONNX has no complex numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor, nn

from sap_ros.core.edge_tam import EdgeTAM, TokenRoPEAttention
from sap_ros.core.nano import ClickMapSAM2

# SAM 2's ImageNet mean and deviation.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize(views: Tensor) -> Tensor:
    """RGB views (B, S, S, 3), 0 to 255, to SAM 2's input (B, 3, S, S) float32, on the same device."""
    scale, offset = _statistics(views.device)
    return views.permute(0, 3, 1, 2).float() * scale + offset


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """By channel, what a pixel is multiplied by, and what is then added: (3, 1, 1) each.

    They are kept on the device, for a host waits when it makes a tensor of numbers.
    """
    with torch.inference_mode(False):  # they serve training, too
        mean, std = torch.tensor([_MEAN, _STD], device=device)[..., None, None]
        return 1 / (255 * std), -mean / std


class ImageEncoder(nn.Module):
    """Trunk, neck, and the mask decoder's two convolutions of the finer maps.

    Input: ``view`` (B, S, S, 3) uint8 RGB. Outputs, from fine to coarse: ``fine`` (B, C / 8, S / 4, S / 4),
    ``middle`` (B, C / 4, S / 8, S / 8), ``coarse`` (B, C, S / 16, S / 16); without the finer maps, ``coarse`` alone.
    """

    def __init__(self, sam: SAM2Base) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.finer = nn.ModuleList()
        if sam.use_high_res_features_in_sam:
            self.finer.extend([sam.sam_mask_decoder.conv_s0, sam.sam_mask_decoder.conv_s1])

    def forward(self, view: Tensor) -> tuple[Tensor, ...]:
        pixels = normalize(view).to(next(self.encoder.parameters()).dtype)
        *finer, coarse = self.encoder(pixels)["backbone_fpn"]
        return *(conv(map) for conv, map in zip(self.finer, finer, strict=True)), coarse


class MaskDecoder(nn.Module):
    """Prompt encoder and mask decoder, for N objects in one view.

    Inputs:
        fine, middle: of the image encoder, (1 or N, ...); if it has them.
        features: (1 or N, C, h, w). Of an object that is pointed at, the encoder's ``coarse``; of others,
            what the memory attention makes of it.
        points: (N, P, 2) float32, (u, v) in pixels of the view.
        labels: (N, P) int32: 1 on the object, 0 off it, 2 and 3 corners of a box, -1 nothing.
        mask: (N, 1, S / 4, S / 4) float32 logits of a mask that the points correct.
        has_mask: (N,) bool: the mask is one.

    Outputs:
        masks: (N, 4, S / 4, S / 4) logits: the answer to several points, then three to a single one.
        predicted_ious: (N, 4).
        pointers: (N, 4, C), what the memory bank keeps of each answer beside the memory.
        object_scores: (N, 1), logit of the object being in the view. At or below 0 it is absent, whatever
            the masks are.
    """

    no_memory: Tensor
    no_pointer: Tensor
    positions: Tensor

    def __init__(self, sam: SAM2Base) -> None:
        super().__init__()
        self.prompts, self.decoder = sam.sam_prompt_encoder, sam.sam_mask_decoder
        self.pointer = sam.obj_ptr_proj
        self.register_buffer("no_memory", sam.no_mem_embed.detach()[..., None].transpose(1, 2))
        self.register_buffer("no_pointer", sam.no_obj_ptr.detach())
        self.register_buffer("positions", sam.sam_prompt_encoder.get_dense_pe().detach())
        self.draw = sam.prompt_map if isinstance(sam, ClickMapSAM2) else None

    def half(self) -> MaskDecoder:
        """In float16, but for the points' positions, which it is too coarse for."""
        super().half()
        for part in ("pe_layer", "point_embeddings", "not_a_point_embed"):
            getattr(self.prompts, part).float()
        return self

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *finer, features, points, labels, mask, has_mask = inputs
        kind = features.dtype
        prompted = (labels.amax(1) >= 0)[:, None, None, None]
        has_mask = has_mask[:, None, None, None]
        features = features + prompted.to(kind) * self.no_memory
        if self.draw is not None:
            drawn = self.draw(points, labels, mask * has_mask.to(mask.dtype))
            mask, has_mask = torch.where(prompted, drawn, mask), has_mask | prompted
        tokens = self.prompts._embed_points(points, labels.float(), pad=True).to(kind)
        dense = torch.where(
            has_mask,
            self.prompts._embed_masks(mask.to(kind)),
            self.prompts.no_mask_embed.weight[..., None, None],
        )
        masks, ious, tokens, scores = self._masks(features + dense, tokens, finer)
        here = (scores > 0).to(kind)[..., None]
        pointers = here * self.pointer(tokens) + (1 - here) * self.no_pointer
        return masks.float(), ious.float(), pointers, scores.float()

    def _masks(
        self, features: Tensor, prompts: Tensor, finer: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """SAM 2's ``MaskDecoder.predict_masks``, broadcast over objects in place of repeated."""
        decoder, count = self.decoder, prompts.shape[0]
        own = torch.cat(
            [
                part.weight
                for part in (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens)
            ]
        )
        tokens = torch.cat([own[None].expand(count, -1, -1), prompts], 1)
        tokens, cells = decoder.transformer(features, self.positions, tokens)
        cells = cells.transpose(1, 2).unflatten(2, features.shape[-2:])
        if finer:
            fine, middle = finer
            first, norm, bend, second, last = decoder.output_upscaling
            cells = last(second(bend(norm(first(cells) + middle))) + fine)
        else:
            cells = decoder.output_upscaling(cells)
        answers = tokens[:, 2 : 2 + decoder.num_mask_tokens]
        weights = torch.stack(
            [head(answers[:, i]) for i, head in enumerate(decoder.output_hypernetworks_mlps)], 1
        )
        masks = (weights @ cells.flatten(2)).unflatten(2, cells.shape[-2:])
        ious = decoder.iou_prediction_head(tokens[:, 1])
        return masks, ious, answers, decoder.pred_obj_score_head(tokens[:, 0])


class MemoryAttention(nn.Module):
    """Features of a view, conditioned on what is remembered of N objects.

    Inputs:
        features: (1 or N, C, h, w), the encoder's ``coarse``.
        memories: (N, M, C_m, h, w) of views in which the object was seen, M >= 1; of EdgeTAM (N, M, C_m, tokens, 1).
        memory_ages: (M,) int64: 0 for a prompted view; for others how many views ago it was, 1 to 6.
        pointers: (N, K, C) of views in which the object was seen, K >= 0.
        pointer_ages: (K,) float32, how many views ago that was, divided by 15; not of EfficientTAM and EdgeTAM,
            which do not tell pointers of different ages apart.

    Output: ``conditioned`` (N, C, h, w).
    """

    positions: Tensor
    memory_positions: Tensor
    memory_times: Tensor

    def __init__(self, sam: SAM2Base) -> None:
        super().__init__()
        attention = sam.memory_attention
        self.side = sam.sam_image_embedding_size
        self.layers = nn.ModuleList(_Layer(layer, self.side) for layer in attention.layers)
        self.norm = attention.norm
        self.age = sam.obj_ptr_tpos_proj if sam.add_tpos_enc_to_obj_ptrs else None
        places = sam.image_encoder.neck.position_encoding
        grid = torch.zeros(1, 1, self.side, self.side, device=sam.no_mem_embed.device)
        self.register_buffer("positions", 0.1 * places(grid).flatten(2).transpose(1, 2))
        if isinstance(sam, EdgeTAM):
            within = sam.spatial_perceiver.positions()
        else:
            within = sam.memory_encoder.position_encoding(grid).flatten(2).transpose(1, 2)
        self.register_buffer("memory_positions", within.detach()[None])
        # By age: that of prompted views is the last.
        ages = sam.maskmem_tpos_enc.detach()[:, 0].roll(1, 0)
        self.register_buffer("memory_times", ages[None])

    def forward(
        self,
        features: Tensor,
        memories: Tensor,
        memory_ages: Tensor,
        pointers: Tensor,
        pointer_ages: Tensor | None = None,
    ) -> Tensor:
        kind = features.dtype
        x = features.flatten(2).transpose(1, 2) + self.positions
        spatial = memories.flatten(3).transpose(2, 3)  # (N, M, h * w or tokens, C_m)
        located = spatial + (self.memory_positions + self.memory_times[:, memory_ages])
        # A pointer is as many tokens as it is wider than a memory.
        width = spatial.shape[-1]
        parts = pointers.shape[-1] // width
        pointed = pointers.unflatten(2, (parts, width)).flatten(1, 2)
        dated = pointed
        if self.age is not None and pointer_ages is not None:
            ages = self.age(get_1d_sine_pe(pointer_ages, dim=self.age.in_features).to(kind))
            dated = pointed + ages[:, None].expand(-1, parts, -1).flatten(0, 1)
        for layer in self.layers:
            x = layer(x, located, spatial, dated, pointed)
        return self.norm(x).transpose(1, 2).unflatten(2, (self.side, self.side))


class _Layer(nn.Module):
    """A layer of SAM 2's memory attention."""

    def __init__(self, layer: MemoryAttentionLayer, side: int) -> None:
        super().__init__()
        known = (layer.pos_enc_at_attn, layer.pos_enc_at_cross_attn_queries)
        assert not any(known), "positions are expected at the keys of the cross attention alone"
        assert layer.pos_enc_at_cross_attn_keys
        self.layer = layer
        self.own = _RotaryAttention(layer.self_attn, side)
        self.cross = _RotaryAttention(layer.cross_attn_image, side)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, further_keys: Tensor, further_values: Tensor
    ) -> Tensor:
        """``keys`` and ``values`` (N, M, T, C_m) have places, the further ones (N, L, C_m) have none."""
        layer = self.layer
        y = layer.norm1(x)
        x = x + self.own(y, y[:, None], y[:, None])
        x = x + self.cross(layer.norm2(x), keys, values, further_keys, further_values)
        return x + layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))


# Cells of a view that attend to memory at a time, about: the weights of all would take half a gigabyte, of seven
# memories of 1024 px.
_CELLS = 1024


class _RotaryAttention(nn.Module):
    """SAM 2's ``RoPEAttention`` with a single head, in real arithmetic.

    SAM 2 rotates neighbouring channels as one complex number. Here the projections' rows are permuted so
    that real parts come first and imaginary parts after them: that changes no product of query and key.
    """

    cos: Tensor
    sin: Tensor
    key_cos: Tensor
    key_sin: Tensor

    def __init__(self, attention: RoPEAttention, side: int) -> None:
        super().__init__()
        assert attention.num_heads == 1, "one head is expected"
        channels = attention.internal_dim
        order = torch.cat([torch.arange(0, channels, 2), torch.arange(1, channels, 2)])
        self.query, self.key = (
            _permuted(attention.q_proj, order),
            _permuted(attention.k_proj, order),
        )
        self.value, self.out = attention.v_proj, attention.out_proj
        self.scale = 1 / math.sqrt(channels)
        device = attention.q_proj.weight.device
        angles = attention.compute_cis(end_x=side, end_y=side).to(device)
        key_angles = angles
        if isinstance(attention, TokenRoPEAttention):
            key_angles = attention.key_angles().to(device)
        for name, values in (("", angles), ("key_", key_angles)):
            self.register_buffer(f"{name}cos", values.real.contiguous())
            self.register_buffer(f"{name}sin", values.imag.contiguous())

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        further_keys: Tensor | None = None,
        further_values: Tensor | None = None,
    ) -> Tensor:
        """``x`` (N, h * w, C) attends to keys (N, M, T, C_k), and to keys without a place (N, L, C_k)."""
        query = _rotated(self.query(x), self.cos, self.sin)
        key = _rotated(self.key(keys), self.key_cos, self.key_sin).flatten(1, 2)
        value = self.value(values).flatten(1, 2)
        if further_keys is not None and further_values is not None:
            key = torch.cat([key, self.key(further_keys)], 1)
            value = torch.cat([value, self.value(further_values)], 1)
        key = key.transpose(1, 2)
        found = [
            torch.softmax((part * self.scale) @ key, -1) @ value
            for part in query.chunk(max(1, len(self.cos) // _CELLS), 1)
        ]
        return self.out(torch.cat(found, 1))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x`` (..., T, C) by the angles of its places, (T, C / 2)."""
    real, imaginary = x.chunk(2, -1)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)


def _permuted(linear: nn.Linear, order: Tensor) -> nn.Linear:
    other = nn.Linear(linear.in_features, linear.out_features, device=linear.weight.device)
    other.weight.data, other.bias.data = linear.weight.data[order], linear.bias.data[order]
    return other


class MemoryEncoder(nn.Module):
    """What is remembered of N objects in a view.

    Inputs:
        features: (1 or N, C, h, w), the encoder's ``coarse``.
        mask: (N, 1, any, any) float32 logits of the answer.
        from_points: (N,) bool: the answer is one to points.
        object_scores: (N, 1); not of EfficientTAM and EdgeTAM, which do not mark the memory of an absent object.

    Output: ``memory`` (N, C_m, h, w); of EdgeTAM (N, C_m, tokens, 1).
    """

    absent: Tensor | None
    positions: Tensor

    def __init__(self, sam: SAM2Base) -> None:
        super().__init__()
        self.encoder, self.size = sam.memory_encoder, sam.image_size
        self.scale, self.bias = sam.sigmoid_scale_for_mem_enc, sam.sigmoid_bias_for_mem_enc
        absent = sam.no_obj_embed_spatial
        self.register_buffer("absent", None if absent is None else absent.detach()[..., None, None])
        self.perceiver = sam.spatial_perceiver if isinstance(sam, EdgeTAM) else None
        if self.perceiver is not None:
            side = sam.sam_image_embedding_size
            grid = torch.zeros(1, 1, side, side, device=sam.no_mem_embed.device)
            self.register_buffer("positions", sam.memory_encoder.position_encoding(grid).detach())

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        from_points: Tensor,
        object_scores: Tensor | None = None,
    ) -> Tensor:
        kind, encoder = features.dtype, self.encoder
        mask = F.interpolate(mask, size=(self.size, self.size), mode="bilinear")
        sure = from_points[:, None, None, None]
        mask = torch.where(sure, (mask > 0).to(mask.dtype), torch.sigmoid(mask))
        drawn = encoder.mask_downsampler((mask * self.scale + self.bias).to(kind))
        memory = encoder.out_proj(encoder.fuser(encoder.pix_feat_proj(features) + drawn))
        if self.absent is not None and object_scores is not None:
            memory = memory + (object_scores <= 0).to(kind)[..., None, None] * self.absent
        if self.perceiver is not None:
            memory = self.perceiver.tokens(memory, self.positions).transpose(1, 2)[..., None]
        return memory
