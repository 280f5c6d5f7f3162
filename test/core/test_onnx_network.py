"""onnx_network: the same answers as in torch, whatever is prompted and remembered."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from sap_ros.bench.scenes import clicks_on, labelled
from sap_ros.core import onnx_network
from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.loading import load_model
from sap_ros.core.model import Model
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.core.session import PanoramaSession

SIZE = 256  # EdgeTAM takes no smaller views


@pytest.fixture(
    scope="module", params=["sap-nano", "sam2.1-tiny", "efficienttam-ti-512", "edgetam"]
)
def both(request):
    """A model with random weights, in torch and in ONNX Runtime."""
    torch.manual_seed(2)
    sam = build_architecture(request.param, SIZE)
    with torch.no_grad():  # so that objects are present, but not all of them
        sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(0.3)
    one, other = (Model(sam, request.param, backend=b) for b in ("torch", "onnxruntime"))
    return one, other


@pytest.fixture(scope="module")
def view():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def points(*given):
    """Points (u, v, label) of one object, or lists of them of several."""
    values = torch.tensor(given if isinstance(given[0], list) else [given], dtype=torch.float32)
    return {"point_coords": values[..., :2], "point_labels": values[..., 2].int()}


def compare(one, other):
    assert one.masks.shape == other.masks.shape
    for name in ("masks", "predicted_ious", "best", "object_scores"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        other.remembered["obj_ptr"], one.remembered["obj_ptr"], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "prompt",
    [
        points((30.5, 90.0, 1)),
        points((30.5, 90.0, 1), (100.0, 20.0, 0)),
        points((20.0, 30.0, 2), (90.0, 110.0, 3)),
        points([(30.0, 90.0, 1)], [(99.0, 9.0, 1)], [(64.0, 64.0, 1)]),
    ],
    ids=["click", "two clicks", "box", "three objects"],
)
@pytest.mark.parametrize("correct", [False, True], ids=["anew", "correct"])
def test_points_give_the_same_masks_and_memory(both, view, prompt, correct):
    previous = None
    if correct:
        shape = len(prompt["point_labels"]), 1, SIZE // 4, SIZE // 4
        previous = 30 * torch.randn(shape, generator=torch.Generator().manual_seed(4))
    found, memories = [], []
    for model in both:
        features = model.encode(view)
        found.append(model.decode(features, points=prompt, previous=previous))
        memories.append(model.remember(_repeated(model, features, found[-1]), found[-1]))
    compare(*found)
    assert float(found[0].masks.abs().max()) > 0.1
    torch.testing.assert_close(
        memories[1]["maskmem_features"], memories[0]["maskmem_features"], atol=2e-2, rtol=2e-2
    )


def _repeated(model, features, decoded):
    """The features of several objects: SAM 2's memory encoder repeats nothing by itself."""
    if model.backend != "torch" or len(decoded.best) == 1:
        return features
    several = [part.expand(-1, len(decoded.best), -1) for part in features.maps]
    return type(features)(several, features.sizes)


@pytest.mark.parametrize("empty", [False, True], ids=["a mask", "an empty mask"])
def test_a_mask_is_taken_as_it_is(both, view, empty):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    if not empty:
        mask[..., 20:90, 30:100] = 1
    found = [model.decode(model.encode(view), mask=mask) for model in both]
    compare(*found)
    for model, decoded in zip(both, found, strict=True):
        assert model.remember(model.encode(view), decoded)["maskmem_features"].any()
    one, other = (
        model.remember(model.encode(view), decoded)["maskmem_features"]
        for model, decoded in zip(both, found, strict=True)
    )
    torch.testing.assert_close(other, one, atol=2e-2, rtol=2e-2)


@pytest.fixture(scope="module")
def entries(both, view):
    """Twenty views to remember, with random masks; the same for both."""
    rng, model = np.random.default_rng(8), both[0]
    features = model.encode(view)
    clicks = [points((*rng.uniform(10, SIZE - 10, 2), 1)) for _ in range(20)]
    return [model.remember(features, model.decode(features, points=click)) for click in clicks]


@pytest.mark.parametrize(
    ("prompted", "seen", "index", "count"),
    [
        ([0], [], 1, 2),
        ([0, 1], [2, 3, 4, 5, 6, 7, 8], 9, 25),
        ([0], [1, 3, 4], 5, 6),
        ([4], [], 2, 6),
        ([0], list(range(1, 20)), 20, 36),
        ([0, 12], [1, 2, 9], 10, 13),
    ],
    ids=["one view", "full", "a gap", "prompted later", "long", "prompted before and after"],
)
def test_memory_gives_the_same_masks(both, view, entries, prompted, seen, index, count):
    bank = {
        "cond_frame_outputs": {i: entries[i] for i in prompted},
        "non_cond_frame_outputs": {i: entries[i] for i in seen},
    }
    found = [
        model.decode(model.encode(255 - view), index=index, count=count, memory=bank)
        for model in both
    ]
    compare(*found)
    empty = both[0].decode(both[0].encode(255 - view), points=points((60.0, 60.0, 1)))
    assert (found[0].best - empty.best).abs().max() > 1e-3


