"""model: loading by name and from files, and what is said of files that cannot be loaded."""

import copy
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sap_ros.core import checkpoints
from sap_ros.core.checkpoints import MODELS, build_architecture, input_side, read_weights
from sap_ros.core.folding import fold
from sap_ros.core.loading import load_model, usable_device
from sap_ros.core.model import Model


class _Code:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def nano_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "nano.pt"
    torch.save({"model": build_architecture("sap-nano").state_dict()}, path)
    return path


@pytest.mark.parametrize("name", list(MODELS))
def test_every_named_architecture_is_built(name):
    sam, side = build_architecture(name), input_side(MODELS[name])
    assert sam.image_size == side
    sides = {"sap-nano": 320, "sap-micro": 256}
    assert side == sides.get(name, 512 if name.endswith("512") else 1024)
    assert sam.binarize_mask_from_pts_for_mem_enc
    fallback = sam.sam_mask_decoder.dynamic_multimask_via_stability
    ours = name.startswith("sap-")
    assert fallback == (not ours)  # as SAM 2's predictor has it; ours says otherwise


def test_files_to_download_are_told_apart():
    files = [info for info in MODELS.values() if info.url]
    assert len({info.file for info in files}) == len({info.sha256 for info in files}) == len(files)
    assert all(len(info.sha256) == 64 and info.size > 50e6 for info in files)


def test_the_shipped_model_is_the_default_and_small():
    assert checkpoints.checkpoint_path("sap-nano").stat().st_size < 45e6
    assert load_model().name == "sap-nano"


def test_a_checkpoint_file_gives_its_weights(nano_file):
    loaded = load_model("sap-nano", nano_file, backend="torch")
    weights = torch.load(nano_file, weights_only=True)["model"]
    own = loaded.sam.state_dict()
    folded = "image_encoder.", "sam_mask_decoder.conv_s"
    for key, value in weights.items():
        assert key.startswith(folded) or torch.equal(own[key], value), key
    sam = build_architecture("sap-nano")
    sam.load_state_dict(weights)
    plain = Model(sam, "sap-nano", torch.device("cpu"))
    view = np.random.default_rng(0).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    for one, other in zip(loaded.encode(view).maps, plain.encode(view).maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("name", ["sam2.1-tiny", "efficienttam-s-512", "edgetam"])
def test_a_named_model_is_fetched_to_the_cache(monkeypatch, tmp_path, nano_file, name):
    monkeypatch.setenv("SAP_CACHE", str(tmp_path))
    asked = []

    def fetch(url, path, sha256, size, progress):
        asked.append((url, path, sha256, size))
        return nano_file

    monkeypatch.setattr(checkpoints, "download", fetch)
    with pytest.raises(ValueError, match=rf"does not fit {name}: \d+ missing"):
        load_model(name)
    info = MODELS[name]
    assert asked == [(info.url, tmp_path / info.file, info.sha256, info.size)]
    assert info.url.startswith("https://")
    assert info.url.endswith(f"/{info.file}")


def test_a_truncated_file_is_named(nano_file, tmp_path):
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"cut{suffix}"
        if suffix == ".safetensors":
            save_file({"a": torch.zeros(1000)}, path)
        else:
            path.write_bytes(nano_file.read_bytes())
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match=f"cut{suffix} is truncated or no checkpoint"):
            read_weights(path)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "picture.pt"
    path.write_bytes(b"\x89PNG\r\n" + bytes(500))
    with pytest.raises(ValueError, match=r"picture.pt"):
        read_weights(path)


def test_code_in_a_pickle_is_not_run(tmp_path):
    evil, victim = tmp_path / "evil.pt", tmp_path / "victim"
    torch.save({"model": _Code(victim)}, evil)
    with pytest.raises(ValueError, match="not loaded"):
        read_weights(evil)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(_Code(victim), protocol=2))
    with pytest.raises(ValueError, match=r"plain.pt"):
        read_weights(plain)
    assert not victim.exists()


def test_another_architecture_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"head.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ValueError, match=r"missing .*1 unknown \(first head.weight\)"):
        load_model("sap-nano", path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "sam9"}, "'sam9'; there are sap-nano, sap-micro, efficienttam-ti-512"),
        ({"device": "toaster"}, "'toaster' cannot be used"),
        ({"image_size": 100}, "image_size is 100"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        load_model(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="'cuda' cannot be used here"):
        load_model(device="cuda")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pt"):
        load_model("sap-nano", tmp_path / "none.pt")


def test_a_folded_network_gives_the_same_maps():
    plain = build_architecture("sap-nano").image_encoder.trunk.eval()
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            values.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    folded = copy.deepcopy(plain)
    folded.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for a, b in zip(folded(image), plain(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["sap-nano", "sam2.1-tiny", "edgetam", "efficienttam-ti-512"])
def test_a_folded_model_gives_the_same_features(name):
    torch.manual_seed(0)
    plain = build_architecture(name, 256)
    folded = copy.deepcopy(plain)
    fold(folded)
    if plain.use_high_res_features_in_sam:
        encoder, decoder = folded.image_encoder, folded.sam_mask_decoder
        widths = [conv.conv.out_channels for conv in encoder.neck.convs]
        assert widths[-2:] == [64, 32], (
            "the neck's finer maps are those that the mask decoder takes"
        )
        assert not list(decoder.conv_s0.parameters()) + list(decoder.conv_s1.parameters())
    view = np.random.default_rng(1).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    maps = [Model(sam, name, torch.device("cpu")).encode(view).maps for sam in (plain, folded)]
    for one, other in zip(*maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def test_encoding_is_the_same_for_the_same_view(random_model, panorama):
    view = np.ascontiguousarray(panorama[:64, :64])
    a, b = random_model.encode(view), random_model.encode(view)
    assert [m.shape for m in a.maps] == [(256, 1, 32), (64, 1, 64), (16, 1, 256)]
    assert all(torch.equal(x, y) for x, y in zip(a.maps, b.maps, strict=True))


def test_auto_is_cuda_where_there_is_a_gpu(monkeypatch):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert usable_device("auto").type == load_model().device.type == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if expected == "cpu":
        with pytest.raises(ValueError, match="'cuda' cannot be used here"):
            load_model()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto").type == "cpu"
