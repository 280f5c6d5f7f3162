"""Losses for masks (focal, dice), for the predicted IoU and for the object score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults of the first four are SAM 2.1's (20, 1, 1, 1).

    ``clicked``: additional weight of the focal loss, after a correction, on the error region that was
    clicked. Without it a model learns to keep the previous mask, which is mostly right, instead of
    correcting it. ``presence``: the loss of the object score. ``attention``: the loss of the memory
    cross-attention (:mod:`sap_ros.training.attention`).
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    clicked: float = 0.0
    attention: float = 0.0


def mask_loss(
    logits: Tensor,
    predicted_iou: Tensor,
    presence_logit: Tensor,
    target: Tensor,
    weights: LossWeights,
    clicked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of one decoding: trains the best of several masks, and the predicted IoU of all of them.

    Args:
        logits: (N, M, h, w), M masks for each of N objects.
        predicted_iou: (N, M), in 0 to 1.
        presence_logit: (N, 1), the object score: above 0 if the object is predicted to be in the view.
        target: (N, h, w), in 0 to 1; all 0 if the object is not in the view.
        weights: weights of the parts.
        clicked: (N, h, w) in 0 to 1, the error region of a correction click; None without a correction.

    Returns:
        The mean loss, and the (N, M) IoU of each mask with its target.
    """
    present = (target.flatten(1).amax(1) > 0.5).float()
    truth = target[:, None].expand_as(logits)
    probability = logits.sigmoid()
    # Focal loss: T.-Y. Lin et al., arXiv 1708.02002.
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    miss = probability * (1 - truth) + (1 - probability) * truth
    alpha = weights.focal_alpha * truth + (1 - weights.focal_alpha) * (1 - truth)
    focal = alpha * miss**weights.focal_gamma * cross_entropy
    if clicked is not None:
        focal = focal * (1 + weights.clicked * clicked[:, None])
    focal = focal.flatten(2).mean(2)
    both = (probability * truth).flatten(2).sum(2)
    dice = 1 - (2 * both + 1) / ((probability + truth).flatten(2).sum(2) + 1)
    of_mask = weights.focal * focal + weights.dice * dice
    best = of_mask.min(dim=1).values
    with torch.no_grad():
        found, real = logits > 0, truth > 0.5
        union = (found | real).flatten(2).sum(2).clamp(min=1)
        iou = (found & real).flatten(2).sum(2) / union
    iou_error = (predicted_iou - iou).abs().mean(1)
    presence_error = F.binary_cross_entropy_with_logits(presence_logit[:, 0], present)
    total = (present * (best + weights.iou * iou_error)).sum() / present.sum().clamp(min=1)
    return total + weights.presence * presence_error, iou
