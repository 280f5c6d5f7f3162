"""EfficientTAM and EdgeTAM: their parameters are those of the authors' code, and so are their answers.

The state dicts are compared with a list of the authors', made by running their code. Answers are compared with
that code itself where it is at hand: SAP_PEERS names a folder with clones of yformer/EfficientTAM and
facebookresearch/EdgeTAM (EdgeTAM's needs timm):

    git clone https://github.com/yformer/EfficientTAM peers/EfficientTAM
    git clone https://github.com/facebookresearch/EdgeTAM peers/EdgeTAM
    SAP_PEERS=peers pytest test/core/test_peers.py
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.network import Features, decode_view, empty_memory, remember

_EFFICIENT_TAM = "EfficientTAM/efficient_track_anything/configs/efficienttam/efficienttam"

#: The authors' configurations.
CONFIGS = {
    "efficienttam-ti-512": f"{_EFFICIENT_TAM}_ti_512x512.yaml",
    "efficienttam-s-512": f"{_EFFICIENT_TAM}_s_512x512.yaml",
    "efficienttam-ti": f"{_EFFICIENT_TAM}_ti.yaml",
    "efficienttam-s": f"{_EFFICIENT_TAM}_s.yaml",
    "edgetam": "EdgeTAM/sam2/configs/edgetam.yaml",
}

#: Of the networks that the authors' code builds from them: parameters and buffers, and the hash of their names and
#: shapes, see :func:`digest`. The side of a view changes neither.
_TI = (455, "9dd0122030c694ab5ae5dd3e6264f707d8b7d875718182e53702687326bf327d")
_S = (455, "e7ad220f611615130b61fd0a0799accb2bae2ed0861faac1ef471dd4934437c1")
STATE_DICTS = {
    "efficienttam-ti-512": _TI,
    "efficienttam-s-512": _S,
    "efficienttam-ti": _TI,
    "efficienttam-s": _S,
    "edgetam": (982, "73957d4bf5963a91071645909761c0658a907dabe15c7e394bd6cc4e885e953b"),
}

VIEWS = 7  # a prompted one and six remembered ones
TOLERANCE = 1e-5  # of masks up to 0.6, pointers up to 0.5 and memories up to 4


def digest(shapes):
    """The SHA-256 of the sorted lines ``name: shape``."""
    lines = sorted(f"{name}: {tuple(shape)}\n" for name, shape in shapes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shapes_of(sam):
    return {name: value.shape for name, value in sam.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_the_authors(name):
    shapes = shapes_of(build_architecture(name))
    assert (len(shapes), digest(shapes)) == STATE_DICTS[name]


@torch.inference_mode()
def answers(sam, images, prompts):
    """What :func:`peer.answers` returns, by this package."""
    memory, found = empty_memory(), {}
    for i, image in enumerate(images):
        _, maps, positions, sizes = sam._prepare_backbone_features(sam.forward_image(image[None]))
        features = Features(maps, sizes)
        for name, points in {f"view {i}": None}.items() if i else prompts.items():
            view = decode_view(sam, features, positions, i, len(images), memory, points)
            entry = remember(sam, features, view)
            found[name] = {
                "pred_masks": view.best,
                "object_score_logits": view.object_scores,
                "obj_ptr": entry["obj_ptr"],
                "maskmem_features": entry["maskmem_features"],
            }
            if i:
                memory["non_cond_frame_outputs"][i] = entry
            elif name == "click":
                memory["cond_frame_outputs"][0] = entry
    return found


def prompt(points, labels):
    return {
        "point_coords": torch.tensor([points]),
        "point_labels": torch.tensor([labels], dtype=torch.int32),
    }


def of_the_authors(name, inputs, folder):
    """Their code's answers, and the shapes of its state dict."""
    peers = Path(os.environ["SAP_PEERS"]).resolve()
    config = peers / CONFIGS[name]
    if not config.exists():
        pytest.skip(f"{config} is not there")
    code = peers / config.relative_to(peers).parts[0]
    torch.save(inputs, folder / "in.pt")
    subprocess.run(
        [sys.executable, Path(__file__).with_name("peer.py"), config, "in.pt", "out.pt"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]),
        },
        cwd=folder,
        check=True,
    )
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.mark.skipif(
    "SAP_PEERS" not in os.environ, reason="SAP_PEERS names no folder with the authors' code"
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_the_authors(name, randomised, tmp_path):
    torch.manual_seed(0)
    sam = randomised(build_architecture(name))
    side = sam.image_size
    coarse = torch.randn(VIEWS, 3, side // 32, side // 32)
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    prompts = {
        "click": prompt([[0.3 * side, 0.6 * side]], [1]),
        "box": prompt([[0.2 * side, 0.3 * side], [0.7 * side, 0.8 * side]], [2, 3]),
    }
    inputs = {"weights": sam.state_dict(), "images": images, "prompts": prompts}
    theirs = of_the_authors(name, inputs, tmp_path)
    assert (len(theirs["shapes"]), digest(theirs["shapes"])) == STATE_DICTS[name]
    ours = answers(sam, images, prompts)
    assert list(theirs["answers"]) == list(ours)
    assert list(ours) == ["click", "box", *(f"view {i}" for i in range(1, VIEWS))]
    largest = 0.0
    for answer, values in ours.items():
        for key, found in values.items():
            expected = theirs["answers"][answer][key]
            if found.shape != expected.shape:  # EdgeTAM's memory: tokens, here as a map
                expected = expected.transpose(1, 2)[..., None]
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
            largest = max(largest, float((found - expected).abs().max()))
    print(f"{name}: the largest difference is {largest:.2g}")
