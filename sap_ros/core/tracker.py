"""Carries one object from frame to frame with SAM 2's memory.

SAM 2's own modules are stepped, as its video predictor does, with three differences: features come
from outside, computed once a frame for all objects and prompts; visited frames have contiguous
indices, whatever their order on the sphere, since the memory bank reads the previous six by index;
and the predicted quality and presence of each mask are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sap_ros.core.model import Features, Memory, Model, decode_view, empty_memory


@dataclass(frozen=True)
class FrameMask:
    """What was found of an object in a frame.

    Attributes:
        logits: (S / 4, S / 4) float32; -1024 throughout where the object is held to be absent.
        quality: predicted IoU of the mask, 0 to 1.
        presence: logit of the object being in the frame; absent at or below 0.
    """

    logits: np.ndarray
    quality: float
    presence: float


#: Clicks on one frame: (P, 2) pixels and (P,) labels.
Clicks = tuple[np.ndarray, np.ndarray]


@torch.inference_mode()
def track(
    model: Model,
    features: Callable[[int], Features],
    order: Sequence[int],
    clicks: Mapping[int, Clicks],
    visited: Callable[[int], None] = lambda _: None,
) -> dict[int, FrameMask]:
    """Finds an object in frames.

    Args:
        model: the model.
        features: features of a frame.
        order: the frames to visit; the first that has a click comes first in memory.
        clicks: clicks by frame. Each of these frames is decoded from its clicks alone, before the
            others, and stays in memory throughout: SAM 2's conditioning frames.
        visited: told of each frame when it is done.

    Returns:
        The mask of every frame of ``order``.

    Raises:
        ValueError: no frame of ``order`` has a click.
    """
    clicked = [i for i, frame in enumerate(order) if frame in clicks]
    if not clicked:
        raise ValueError("none of the frames to visit has a click")
    memory = empty_memory()
    found: dict[int, FrameMask] = {}
    for i in [*clicked, *(i for i in range(len(order)) if order[i] not in clicks)]:
        frame = order[i]
        found[frame] = _step(model, features(frame), i, len(order), memory, clicks.get(frame))
        visited(frame)
    return found


def _step(
    model: Model, features: Features, index: int, count: int, memory: Memory, clicks: Clicks | None
) -> FrameMask:
    """Decodes a frame, and writes it to memory under ``index``."""
    points = None
    if clicks is not None:
        coords, labels = (torch.from_numpy(a[None]).to(model.device) for a in clicks)
        points = {"point_coords": coords.float(), "point_labels": labels.int()}
    with model.precision():
        view = decode_view(model.sam, features, model.positions, index, count, memory, points)
    # SAM 2 keeps memory in bfloat16; it is rounded so here too, then used in the compute type.
    pointer = view.memory["obj_ptr"]
    rounded = view.memory["maskmem_features"].to(torch.bfloat16)
    memory["non_cond_frame_outputs" if points is None else "cond_frame_outputs"][index] = {
        "maskmem_features": rounded.to(pointer.dtype),
        "maskmem_pos_enc": view.memory["maskmem_pos_enc"],
        "obj_ptr": pointer,
    }
    return FrameMask(
        view.best[0, 0].float().cpu().numpy(), view.qualities.max().item(), view.presence.item()
    )
