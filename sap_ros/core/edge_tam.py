"""EdgeTAM: SAM 2 for phones, with a RepViT trunk and a memory of a few learned tokens a view.

What ``config/models/edge_tam.yaml`` names in place of SAM 2's own: the trunk, the network whose memories go
through a perceiver, and the cross attention that reads them. Source: C. Zhou et al., "EdgeTAM: On-Device
Track Anything Model", arXiv 2501.07256; A. Wang et al., "RepViT", arXiv 2307.09283. Parameters are named as in
the authors' checkpoint.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sap_ros.core.nano import PretrainedTrunk


class EdgeTAM(SAM2Base):
    """SAM 2 whose memory of a view is a fixed number of tokens.

    They are given to SAM 2's memory bank as a map that is one token wide: (B, C, tokens, 1).

    Args:
        spatial_perceiver: makes tokens of the memory encoder's map.
    """

    def __init__(self, *args: Any, spatial_perceiver: SpatialPerceiver, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spatial_perceiver = spatial_perceiver

    def _encode_new_memory(self, *args: Any, **kwargs: Any) -> tuple[Tensor, list[Tensor]]:
        memory, positions = super()._encode_new_memory(*args, **kwargs)
        tokens, places = self.spatial_perceiver(memory, positions[-1])
        return tokens.transpose(1, 2)[..., None], [places.transpose(1, 2)[..., None]]


class SpatialPerceiver(nn.Module):
    """Summarises a memory map as tokens: some of the whole map, and one of each of its regions.

    Args:
        dim: channels.
        depth: number of layers; both kinds of tokens go through the same.
        num_latents: tokens of the whole map.
        num_latents_2d: tokens of regions, a square number: there are so many regions.
        position_encoding: of the regions' tokens.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_latents: int,
        num_latents_2d: int,
        position_encoding: nn.Module,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.latents_2d = nn.Parameter(torch.randn(num_latents_2d, dim))
        self._regions = math.isqrt(num_latents_2d)  # along a side
        self.position_encoding = position_encoding
        self.layers = nn.ModuleList(_PerceiverLayer(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens (B, T, C) of a map (B, C, h, w) and their positions, those of the whole map first.

        Args:
            memory: h and w are multiples of the regions' number along a side.
            positions: positional encoding of the map, of the same shape.
        """
        return self.tokens(memory, positions), self.positions().expand(memory.shape[0], -1, -1)

    def tokens(self, memory: Tensor, positions: Tensor) -> Tensor:
        """The tokens alone. No shape but that of the map is fixed by tracing (for export)."""
        whole = self.latents.expand(memory.shape[0], -1, -1)
        cells, places = (part.flatten(2).transpose(1, 2) for part in (memory, positions))
        for layer in self.layers:
            whole = layer(whole, cells, places)
        side = self._regions
        # (B, C, side, size, side, size) to a row for each region.
        cut = memory.unflatten(3, (side, -1)).unflatten(2, (side, -1))
        regions = cut.permute(0, 2, 4, 3, 5, 1).flatten(0, 2).flatten(1, 2)
        local = self.latents_2d.expand(memory.shape[0], -1, -1).flatten(0, 1)[:, None]
        for layer in self.layers:
            local = layer(local, regions)
        return self.norm(torch.cat([whole, local.unflatten(0, (-1, side**2))[:, :, 0]], 1))

    def positions(self) -> Tensor:
        """Positional encoding of the tokens, (1, T, C): none of those of the whole map."""
        grid = self.latents_2d.new_zeros(1, 1, self._regions, self._regions)
        where = self.position_encoding(grid).flatten(2).transpose(1, 2).to(grid.dtype)
        return torch.cat([torch.zeros_like(self.latents)[None], where], 1)


class _PerceiverLayer(nn.Module):
    """Tokens attend to the map, then to each other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = _MapAttention(dim)
        self.ff = _feed_forward(dim)
        self.self_attn = _TokenAttention(dim)
        self.self_ff = _feed_forward(dim)

    def forward(self, tokens: Tensor, cells: Tensor, places: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attn(tokens, cells, places)
        tokens = tokens + self.ff(tokens)
        tokens = tokens + self.self_attn(tokens)
        return tokens + self.self_ff(tokens)


class _Attention(nn.Module):
    """Attention with a single head, and without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def attend(self, tokens: Tensor, cells: Tensor, places: Tensor | None = None) -> Tensor:
        """Tokens (B, T, C) attend to cells (B, K, C), whose places are added to keys and values."""
        key, value = self.to_kv(cells).chunk(2, -1)
        if places is not None:
            key, value = key + places, value + places
        return self.to_out(F.scaled_dot_product_attention(self.to_q(tokens), key, value))


class _TokenAttention(_Attention):
    """Tokens attend to each other."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        return self.attend(tokens, tokens)


class _MapAttention(_Attention):
    """Tokens attend to the cells of a map."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm_x, self.norm_latents = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, cells: Tensor, places: Tensor | None) -> Tensor:
        return self.attend(self.norm_latents(tokens), self.norm_x(cells), places)


def _feed_forward(dim: int, ratio: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, ratio * dim, bias=False),
        nn.GELU(),
        nn.Linear(ratio * dim, dim, bias=False),
    )


class TokenRoPEAttention(RoPEAttention):
    """SAM 2's rotary cross attention, to memories of which only the regions' tokens have a place.

    Args:
        global_tokens: tokens of the whole map in a view's memory, see :class:`SpatialPerceiver`.
        regions: the regions' number along a side.
        args, kwargs: as for SAM 2's.
    """

    def __init__(self, *args: Any, global_tokens: int, regions: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._global_tokens, self._regions = global_tokens, regions
        self._angles: dict[tuple[int, torch.device], Tensor] = {}

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """``q`` (B, h * w, C) attends to ``k``, ``v`` (B, tokens, C_m), the last of which are pointers."""
        q, k, v = (
            self._separate_heads(project(x), self.num_heads)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        side = math.isqrt(q.shape[-2])
        q = self._rotated(q, side)
        memories, pointers = k.split([k.shape[-2] - num_k_exclude_rope, num_k_exclude_rope], -2)
        views = memories.unflatten(-2, (-1, self._global_tokens + self._regions**2))
        whole, local = views.split([self._global_tokens, self._regions**2], -2)
        local = self._rotated(local.flatten(1, 2), self._regions).view_as(local)
        k = torch.cat([torch.cat([whole, local], -2).flatten(-3, -2), pointers], -2)
        dropout = self.dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(self._recombine_heads(out))

    def key_angles(self) -> Tensor:
        """(T, C / 2) complex, by which the T tokens of a view's memory are rotated: those of the whole map by none."""
        local = self.compute_cis(end_x=self._regions, end_y=self._regions)
        return torch.cat([torch.ones_like(local[:1]).expand(self._global_tokens, -1), local])

    def _rotated(self, x: Tensor, side: int) -> Tensor:
        """``x`` (B, any, side * side, C), rotated by the places of a square grid."""
        key = side, x.device
        if key not in self._angles:
            with torch.inference_mode(False):  # they are kept, also for training
                self._angles[key] = self.compute_cis(end_x=side, end_y=side).to(x.device)
        return apply_rotary_enc(x, x[:, :, :0], self._angles[key])[0]


class RepViT(PretrainedTrunk):
    """RepViT-M1 without its head, as a trunk for SAM 2's ``FpnNeck``.

    Input (B, 3, S, S), S a multiple of 32; output four maps at strides 4, 8, 16 and 32 with 48, 96, 192 and
    384 channels. Names of parameters are those of timm's ``repvit_m1`` as a feature extractor.
    """

    _WIDTHS, _DEPTHS = (48, 96, 192, 384), (2, 2, 14, 2)

    def __init__(self) -> None:
        super().__init__()
        first = self._WIDTHS[0]
        stem = {
            "conv1": _ConvNorm(3, first // 2, 3, stride=2),
            "act1": nn.GELU(),
            "conv2": _ConvNorm(first // 2, first, 3, stride=2),
        }
        stages = {
            f"stages_{i}": _Stage(self._WIDTHS[max(i - 1, 0)], width, depth)
            for i, (width, depth) in enumerate(zip(self._WIDTHS, self._DEPTHS, strict=True))
        }
        self.body = nn.ModuleDict({"stem": nn.Sequential(OrderedDict(stem)), **stages})
        self.channel_list = list(reversed(self._WIDTHS))

    def forward(self, x: Tensor) -> list[Tensor]:
        stem, *stages = self.body.values()
        x = stem(x)
        features = []
        for stage in stages:
            x = stage(x)
            features.append(x)
        return features

    def fold(self) -> None:
        """See :meth:`sap_ros.core.nano.PretrainedTrunk.fold`.

        Each token mixer is merged into one convolution; the memory format is channels last.
        """
        self.eval()
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, (_ConvNorm, _TokenMixer)):
                    setattr(module, name, child.folded())
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))

    def folded(self) -> nn.Conv2d:
        return fuse_conv_bn_eval(self.c, self.bn)


class _TokenMixer(nn.Module):
    """Depthwise: a 3x3 convolution, a 1x1 convolution and the identity, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _ConvNorm(width, width, 3, groups=width)
        self.conv1 = _ConvNorm(width, width, 1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv1(x) + x

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        whole, point = self.conv.folded(), self.conv1.folded()
        assert whole.bias is not None
        assert point.bias is not None
        whole.weight[:, :, 1, 1] += point.weight[:, :, 0, 0] + 1
        whole.bias += point.bias
        return whole


class _SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = (width // 4 + 4) // 8 * 8  # a quarter, rounded to a multiple of 8
        self.fc1, self.fc2 = nn.Conv2d(width, narrow, 1), nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))


class _ChannelMixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _ConvNorm(width, 2 * width), _ConvNorm(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, squeeze: bool) -> None:
        super().__init__()
        self.token_mixer = _TokenMixer(width)
        self.se = _SqueezeExcite(width) if squeeze else nn.Identity()
        self.channel_mixer = _ChannelMixer(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.se(self.token_mixer(x)))


class _Stage(nn.Sequential):
    """Halves the map where the width changes; every other block has squeeze and excitation."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        layers: dict[str, nn.Module] = {}
        if inputs != width:
            halve = {
                "pre_block": _Block(inputs, squeeze=False),
                "spatial_downsample": _ConvNorm(inputs, inputs, 3, stride=2, groups=inputs),
                "channel_downsample": _ConvNorm(inputs, width),
                "ffn": _ChannelMixer(width),
            }
            layers["downsample"] = nn.Sequential(OrderedDict(halve))
        blocks = [_Block(width, squeeze=i % 2 == 0) for i in range(depth)]
        layers["blocks"] = nn.Sequential(*blocks)
        super().__init__(OrderedDict(layers))