@pytest.mark.parametrize("strategy", ["auto", pytest.param("scan", marks=pytest.mark.slow)])
def test_masks_of_the_shipped_model_are_the_same_on_both(strategy):
    one, other = load_model(backend="torch"), load_model(backend="onnxruntime")
    made = labelled(3, (1024, 512), shapes=4)
    ids = np.unique(made.labels[made.labels > 0])[: 6 if strategy == "auto" else 1]
    found = []
    for model in (one, other):
        session = PanoramaSession(model, strategy)
        session.set_image(made.image)
        for i, click in enumerate(clicks_on(made.labels, ids.tolist()), 1):
            session.add_prompt(from_pixels(i, [click], session.size))
        found.append(session.segment().labels)
    for i in range(1, len(ids) + 1):
        a, b = (labels == i for labels in found)
        assert a.any()
        assert (a & b).sum() >= 0.999 * (a | b).sum()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_work_is_done_side_by_side(two_threads):
    model = load_model(backend="onnxruntime", image_size=64)
    meeting = threading.Barrier(2)
    model.side_by_side([lambda: meeting.wait(60)] * 2)  # in turn, the first would wait in vain
    view = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    alone, found = model.encode(view), []
    model.side_by_side([lambda: found.append(model.encode(view))] * 5)
    assert len(found) == 5
    for features in found:
        for one, other in zip(features.maps, alone.maps, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_single_object_opens_no_second_sessions(two_threads, monkeypatch):
    model, opened = load_model(backend="onnxruntime", image_size=64), []
    monkeypatch.setattr(onnx_network, "_opened", lambda *given: opened.append(given))
    session = PanoramaSession(model)
    session.set_image(np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8))
    session.segment()  # no object at all
    session.add_prompt(from_pixels(1, [(100, 100)], session.size))
    session.segment()
    assert not opened


def test_objects_that_are_looked_for_side_by_side_are_the_same(two_threads):
    """Found, and followed; two begin in the same view of the scan, which is encoded once."""
    made = labelled(3, (1024, 512), shapes=6)
    ids = np.unique(made.labels[made.labels > 0]).tolist()
    sessions = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        session = PanoramaSession(load_model(backend="onnxruntime"))
        session.set_image(made.image)
        for i, click in enumerate(clicks_on(made.labels, ids), 1):
            session.add_prompt(from_pixels(i, [click], session.size))
        sessions.append(session)
    for shift in (0, 4, 8):
        if shift:
            for session in sessions:
                session.next_image(np.roll(made.image, shift, axis=1))
        one, other = (session.segment().labels for session in sessions)
        assert sessions[0].encoded == sessions[1].encoded
        for i in range(1, len(ids) + 1):
            assert (one == i).any()
            assert ((one == i) & (other == i)).sum() >= 0.999 * ((one == i) | (other == i)).sum()


def test_another_view_size_is_exported_by_itself():
    model = load_model(backend="onnxruntime", image_size=64).resized(96)
    assert model.backend == "onnxruntime"
    assert model.encode(np.zeros((96, 96, 3), np.uint8)).sizes == [(24, 24), (12, 12), (6, 6)]


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr("sap_ros.core.loading.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnxruntime and onnx are not installed: pip install"):
        load_model(backend="onnxruntime")
    assert load_model(device="cpu", backend="auto").backend == "torch"
    with pytest.raises(
        ValueError, match="'tensorflow'; it must be one of auto, torch, onnxruntime"
    ):
        load_model(backend="tensorflow")


def test_where_nothing_can_be_exported_to_auto_is_torch(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAP_CACHE", str(tmp_path / "file"))
    lines = []
    model = load_model(device="cpu", backend="auto", log=lines.append)
    assert model.backend == "torch"
    assert "Not a directory" in lines[-1]
    assert lines[-1].endswith("falls back to torch")
    assert model.encode(np.zeros((256, 256, 3), np.uint8)).sizes[-1] == (16, 16)
    with pytest.raises(OSError, match="Not a directory"):
        load_model(backend="onnxruntime")


def test_torch_alone_does_not_import_onnxruntime():
    code = "from sap_ros import load_model; load_model(backend='torch'); import sys; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_providers_fall_back_in_one_line(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(
        onnx_network.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    providers = onnx_network._providers(torch.device("cuda:1"), tmp_path, lines.append)
    assert [name for name, _ in providers] == ["CPUExecutionProvider"]
    assert lines == [
        "this onnxruntime has neither of TensorrtExecutionProvider, CUDAExecutionProvider: it falls back "
        "to CPUExecutionProvider"
    ]
    everything = ["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnx_network.onnxruntime, "get_available_providers", lambda: everything)
    (first, options), (second, cuda), _ = onnx_network._providers(
        torch.device("cuda:1"), tmp_path, lines.append
    )
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["device_id"] == cuda["device_id"] == 1
    assert options["trt_engine_cache_path"] == str(tmp_path / "tensorrt")


def test_a_mask_prompt_of_a_session_is_the_same_on_both():
    mask = np.zeros((256, 512), bool)
    mask[100:160, 200:290] = True
    image = np.random.default_rng(1).integers(0, 256, (256, 512, 3), np.uint8)
    found = []
    for backend in ("torch", "onnxruntime"):
        session = PanoramaSession(load_model(backend=backend, image_size=64))
        session.set_image(image)
        session.add_prompt(Prompt(1, mask=mask))
        session.segment()
        session.next_image(image)
        found.append(session.segment().labels)
    assert np.array_equal(*found)
