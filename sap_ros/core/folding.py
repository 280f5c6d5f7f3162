"""Prepares a network for inference: the same outputs, except for rounding, in less time."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from sap_ros.core.nano import PretrainedTrunk


def fold(sam: SAM2Base) -> None:
    """Merges layers of the image encoder that have nothing between them. Afterwards it cannot be trained.

    The trunk's batch norms, see :meth:`sap_ros.core.nano.PretrainedTrunk.fold`; and for the two finer maps the neck's
    convolution with the mask decoder's. Both are linear, and the map between them is the largest of all.
    """
    if isinstance(sam.image_encoder.trunk, PretrainedTrunk):
        sam.image_encoder.trunk.fold()
    if not sam.use_high_res_features_in_sam:
        return
    neck, decoder = sam.image_encoder.neck, sam.sam_mask_decoder
    for level, name in enumerate(("conv_s0", "conv_s1")):
        if level in neck.fpn_top_down_levels:  # the sum with the coarser map comes between
            continue
        lateral = neck.convs[len(neck.convs) - 1 - level]
        lateral.conv = _merged(lateral.conv, getattr(decoder, name))
        setattr(decoder, name, nn.Identity())


@torch.no_grad()
def _merged(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two convolutions of 1x1 as one."""
    assert first.kernel_size == second.kernel_size == (1, 1)
    merged = nn.Conv2d(first.in_channels, second.out_channels, 1)
    assert first.bias is not None
    assert second.bias is not None
    assert merged.bias is not None
    weight = second.weight.flatten(1).double()
    merged.weight.copy_((weight @ first.weight.flatten(1).double())[..., None, None])
    merged.bias.copy_(weight @ first.bias.double() + second.bias.double())
    return merged.train(first.training).to(first.weight)
