"""Writes a model's four networks as ONNX files, checks each against torch, and describes them.

The files of a folder belong together: ``manifest.json``, which is written last, says what they are.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sap_ros import __version__
from sap_ros.core import edge_tam, efficient_tam, nano
from sap_ros.core import graphs as graph_module
from sap_ros.core.download import cache_folder, sha256_of
from sap_ros.core.edge_tam import EdgeTAM
from sap_ros.core.graphs import ImageEncoder, MaskDecoder, MemoryAttention, MemoryEncoder

#: The opset of the files: the newest that the exporter in use writes.
OPSET = 17

MANIFEST = "manifest.json"

# Numbers of objects and the like that a graph is traced with, and others that it is checked with.
_TRACED = {
    "views": 1,
    "objects": 2,
    "seen": 1,
    "points": 3,
    "memories": 2,
    "pointers": 4,
    "side": 48,
}
_CHECKED = (
    {"views": 1, "objects": 1, "seen": 1, "points": 1, "memories": 1, "pointers": 0, "side": 32},
    {"views": 2, "objects": 2, "seen": 2, "points": 2, "memories": 3, "pointers": 5, "side": 64},
)

# The largest difference from torch's float32, as a share of the output's largest value, with which a graph
# is written. Of random and of the shipped weights it is below a tenth of these.
_TOLERANCE = {"float32": 1e-3, "float16": 1e-1}

#: An input or output: its type and its shape, with names for what is free.
Spec = tuple[torch.dtype, tuple[int | str, ...]]


@dataclass(frozen=True)
class Graph:
    """One of the networks, as it is exported.

    Attributes:
        network: the network.
        inputs, outputs: by name, in their order.
    """

    network: nn.Module
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]


def graphs(sam: SAM2Base, half: bool = False) -> dict[str, Graph]:
    """The four networks of a model, in float32 or float16; they share its weights in float32."""
    kind = torch.float16 if half else torch.float32
    size, side, wide, narrow = (
        sam.image_size,
        sam.sam_image_embedding_size,
        sam.hidden_dim,
        sam.mem_dim,
    )
    real = torch.float32
    coarse, memory = (wide, side, side), (narrow, side, side)
    finer: dict[str, tuple[int, ...]] = {}
    if sam.use_high_res_features_in_sam:
        finer = {
            "fine": (wide // 8, size // 4, size // 4),
            "middle": (wide // 4, size // 8, size // 8),
        }
    if isinstance(sam, EdgeTAM):
        memory = narrow, sam.spatial_perceiver.positions().shape[1], 1
    low = 1, size // 4, size // 4
    networks: dict[str, Callable[[SAM2Base], nn.Module]] = {
        "image_encoder": ImageEncoder,
        "mask_decoder": MaskDecoder,
        "memory_attention": MemoryAttention,
        "memory_encoder": MemoryEncoder,
    }
    inputs: dict[str, dict[str, Spec]] = {
        "image_encoder": {"view": (torch.uint8, ("views", size, size, 3))},
        "mask_decoder": {
            **{name: (kind, ("seen", *shape)) for name, shape in finer.items()},
            "features": (kind, ("seen", *coarse)),
            "points": (real, ("objects", "points", 2)),
            "labels": (torch.int32, ("objects", "points")),
            "mask": (real, ("objects", *low)),
            "has_mask": (torch.bool, ("objects",)),
        },
        "memory_attention": {
            "features": (kind, ("seen", *coarse)),
            "memories": (kind, ("objects", "memories", *memory)),
            "memory_ages": (torch.int64, ("memories",)),
            "pointers": (kind, ("objects", "pointers", wide)),
            **({"pointer_ages": (real, ("pointers",))} if sam.add_tpos_enc_to_obj_ptrs else {}),
        },
        "memory_encoder": {
            "features": (kind, ("seen", *coarse)),
            "mask": (real, ("objects", 1, "side", "side")),
            "from_points": (torch.bool, ("objects",)),
            **(
                {}
                if sam.no_obj_embed_spatial is None
                else {"object_scores": (real, ("objects", 1))}
            ),
        },
    }
    outputs: dict[str, dict[str, Spec]] = {
        "image_encoder": {
            **{name: (kind, ("views", *shape)) for name, shape in finer.items()},
            "coarse": (kind, ("views", *coarse)),
        },
        "mask_decoder": {
            "masks": (real, ("objects", 4, *low[1:])),
            "predicted_ious": (real, ("objects", 4)),
            "pointers": (kind, ("objects", 4, wide)),
            "object_scores": (real, ("objects", 1)),
        },
        "memory_attention": {"conditioned": (kind, ("objects", *coarse))},
        "memory_encoder": {"memory": (kind, ("objects", *memory))},
    }
    made = {}
    for name, network in networks.items():
        module = network(sam).eval()
        if half:
            module = copy.deepcopy(module).half()
        made[name] = Graph(module, inputs[name], outputs[name])
    return made


@torch.inference_mode()
def export(sam: SAM2Base, name: str, folder: Path, half: bool = False) -> dict[str, Any]:
    """Exports a model's networks to a folder, and checks each against torch on the same inputs.

    Args:
        sam: the model, on a CPU; ready for inference.
        name: of the model.
        folder: where the files are to be; those of that name are replaced.
        half: in float16.

    Returns:
        The manifest, see :func:`_manifest`.

    Raises:
        ValueError: a graph's outputs differ from torch's.
        ModuleNotFoundError: onnxruntime is not installed.
    """
    precision = "float16" if half else "float32"
    exact = graphs(sam)
    written: dict[str, dict[str, Any]] = {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        for key, graph in graphs(sam, half).items():
            path = Path(beside) / f"{key}.onnx"
            _write(graph, path)
            difference = _difference(graph, exact[key].network, path)
            if not difference["of_the_largest"] < _TOLERANCE[precision]:
                raise ValueError(
                    f"{key} of {name} as ONNX ({precision}) differs from torch by {difference['largest']:.2g}, "
                    f"{difference['of_the_largest']:.1%} of its largest output; it may by "
                    f"{_TOLERANCE[precision]:.1%}"
                )
            written[key] = {
                "file": path.name,
                "sha256": sha256_of(path),
                "bytes": path.stat().st_size,
                "inputs": _described(graph.inputs),
                "outputs": _described(graph.outputs),
                "difference": difference,
            }
        manifest = _manifest(sam, name, precision, written)
        (Path(beside) / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        folder.mkdir(exist_ok=True)
        for file in [*(part["file"] for part in written.values()), MANIFEST]:
            (Path(beside) / file).replace(folder / file)
    return manifest


def graph_files(sam: SAM2Base, name: str, log: Callable[[str], None]) -> dict[str, Path]:
    """The files of a model's networks in float32, by name: exported to the cache when they are not there.

    They are kept under a hash of the weights and of the code that writes them, and checked by their own.

    Args:
        sam: the model, as for :func:`export`.
        name: of the model.
        log: called with a line where they are exported.
    """
    folder = cache_folder() / "graphs" / f"{name}-{sam.image_size}-{_key(sam)}"
    files = _intact(folder)
    if files is None:
        log(f"exporting {name} for ONNX Runtime to {folder}, once")
        export(sam, name, folder)
        files = _intact(folder)
        assert files is not None
    return files


def _key(sam: SAM2Base) -> str:
    """Changes with the weights, with this code, and with the packages that it exports with."""
    digest = hashlib.sha256()
    for module in (graph_module, nano, efficient_tam, edge_tam):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    digest.update(f"{sam.image_size} {_versions()}".encode())
    for key, weight in sam.state_dict().items():
        digest.update(key.encode())
        digest.update(weight.contiguous().numpy())
    return digest.hexdigest()[:16]


def _intact(folder: Path) -> dict[str, Path] | None:
    """The graphs that a folder's manifest names; None where one is missing or another file."""
    try:
        graphs = json.loads((folder / MANIFEST).read_text())["graphs"]
        files = {name: folder / graph["file"] for name, graph in graphs.items()}
        whole = all(sha256_of(files[name]) == graph["sha256"] for name, graph in graphs.items())
    except (OSError, ValueError, KeyError):
        return None
    return files if whole else None


