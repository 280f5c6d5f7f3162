"""sap-nano: SAM 2's architecture with an EfficientNet-Lite trunk, small enough for two CPU cores.

``config/models/sap_nano.yaml`` uses two classes in place of SAM 2's own: the trunk (EdgeTAM similarly uses a
RepViT), and a SAM 2 that also draws the prompt as a map, which a small model needs to find its click.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class PretrainedTrunk(nn.Module, ABC):
    """A convolutional trunk. Its batch norms keep their pretrained statistics, in training too."""

    @abstractmethod
    def fold(self) -> None:
        """Prepares the trunk for inference: the same maps, except for rounding, in much less time.

        Each batch norm is merged into the convolution before it. Afterwards the trunk cannot be trained,
        and its parameters have other names.
        """

    def train(self, mode: bool = True) -> PretrainedTrunk:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class EfficientNetLiteTrunk(PretrainedTrunk):
    """EfficientNet-Lite0 without its head, as a trunk for SAM 2's ``FpnNeck``.

    Input (B, 3, S, S), S a multiple of 32; output four maps at strides 4, 8, 16 and 32 with 24, 40,
    112 and 320 channels. Source: M. Tan and Q. Le, "EfficientNet", arXiv 1905.11946; R. Liu, "Higher
    accuracy on vision models with EfficientNet-Lite".
    """

    _LAST_BLOCKS = (2, 4, 10, 15)  # the last block of each stride
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        net = EfficientNet.from_name("efficientnet-lite0")
        self.stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = net._blocks
        self.channel_list = [320, 112, 40, 24]  # coarse to fine, as FpnNeck expects
        # SAM 2 normalises images by ImageNet's mean and standard deviation; this network was pretrained on
        # (pixel - 127) / 128.
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        self.register_buffer("scale", std * 255 / 128, persistent=False)
        self.register_buffer("shift", (mean * 255 - 127) / 128, persistent=False)

    def fold(self) -> None:
        """See :meth:`PretrainedTrunk.fold`; almost twice as fast on a CPU.

        Symmetric padding is folded into the convolution, too; the memory layout becomes channels-last.
        """
        self.eval()
        parts = [(self.stem, "0", "1")]
        for block in self.blocks:
            pairs = ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")
            parts += [(block, *pair) for pair in pairs if hasattr(block, pair[0])]
            block._swish = nn.ReLU6(inplace=True)
        for owner, conv, norm in parts:
            folded = fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm))
            padding = getattr(folded.static_padding, "padding", None)
            if padding is not None and len(set(padding)) == 1:
                folded.padding, folded.static_padding = (padding[0], padding[0]), nn.Identity()
            setattr(owner, conv, folded)
            setattr(owner, norm, nn.Identity())
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x * self.scale + self.shift)
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._LAST_BLOCKS:
                features.append(x)
        return features


class ClickMapSAM2(SAM2Base):
    """SAM 2 with the prompt also drawn as a map, which is passed to the prompt encoder as a mask.

    A positive click is a Gaussian disk, a negative click a negative disk, a box is filled. Without the map,
    a model trained for hours rather than months does not learn to find its click from the point's position
    embedding. No weight is added.

    If points correct an earlier mask, its logits are added to the map: squashed to less than a click's
    height, and set to 0 under the disks, so that a click stands out from any mask.

    Outside training, the predicted IoUs are averaged with the masks' stability, see :meth:`expected_ious`.
    """

    #: Height and width (sigma, in low-resolution pixels) of a click's disk; height of a box.
    CLICK, SIGMA, BOX = 8.0, 1.5, 3.0
    #: An earlier mask's logits are squashed by tanh to +-MASK; a logit of SURE gives about 3/4 of it.
    MASK, SURE = 4.0, 10.0
    #: Logits above and below 0 between which the area of a stable mask hardly changes.
    STABLE = 1.0

    def _build_sam_heads(self) -> None:
        super()._build_sam_heads()
        self.sam_mask_decoder.register_forward_hook(self._with_expected_ious)

    def _with_expected_ious(self, decoder: nn.Module, _: Any, out: tuple[Tensor, ...]) -> Any:
        masks, predicted_ious, *others = out
        if decoder.training:  # the prediction itself is what is trained
            return out
        return masks, self.expected_ious(masks, predicted_ious), *others

    def expected_ious(self, masks: Tensor, predicted_ious: Tensor) -> Tensor:
        """Predicted IoUs, averaged 2 to 1 with the stability of the masks.

        The candidate with the highest value is taken; by the prediction alone, a small model more often takes a
        worse one. Stability is that of SAM's automatic mask generator: the IoU of the mask thresholded above
        and below 0.

        Args:
            masks: (N, M, h, w) logits.
            predicted_ious: (N, M).
        """
        inner, outer = (
            (masks > at).sum((-2, -1), dtype=torch.float32)  # float16 ends at 65504 pixels
            for at in (self.STABLE, -self.STABLE)
        )
        stability = inner / outer.clamp(min=1)
        return (2 * predicted_ious + stability.to(predicted_ious.dtype)) / 3

    def _forward_sam_heads(
        self,
        backbone_features: Tensor,
        point_inputs: dict[str, Tensor] | None = None,
        mask_inputs: Tensor | None = None,
        high_res_features: list[Tensor] | None = None,
        multimask_output: bool = False,
    ) -> Any:
        if point_inputs is not None:
            mask_inputs = self.prompt_map(
                point_inputs["point_coords"], point_inputs["point_labels"], mask_inputs
            )
        return super()._forward_sam_heads(
            backbone_features, point_inputs, mask_inputs, high_res_features, multimask_output
        )

    def prompt_map(self, coords: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Draws a prompt as a map, (B, 1, S / 4, S / 4).

        Args:
            coords: (B, P, 2) in view pixels.
            labels: (B, P), SAM 2's: 1 positive, 0 negative, 2 and 3 the corners of a box, -1 padding.
            mask: (B, 1, h, w) logits of the mask that the points correct; 0: unknown.
        """
        side = self.sam_prompt_encoder.mask_input_size[0]
        grid = torch.arange(side, device=coords.device) + 0.5
        points = coords / (self.image_size / side)
        near = (points[..., None] - grid) ** 2  # (B, P, 2, side)
        disks = torch.exp(-(near[:, :, 1, :, None] + near[:, :, 0, None, :]) / (2 * self.SIGMA**2))
        sign = (labels == 1).float() - (labels == 0).float()
        prompt_map = self.CLICK * (disks * sign[..., None, None]).sum(1)
        is_first, is_last = (labels == 2).float(), (labels == 3).float()
        first = (points * is_first[..., None]).sum(1)[..., None]
        last = (points * is_last[..., None]).sum(1)[..., None]
        within = ((grid >= first) & (grid <= last)).float() * is_first.sum(1)[:, None, None]
        box = within[:, 1, :, None] * within[:, 0, None, :]
        prompt_map = (prompt_map + self.BOX * box)[:, None]
        if mask is None:
            return prompt_map
        if mask.shape[-2:] != prompt_map.shape[-2:]:
            mask = F.interpolate(mask.float(), size=prompt_map.shape[-2:], mode="bilinear")
        free = 1 - (disks * sign.abs()[..., None, None]).amax(1)[:, None]
        return prompt_map + self.MASK * torch.tanh(mask / self.SURE) * free
