"""Runs the authors' own code on inputs and weights from files; started by test_peers, as its own process.

EdgeTAM's code is a package named ``sam2``, as SAM 2's is: the two cannot be imported into one process.

    python peer.py CONFIG IN OUT

CONFIG is the authors' configuration; IN has ``weights`` and the inputs of :func:`answers`, OUT gets its outputs, and
the ``shapes`` of the authors' state dict.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

# What the authors' build functions set for their video predictors.
_POSTPROCESSING = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
    "compile_image_encoder": False,
}

KEPT = ("pred_masks", "object_score_logits", "obj_ptr", "maskmem_features")


def build(config):
    """The authors' network, with random weights: timm is not to download its own."""
    model = OmegaConf.merge(OmegaConf.load(config).model, _POSTPROCESSING)
    try:
        import timm.models
    except ImportError:
        return instantiate(model, _recursive_=True)
    made = timm.models.create_model
    with mock.patch(
        "timm.models.create_model", lambda *a, **k: made(*a, **{**k, "pretrained": False})
    ):
        return instantiate(model, _recursive_=True)


def answers(model, images, prompts):
    """A click, a box, and views that are decoded from the memory of the clicked view and of each other.

    Args:
        model: a ``SAM2Base`` of the authors.
        images: (V, 3, S, S), normalised; the first is the prompted one.
        prompts: ``click`` and ``box``: ``point_coords`` (1, P, 2) and ``point_labels`` (1, P).

    Returns:
        By ``click``, ``box`` and ``view 1`` onwards, what :data:`KEPT` names.
    """
    memory = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    found = {}
    for i, image in enumerate(images):
        _, maps, positions, sizes = model._prepare_backbone_features(
            model.forward_image(image[None])
        )
        for name, points in {f"view {i}": None}.items() if i else prompts.items():
            out = model.track_step(
                i, points is not None, maps, positions, sizes, points, None, memory, len(images)
            )
            found[name] = {key: out[key] for key in KEPT}
            if i:
                memory["non_cond_frame_outputs"][i] = out
            elif name == "click":
                memory["cond_frame_outputs"][0] = out
    return found


def main(config: Path, given: Path, out: Path) -> None:
    torch.manual_seed(0)
    model = build(config).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    inputs = torch.load(given, weights_only=True)
    model.load_state_dict(inputs["weights"])
    with torch.inference_mode():
        found = answers(model, inputs["images"], inputs["prompts"])
    torch.save({"shapes": shapes, "answers": found}, out)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
