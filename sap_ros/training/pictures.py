"""Pictures of training samples with the masks that a model predicts."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base

from sap_ros.core.network import Features, decode_view, empty_memory, remember
from sap_ros.core.overlay import contact_sheet
from sap_ros.training.data import Sample
from sap_ros.training.steps import encode


@torch.no_grad()
def sample_picture(sam: SAM2Base, sample: Sample) -> np.ndarray:
    """Views of a sample: first row with the first object's true mask, second row with the predicted mask."""
    images = sample["images"].cpu().numpy()
    flat, positions, sizes = encode(sam, sample["images"], True, True)
    views = sample["kind"] == "views"
    count = min(8, len(images))
    true, found, memory = [], [], empty_memory()
    for i in range(count):
        if views:
            chosen = int((sample["image_index"] == i).nonzero()[0])
            mask = sample["masks"][chosen]
            points = {
                "point_coords": sample["points"][chosen][None],
                "point_labels": sample["labels"][chosen][None],
            }
            memory = empty_memory()
        else:
            mask = sample["masks"][i, 0]
            points = {
                "point_coords": sample["points"][i, :1],
                "point_labels": sample["labels"][i, :1],
            }
        features = Features([f[:, i : i + 1] for f in flat], sizes)
        places = [p[:, i : i + 1] for p in positions]
        given = points if views or sample["clicked"][i] else None
        view = decode_view(sam, features, places, i, len(images), memory, given)
        kept = "cond_frame_outputs" if given is not None else "non_cond_frame_outputs"
        memory[kept][i] = remember(sam, features, view)
        logits = F.interpolate(view.best.float(), size=images.shape[1:3])[0, 0]
        true.append((images[i], mask.cpu().numpy().astype(np.uint8), "true"))
        found.append((images[i], (logits.cpu().numpy() > 0).astype(np.uint8), "found"))
    return contact_sheet([*true, *found], columns=count, side=192)
