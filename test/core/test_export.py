"""export: the graphs equal torch's networks, are found again in the cache, and are renewed when damaged."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from sap_ros.core import export as module
from sap_ros.core.checkpoints import MODELS, build_architecture
from sap_ros.core.download import sha256_of
from sap_ros.core.export import MANIFEST, export, graph_files, graphs

OTHERS = [name for name in MODELS if not name.startswith("sap-")]


def random_weights(name, size):
    """A model with random weights, those that start as zeros, too."""
    torch.manual_seed(3)
    sam = build_architecture(name, size).eval()
    with torch.no_grad():
        for weight in sam.parameters():
            if not weight.any():
                weight.normal_(0, 0.02)
    return sam


def side_of(name):
    """A small view that the model takes."""
    return max(128, MODELS[name].size_step)


@pytest.fixture(scope="module")
def nano():
    return random_weights("sap-nano", 64)


@pytest.fixture(scope="module")
def exported(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs") / "nano"
    return folder, export(nano, "sap-nano", folder)


def test_the_manifest_says_what_the_files_are(exported):
    folder, manifest = exported
    assert json.loads((folder / MANIFEST).read_text()) == manifest
    assert {path.name for path in folder.iterdir()} == {
        MANIFEST, *(graph["file"] for graph in manifest["graphs"].values())
    }  # fmt: skip
    assert (manifest["model"], manifest["image_size"], manifest["precision"]) == (
        "sap-nano", 64, "float32"
    )  # fmt: skip
    for graph in manifest["graphs"].values():
        path = folder / graph["file"]
        assert sha256_of(path) == graph["sha256"]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert {name: spec["shape"] for name, spec in graph["inputs"].items()} == {
            value.name: value.shape for value in session.get_inputs()
        }
        assert list(graph["outputs"]) == [value.name for value in session.get_outputs()]
        assert graph["difference"]["of_the_largest"] < 1e-4


@pytest.mark.parametrize("objects", [1, 4])
@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (7, 16)])
def test_numbers_of_objects_memories_and_pointers_are_free(
    nano, exported, objects, memories, pointers
):
    folder, _ = exported
    graph = graphs(nano)["memory_attention"]
    counts = {"seen": 1, "objects": objects, "memories": memories, "pointers": pointers}
    example = module._example(graph.inputs, counts, seed=9)
    session = onnxruntime.InferenceSession(
        folder / "memory_attention.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {name: value.numpy() for name, value in example.items()})
    with torch.inference_mode():
        expected = graph.network(*example.values()).numpy()
    assert found.shape == (objects, 256, 4, 4)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_half_precision_halves_the_files(nano, exported, tmp_path):
    manifest = export(nano, "sap-nano", tmp_path / "half", half=True)
    for name, graph in manifest["graphs"].items():
        assert graph["bytes"] < 0.6 * exported[1]["graphs"][name]["bytes"]
        assert 1e-5 < graph["difference"]["of_the_largest"] < 3e-2
    assert manifest["graphs"]["image_encoder"]["outputs"]["coarse"]["type"] == "float16"
    assert next(nano.parameters()).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_models_are_exported(name, tmp_path):
    manifest = export(random_weights(name, side_of(name)), name, tmp_path / name)
    for graph in manifest["graphs"].values():
        assert graph["difference"]["of_the_largest"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_models_are_exported_in_half_precision(name, tmp_path):
    export(random_weights(name, side_of(name)), name, tmp_path / name, half=True)


def test_a_graph_that_differs_is_not_written(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TOLERANCE", {"float32": 0.0})
    with pytest.raises(
        ValueError, match=r"image_encoder of sap-nano as ONNX .* differs from torch"
    ):
        export(nano, "sap-nano", tmp_path / "graphs")
    assert not list(tmp_path.iterdir())


def test_the_cache_is_by_weights_and_a_damaged_file_is_renewed(
    nano, exported, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAP_CACHE", str(tmp_path))
    folder = tmp_path / "graphs" / f"sap-nano-64-{module._key(nano)}"
    shutil.copytree(exported[0], folder)
    lines = []
    files = graph_files(nano, "sap-nano", lines.append)
    assert files["mask_decoder"] == folder / "mask_decoder.onnx"
    assert lines == []
    files["mask_decoder"].write_bytes(files["mask_decoder"].read_bytes()[:1000])
    assert graph_files(nano, "sap-nano", lines.append) == files
    assert len(lines) == 1
    assert str(folder) in lines[0]
    assert sha256_of(files["mask_decoder"]) == exported[1]["graphs"]["mask_decoder"]["sha256"]
    other = random_weights("sap-nano", 64)
    assert module._key(other) == module._key(nano)
    with torch.no_grad():
        other.no_mem_embed[0, 0, 0] += 1
    assert module._key(other) != module._key(nano)