def _versions() -> dict[str, str]:
    return {
        "sap_ros": __version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _manifest(sam: SAM2Base, name: str, precision: str, written: dict[str, Any]) -> dict[str, Any]:
    """What the files are: the model, its constants outside of the graphs, versions, and each graph."""
    return {
        "model": name,
        "image_size": sam.image_size,
        "precision": precision,
        "opset": OPSET,
        "memories": sam.num_maskmem,
        "pointers": sam.max_obj_ptrs_in_encoder,
        "versions": _versions(),
        "graphs": written,
    }


def _write(graph: Graph, path: Path) -> None:
    named = {**graph.inputs, **graph.outputs}
    free = {
        name: {axis: free for axis, free in enumerate(shape) if isinstance(free, str)}
        for name, (_, shape) in named.items()
    }
    with warnings.catch_warnings():
        # The exporter that torch recommends takes 25 times as long and a package more; the constants
        # that tracing warns of are constant for one view size, and checked with other numbers of objects.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.network,
            tuple(_example(graph.inputs, _TRACED).values()),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )


def _example(
    inputs: Mapping[str, Spec], counts: Mapping[str, int], seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, (kind, named) in inputs.items():
        shape = [counts[n] if isinstance(n, str) else n for n in named]
        if kind.is_floating_point:
            values = torch.randn(shape, generator=generator)
            made[name] = (100 * values.abs() if name == "points" else values).to(kind)
        else:
            low, high = {"labels": (-1, 4), "memory_ages": (0, 7), "view": (0, 256)}.get(
                name, (0, 2)
            )
            made[name] = torch.randint(low, high, shape, generator=generator).to(kind)
    return made


def _difference(graph: Graph, exact: nn.Module, path: Path) -> dict[str, float]:
    """Between the file in ONNX Runtime and torch in float32, on inputs of other sizes than it was traced with."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest, share = 0.0, 0.0
    for seed, counts in enumerate(_CHECKED, 1):
        example = _example(graph.inputs, counts, seed)
        found = session.run(None, {name: value.numpy() for name, value in example.items()})
        plain = [v.float() if v.dtype == torch.float16 else v for v in example.values()]
        expected = exact(*plain)
        for one, other in zip(
            found, expected if isinstance(expected, tuple) else [expected], strict=True
        ):
            apart = float((torch.from_numpy(one).float() - other).abs().max())
            largest = max(largest, apart)
            share = max(share, apart / max(float(other.abs().max()), 1e-6))
    return {"largest": largest, "of_the_largest": share}


def _described(specs: Mapping[str, Spec]) -> dict[str, Any]:
    return {
        name: {"type": str(kind).removeprefix("torch."), "shape": list(shape)}
        for name, (kind, shape) in specs.items()
    }
