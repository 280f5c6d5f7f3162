"""EfficientTAM and EdgeTAM through the product: sessions, following, other sizes of views, files of weights.

Weights are random; that answers equal those of the authors' code is in test_peers.
"""

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from sap_ros.core.checkpoints import MODELS, build_architecture, check_architecture
from sap_ros.core.edge_tam import RepViT
from sap_ros.core.instances import State
from sap_ros.core.loading import load_model
from sap_ros.core.model import Model
from sap_ros.core.motion import Following
from sap_ros.core.network import empty_memory
from sap_ros.core.prompts import from_pixels
from sap_ros.core.scan import Scan
from sap_ros.core.search import search_by
from sap_ros.core.session import PanoramaSession

SIZE = (512, 256)

#: Small views: a test of a model takes a second or two.
SIDES = {"efficienttam-ti": 64, "efficienttam-s-512": 64, "edgetam": 256}


@pytest.fixture(scope="module")
def models(randomised):
    made = {}

    def model(name):
        if name not in made:
            torch.manual_seed(1)
            sam = randomised(build_architecture(name, SIDES[name]))
            made[name] = Model(sam, name)
        return made[name]

    return model


def view_of(panorama, side):
    return cv2.resize(panorama[:200, :200], (side, side))


@pytest.mark.parametrize("strategy", ["scan", "auto"])
@pytest.mark.parametrize("name", ["efficienttam-ti", "edgetam"])
def test_an_object_is_segmented_and_followed(models, panorama, name, strategy, monkeypatch):
    model = models(name)
    read = []
    decode = model.decode

    def spy(features, index, count, memory, points, mask, previous):
        read.append(sum(map(len, memory.values())))
        return decode(features, index, count, memory, points, mask, previous)

    monkeypatch.setattr(model, "decode", spy)
    # Random masks are large and jump: all of them are taken for the object.
    limits = Following(min_score=0, max_growth=1e9, margin=90, sure_score=0, search=0)
    search = search_by(strategy, model, scan=Scan(overlap=0))
    session = PanoramaSession(model, search, following=limits, recent=2)
    session.set_image(panorama)
    session.add_prompt(from_pixels(1, [(300, 120)], SIZE))
    first = session.segment()
    assert first.labels.shape == (256, 512)
    assert set(np.unique(first.labels)) == {0, 1}
    assert session.encoded == 12 if strategy == "scan" else session.encoded <= 16
    side = model.image_size
    for image, mask in session.view_masks(1).values():
        assert (image.shape, mask.logits.shape) == ((side, side, 3), (side // 4, side // 4))
    read.clear()
    session.next_image(panorama)
    (found,) = session.segment().objects
    assert found.state == State.TRACKED
    assert max(read) >= 1  # by what was remembered


@pytest.mark.parametrize("name", SIDES)
def test_what_is_remembered_changes_the_answer(models, panorama, name):
    model = models(name)
    first, second = (model.encode(view_of(panorama[:, k:], model.image_size)) for k in (0, 50))
    answers = []
    for u in (0.2, 0.8):
        point = {
            "point_coords": torch.full((1, 1, 2), u * model.image_size),
            "point_labels": torch.ones(1, 1, dtype=torch.int32),
        }
        decoded = model.decode(first, points=point)
        memory = empty_memory()
        memory["cond_frame_outputs"][0] = model.remember(first, decoded)
        answers.append(model.decode(second, index=1, count=2, memory=memory).best)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_memory_of_edgetam_does_not_grow_with_the_view(models, panorama):
    model = models("edgetam")
    for side in (256, 512):
        resized = model.resized(side)
        view = view_of(panorama, side)
        features = resized.encode(view)
        points = {
            "point_coords": torch.full((2, 1, 2), 60.0),
            "point_labels": torch.ones(2, 1, dtype=torch.int32),
        }
        entry = resized.remember(features, resized.decode(features, points=points))
        assert entry["maskmem_features"].shape == (2, 64, 512, 1)
        assert features.sizes[-1] == (side // 16, side // 16)


def test_a_size_that_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"image_size is 320; for edgetam it must be .* 256"):
        build_architecture("edgetam", 320)


def test_efficienttam_takes_other_sizes(models, panorama):
    """Its position embedding is interpolated, its windows are padded."""
    model = models("efficienttam-ti")
    for side in (224, 320):  # 14 patches a side, those of the embedding; 20: windows do not fit
        view = view_of(panorama, side)
        (features,) = model.resized(side).encode(view).maps
        assert features.shape == ((side // 16) ** 2, 1, 256)
        assert features.isfinite().all()


@pytest.mark.parametrize("name", SIDES)
def test_a_checkpoint_of_the_authors_format_is_loaded(models, panorama, name, tmp_path):
    """``model`` in a pickle of tensors; the trunk of EdgeTAM is folded, and `auto` takes what is faster."""
    plain = models(name)
    path = tmp_path / "weights.pt"
    torch.save({"model": plain.sam.state_dict()}, path)
    lines = []
    loaded = load_model(name, path, image_size=SIDES[name], log=lines.append)
    if MODELS[name].faster_in_torch:
        assert (loaded.backend, lines) == ("torch", [])
    else:
        assert loaded.backend == "onnxruntime"
        loaded = load_model(name, path, image_size=SIDES[name], backend="torch")
    side = SIDES[name]
    view = view_of(panorama, side)
    for found, expected in zip(loaded.encode(view).maps, plain.encode(view).maps, strict=True):
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )


def test_a_folded_repvit_gives_the_same_maps(randomised):
    plain = randomised(build_architecture("edgetam", 256)).image_encoder.trunk
    assert isinstance(plain, RepViT)
    folded = copy.deepcopy(plain)
    folded.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    convolutions = [sum(isinstance(m, nn.Conv2d) for m in t.modules()) for t in (plain, folded)]
    assert convolutions[0] - convolutions[1] == 23  # a token mixer is one in place of two
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for one, other in zip(folded(image), plain(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_a_checkpoint_of_the_other_size_is_named():
    tiny, small = (build_architecture(f"efficienttam-{size}", 64) for size in ("ti", "s"))
    with pytest.raises(ValueError, match=r"it does not fit: .* of another shape"):
        check_architecture(tiny, small.state_dict(), "it does not fit")
