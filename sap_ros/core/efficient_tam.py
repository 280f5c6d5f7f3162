"""EfficientTAM: SAM 2 with a plain vision transformer as its image encoder, in one resolution.

Trunk and neck, which ``config/models/efficient_tam.yaml`` names in place of SAM 2's own; the rest is SAM 2,
whose mask decoder then sees no finer maps. Source: Y. Xiong et al., "Efficient Track Anything", arXiv
2411.18933; the trunk is that of Y. Li et al., "Exploring Plain Vision Transformer Backbones for Object
Detection", arXiv 2203.16527. Parameters are named as in the authors' checkpoints.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.backbones.utils import PatchEmbed
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn


class PlainViT(nn.Module):
    """A vision transformer without stages; most of its blocks attend within windows.

    Input (B, 3, S, S), S a multiple of 16; output one map (B, width, S / 16, S / 16), in a list.

    Args:
        width: channels.
        heads: attention heads of each block.
        depth: number of blocks.
        global_blocks: blocks that attend to the whole image.
        window: side of the others' windows, in patches.
        pretrained_side: side of the image that the position embedding was trained for, in patches; it is
            interpolated to others.
    """

    PATCH = 16  # pixels

    def __init__(
        self,
        width: int,
        heads: int,
        depth: int,
        global_blocks: tuple[int, ...],
        window: int,
        pretrained_side: int,
    ) -> None:
        super().__init__()
        patch = (self.PATCH, self.PATCH)
        self.patch_embed = PatchEmbed(patch, patch, padding=(0, 0), embed_dim=width)
        # The first is that of a class token, which the checkpoints have and nothing here reads.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pretrained_side**2, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            MultiScaleBlock(width, width, heads, window_size=0 if i in global_blocks else window)
            for i in range(depth)
        )
        self.channel_list = [width]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)  # (B, h, w, width)
        x = x + self._position_embedding(x.shape[1], x.shape[2])
        for block in self.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]

    def _position_embedding(self, height: int, width: int) -> Tensor:
        """(1, height, width, channels)."""
        places = self.pos_embed[:, 1:]
        side = math.isqrt(places.shape[1])
        grid = places.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if (height, width) != (side, side):
            grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)


class ViTNeck(nn.Module):
    """Brings the trunk's only map to SAM 2's width.

    Args:
        position_encoding: of the map.
        d_model: channels of the output.
        backbone_channel_list: those of the trunk, a list of one.
    """

    def __init__(
        self, position_encoding: nn.Module, d_model: int, backbone_channel_list: list[int]
    ) -> None:
        super().__init__()
        self.position_encoding, self.d_model = position_encoding, d_model
        self.backbone_channel_list = backbone_channel_list
        (channels,) = backbone_channel_list
        layers: dict[str, nn.Module] = {
            "conv_1x1": nn.Conv2d(channels, d_model, 1, bias=False),
            "norm_0": LayerNorm2d(d_model),
            "conv_3x3": nn.Conv2d(d_model, d_model, 3, padding=1, bias=False),
            "norm_1": LayerNorm2d(d_model),
        }
        self.convs = nn.ModuleList([nn.Sequential(OrderedDict(layers))])

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        features = self.convs[0](maps[0])
        return [features], [self.position_encoding(features).to(features.dtype)]
