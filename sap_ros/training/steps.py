"""The loss of a sample: of single views with prompts, or of a window of views with memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sap_ros.core.graphs import normalize
from sap_ros.core.network import Features, decode_view, empty_memory, remember
from sap_ros.training.attention import WatchedAttention, memory_views
from sap_ros.training.data import Sample
from sap_ros.training.losses import LossWeights, mask_loss
from sap_ros.training.prompts import correction

#: Share of the objects that are corrected without the previous mask as input.
MASK_LEFT_OUT = 0.3
#: Logits of a mask that is fed back are clamped to this magnitude, as in SAM 2.
MOST = 32.0


class SampleLoss(nn.Module):
    """A module whose forward pass gives the loss of a sample, so that DDP can average its gradients.

    Args:
        sam: the network.
        weights: weights of the parts of the loss.
    """

    def __init__(self, sam: SAM2Base, weights: LossWeights) -> None:
        super().__init__()
        self.sam, self.weights = sam, weights

    def forward(self, sample: Sample, frozen: bool) -> tuple[Tensor, dict[str, float]]:
        """The loss of a sample, and its metrics.

        Args:
            sample: see :class:`sap_ros.training.data.TrainingSamples`.
            frozen: whether the trunk is frozen.
        """
        if sample["kind"] == "views":
            return view_loss(self.sam, sample, self.weights, frozen)
        return window_loss(self.sam, sample, self.weights)


def encode(
    sam: SAM2Base, images: Tensor, frozen_trunk: bool, frozen_neck: bool
) -> tuple[list[Tensor], list[Tensor], Any]:
    """Encodes views (B, S, S, 3) uint8; frozen parts compute no gradients.

    ``conv_s0`` and ``conv_s1`` belong to the mask decoder and are always trained with it.
    """
    batch = normalize(images)
    wanted = torch.is_grad_enabled()
    with torch.set_grad_enabled(wanted and not frozen_trunk):
        maps = sam.image_encoder.trunk(batch)
    with torch.set_grad_enabled(wanted and not frozen_neck):
        features, positions = sam.image_encoder.neck(maps)
    if sam.image_encoder.scalp:
        features = features[: -sam.image_encoder.scalp]
        positions = positions[: -sam.image_encoder.scalp]
    features = list(features)
    if sam.use_high_res_features_in_sam:
        features[0] = sam.sam_mask_decoder.conv_s0(features[0])
        features[1] = sam.sam_mask_decoder.conv_s1(features[1])
    _, flat, positions, sizes = sam._prepare_backbone_features(
        {"backbone_fpn": features, "vision_pos_enc": positions}
    )
    return flat, positions, sizes


def view_loss(
    sam: SAM2Base, sample: Sample, weights: LossWeights, frozen: bool
) -> tuple[Tensor, dict[str, float]]:
    """Loss of single views without memory: a first prompt, then ``corrections`` correction clicks.

    A correction is decoded from all clicks so far. For most objects the logits of the previous mask are an
    input as well; for the others they are left out, so that the model also works from clicks alone. Several
    masks are decoded for a single point only, as in SAM 2.
    """
    neck = next(sam.image_encoder.neck.parameters())
    flat, _, sizes = encode(sam, sample["images"], frozen, not neck.requires_grad)
    index = sample["image_index"]
    maps = [f[:, index].permute(1, 2, 0).unflatten(2, s) for f, s in zip(flat, sizes, strict=True)]
    features = maps[-1] + sam.no_mem_embed.view(1, -1, 1, 1)
    points, labels = sample["points"], sample["labels"]
    kind = {1: "click", 2: "box"}.get(labels.shape[1], "clicks")
    rng = np.random.default_rng(sample["seed"])
    losses: list[Tensor] = []
    figures: dict[str, float] = {}
    before: Tensor | None = None
    about: Tensor | None = None
    for correction_number in range(sample["corrections"] + 1):
        masks, _, quality, best, _, _, presence = sam._forward_sam_heads(
            backbone_features=features,
            point_inputs={"point_coords": points, "point_labels": labels},
            mask_inputs=before,
            high_res_features=maps[:-1],
            multimask_output=labels.shape[1] == 1,
        )
        target = _target(sample["masks"], masks)
        loss, found = mask_loss(masks, quality, presence, target, weights, about)
        losses.append(loss)
        chosen = found.gather(1, quality.argmax(1, keepdim=True)).mean().item()
        name = f"{kind}_{correction_number}" if correction_number else kind
        figures[f"iou_{name}"] = chosen
        if correction_number == sample["corrections"]:
            break
        shown = F.interpolate(best.detach(), size=sample["masks"].shape[-2:]) > 0
        click, label, region = _corrections(sample["masks"], shown[:, 0], rng)
        points, labels = torch.cat([points, click], 1), torch.cat([labels, label], 1)
        about = F.interpolate(region[:, None].float(), size=masks.shape[-2:], mode="area")[:, 0]
        kept = torch.from_numpy(rng.random(len(best)) >= MASK_LEFT_OUT).to(best)
        before = best.detach().clamp(-MOST, MOST) * kept[:, None, None, None]
    return torch.stack(losses).mean(), figures


def _target(masks: Tensor, like: Tensor) -> Tensor:
    """Masks (N, S, S) bool as shares of area (N, h, w), at the resolution of logits (N, M, h, w)."""
    return F.interpolate(masks[:, None].float(), size=like.shape[-2:], mode="area")[:, 0]


def window_loss(
    sam: SAM2Base, sample: Sample, weights: LossWeights
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a window: first the clicked views, from their clicks alone, then the others, from memory.

    The encoder is frozen. A corrected view is decoded again with a click where its mask is wrong, and this
    result is written to memory. For views decoded from memory, the loss of the cross-attention is added.
    """
    flat, positions, sizes = encode(sam, sample["images"], True, True)
    views, n = sample["masks"].shape[:2]
    rng = np.random.default_rng(sample["seed"])
    memory = empty_memory()
    clicked = sample["clicked"].tolist()
    losses: list[Tensor] = []
    attention: list[Tensor] = []
    # The share of each token of the coarsest feature map that the object covers, (V, N, tokens).
    places_of = F.interpolate(sample["masks"].float(), size=sizes[-1], mode="area").flatten(2)
    kinds = ("click", "memory", "correction", "presence", "attention")
    of: dict[str, list[float]] = {kind: [] for kind in kinds}
    for i in sorted(range(views), key=lambda view: not clicked[view]):
        features = Features([f[:, i : i + 1].expand(-1, n, -1) for f in flat], sizes)
        places = [p[:, i : i + 1].expand(-1, n, -1) for p in positions]
        points = None
        if clicked[i]:
            points = {"point_coords": sample["points"][i], "point_labels": sample["labels"][i]}
        with WatchedAttention(sam) as watched:
            view = decode_view(sam, features, places, i, views, memory, points)
            if not clicked[i] and weights.attention > 0:
                read = torch.cat([places_of[j] for j in memory_views(sam, memory, i)], 1)
                attention.append(watched.loss(read, places_of[i]))
                of["attention"].append(attention[-1].item())
        target = _target(sample["masks"][i], view.masks)
        present = sample["masks"][i].flatten(1).any(1)
        loss, found = mask_loss(
            view.masks, view.predicted_ious, view.object_scores, target, weights
        )
        losses.append(loss)
        of["click" if clicked[i] else "memory"] += _chosen(found, view.predicted_ious, present)
        if not clicked[i]:
            of["presence"] += ((view.object_scores[:, 0] > 0) == present).float().tolist()
        if sample["corrected"][i]:
            shown = F.interpolate(view.best, size=sample["masks"].shape[-2:]) > 0
            click, label, _ = _corrections(sample["masks"][i], shown[:, 0], rng)
            points = {"point_coords": click, "point_labels": label}
            left = torch.from_numpy(rng.random(n) >= MASK_LEFT_OUT).to(view.best)
            before = view.best.detach() * left[:, None, None, None]
            view = decode_view(sam, features, places, i, views, memory, points, previous=before)
            loss, found = mask_loss(
                view.masks, view.predicted_ious, view.object_scores, target, weights
            )
            losses.append(loss)
            of["correction"] += _chosen(found, view.predicted_ious, present)
        kept = "cond_frame_outputs" if points is not None else "non_cond_frame_outputs"
        memory[kept][i] = remember(sam, features, view)
    figures = {f"window_{name}": float(np.mean(v)) for name, v in of.items() if v}
    total = torch.stack(losses).mean()
    if attention:
        total = total + weights.attention * torch.stack(attention).mean()
    return total, figures


def _chosen(ious: Tensor, predicted_ious: Tensor, present: Tensor) -> list[float]:
    """The IoU of the candidate with the highest predicted IoU, of the objects that are in the view."""
    chosen: list[float] = ious.gather(1, predicted_ious.argmax(1, keepdim=True))[:, 0][
        present
    ].tolist()
    return chosen


def _corrections(
    true: Tensor, found: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One correction click per object, for masks (N, S, S) bool; see :func:`correction`."""
    clicks = [
        correction(t, f, rng) for t, f in zip(true.cpu().numpy(), found.cpu().numpy(), strict=True)
    ]
    points, labels, regions = (
        torch.from_numpy(np.stack(part)).to(true.device) for part in zip(*clicks, strict=True)
    )
    return points, labels, regions
