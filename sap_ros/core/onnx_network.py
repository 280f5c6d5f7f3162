"""SAM 2's network in ONNX Runtime: runs the graphs of :mod:`sap_ros.core.export` with SAM 2's memory bank."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor

from sap_ros.core.export import graph_files
from sap_ros.core.network import Decoded, Features, Memory, as_kept, correction

_CPU = "CPUExecutionProvider"

# Graphs of more bytes than this in all are not loaded a second time for work side by side: in large networks a
# single view keeps all cores busy.
_SMALL = 100e6


class OnnxNetwork:
    """A SAM 2 network in ONNX Runtime; see :class:`sap_ros.core.model.Network`.

    Args:
        sam: the same network in torch, on a CPU; used for its constants, and exported when needed.
        name: name of the model.
        device: ``cpu``, or for example ``cuda:0``, which uses the TensorRT or CUDA provider if available.
        log: called with a message before long operations, and if a provider cannot be used.
    """

    def __init__(
        self, sam: SAM2Base, name: str, device: torch.device, log: Callable[[str], None]
    ) -> None:
        self._sam = sam
        self._files = graph_files(sam, name, log)
        providers = _providers(device, self._files["image_encoder"].parent, log)
        threads = torch.get_num_threads()
        self._sessions = _opened(self._files, threads, providers)
        for graph, session in self._sessions.items():
            wanted, got = providers[0][0], session.get_providers()[0]
            if got != wanted:
                log(f"{graph}: ONNX Runtime cannot use {wanted} here and falls back to {got}")
        # For work side by side: as many threads as cores, each with sessions of one thread.
        small = sum(file.stat().st_size for file in self._files.values()) < _SMALL
        self._threads = threads if device.type == "cpu" and small else 1
        self._narrow: dict[str, onnxruntime.InferenceSession] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._in_pool = threading.local()

    def encode(self, view: np.ndarray | Tensor) -> Features:
        """See :meth:`sap_ros.core.model.Model.encode`."""
        pixels = view.to(torch.uint8).numpy() if isinstance(view, Tensor) else view
        maps = [torch.from_numpy(m) for m in self._run("image_encoder", view=pixels[None])]
        sizes = [(m.shape[2], m.shape[3]) for m in maps]
        return Features([m.flatten(2).permute(2, 0, 1) for m in maps], sizes)

    def decode(
        self,
        features: Features,
        index: int,
        count: int,
        memory: Memory,
        points: dict[str, Tensor] | None,
        mask: Tensor | None,
        previous: Tensor | None,
    ) -> Decoded:
        """See :meth:`sap_ros.core.model.Model.decode`."""
        if points is None and mask is not None:
            return self._taken(features, mask)
        coarse = _map(features, -1)
        if points is None:
            coarse = self._remembered(coarse, memory, index, count)
        corrected = correction(points, mask, previous)
        return self._decoded(features, coarse, points, corrected, prompted=points is not None)

    def remember(self, features: Features, decoded: Decoded) -> dict[str, Any]:
        """See :meth:`sap_ros.core.model.Model.remember`."""
        present = {}
        if self._sam.no_obj_embed_spatial is not None:
            present["object_scores"] = decoded.object_scores.numpy()
        (memory,) = self._run(
            "memory_encoder",
            features=_map(features, -1),
            mask=decoded.full.numpy(),
            from_points=np.full(len(decoded.full), decoded.prompted),
            **present,
        )
        pointer = decoded.remembered["obj_ptr"]
        return {
            "maskmem_features": as_kept(torch.from_numpy(memory), pointer.dtype),
            "obj_ptr": pointer,
        }

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """See :meth:`sap_ros.core.model.Model.side_by_side`.

        A view of a small network keeps few cores busy, the work around it one: as many pieces of work as there are
        cores take less time together, with a thread for each, than one by one with all threads for each.
        """
        if self._threads == 1 or len(works) < 2:
            for work in works:
                work()
            return
        if self._pool is None:
            self._narrow = _opened(self._files, 1, [(_CPU, {})])
            # The initializer must not refer to this network, or it would live as long as its threads.
            self._pool = ThreadPoolExecutor(
                self._threads, "sap network", setattr, (self._in_pool, "here", True)
            )
        for done in [self._pool.submit(work) for work in works]:
            done.result()

    def _taken(self, features: Features, mask: Tensor) -> Decoded:
        """Uses a mask (N, 1, S, S) as the output; the object pointer is the decoder's."""
        full = mask * 20 - 10  # as SAM 2's _use_mask_as_output
        low = F.interpolate(
            full, scale_factor=1 / 4, mode="bilinear", align_corners=False, antialias=True
        )
        reduced = self._sam.mask_downsample(mask)
        decoded = self._decoded(features, _map(features, -1), None, reduced, prompted=False)
        here = mask.flatten(1).any(1, keepdim=True).float()
        pointer = here * decoded.remembered["obj_ptr"] + (1 - here) * self._sam.no_obj_ptr
        ious = torch.ones(len(mask), 1)
        return Decoded(low, ious, low, here * 20 - 10, {"obj_ptr": pointer}, full, prompted=False)

    def _remembered(self, coarse: np.ndarray, memory: Memory, index: int, count: int) -> np.ndarray:
        """The features (N, C, h, w) of a view, conditioned on a memory bank."""
        sam = self._sam
        prompted, seen = memory["cond_frame_outputs"], memory["non_cond_frame_outputs"]
        read = [(0, entry) for entry in prompted.values()]
        ages = range(sam.num_maskmem - 1, 0, -1)
        read += [(age, seen[index - age]) for age in ages if index - age in seen]
        longest = min(count, sam.max_obj_ptrs_in_encoder)
        pointed = [(index - i, entry) for i, entry in prompted.items() if i <= index]
        ages = range(1, longest)
        pointed += [(age, seen[index - age]) for age in ages if index - age in seen]
        objects = len(read[0][1]["obj_ptr"])
        pointers = [entry["obj_ptr"] for _, entry in pointed]
        ages_of_pointers = {}
        if sam.add_tpos_enc_to_obj_ptrs:
            since = np.array([age for age, _ in pointed], np.float32)
            ages_of_pointers["pointer_ages"] = since / max(longest - 1, 1)
        (conditioned,) = self._run(
            "memory_attention",
            features=coarse,
            memories=torch.stack([entry["maskmem_features"] for _, entry in read], 1).numpy(),
            memory_ages=np.array([age for age, _ in read]),
            pointers=np.stack(pointers, 1)
            if pointers
            else np.zeros((objects, 0, sam.hidden_dim), np.float32),
            **ages_of_pointers,
        )
        return conditioned

    def _decoded(
        self,
        features: Features,
        coarse: np.ndarray,
        points: dict[str, Tensor] | None,
        mask: Tensor | None,
        prompted: bool,
    ) -> Decoded:
        """Runs the mask decoder and chooses among its masks as SAM 2's ``_forward_sam_heads``."""
        sam, low = self._sam, self._sam.sam_prompt_encoder.mask_input_size
        given = points["point_labels"] if points is not None else mask
        objects = len(coarse) if given is None else len(given)
        if points is None:
            coords, labels = np.zeros((objects, 1, 2)), np.full((objects, 1), -1)
        else:
            coords, labels = points["point_coords"].numpy(), points["point_labels"].numpy()
        finer = ("fine", "middle") if sam.use_high_res_features_in_sam else ()
        outputs = self._run(
            "mask_decoder",
            **{name: _map(features, i) for i, name in enumerate(finer)},
            features=coarse,
            points=coords.astype(np.float32),
            labels=labels.astype(np.int32),
            mask=np.zeros((objects, 1, *low), np.float32) if mask is None else mask.numpy(),
            has_mask=np.full(objects, mask is not None),
        )
        masks, ious, pointers, scores = (torch.from_numpy(output) for output in outputs)
        several = sam._use_multimask(prompted, points) and (points is not None or mask is None)
        if several:
            masks, ious = masks[:, 1:], ious[:, 1:]
        elif sam.sam_mask_decoder.dynamic_multimask_via_stability:
            masks, ious = sam.sam_mask_decoder._dynamic_multimask_via_stability(masks, ious)
        else:
            masks, ious = masks[:, :1], ious[:, :1]
        masks = torch.where((scores > 0)[..., None, None], masks, NO_OBJ_SCORE)
        rows, first = torch.arange(objects), ious.argmax(1)
        own_token = several and sam.use_multimask_token_for_obj_ptr
        pointer = pointers[rows, 1 + first if own_token else 0]
        best = masks[rows, first][:, None]
        return Decoded(masks, ious, best, scores, {"obj_ptr": pointer}, best, points is not None)

    def _run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        given = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        sessions = self._narrow if hasattr(self._in_pool, "here") else self._sessions
        return sessions[graph].run(None, given)


def _opened(
    files: Mapping[str, Path], threads: int, providers: list[tuple[str, dict[str, Any]]]
) -> dict[str, onnxruntime.InferenceSession]:
    """Sessions of the graphs, of so many threads each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take CPU time from the robot's other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return {
        graph: onnxruntime.InferenceSession(file, options, providers=providers)
        for graph, file in files.items()
    }


def _map(features: Features, level: int) -> np.ndarray:
    """A feature map in the layout of the graphs' inputs, (1, channels, h, w)."""
    return features.maps[level].permute(1, 2, 0).unflatten(2, features.sizes[level]).numpy()


def _providers(
    device: torch.device, folder: Path, log: Callable[[str], None]
) -> list[tuple[str, dict[str, Any]]]:
    """ONNX Runtime's providers for a device, best first; TensorRT engines are cached in the folder."""
    if device.type == "cpu":
        return [(_CPU, {})]
    number = device.index or 0
    engines = {
        "device_id": number,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder / "tensorrt"),
    }
    known: dict[str, dict[str, Any]] = {
        "TensorrtExecutionProvider": engines,
        "CUDAExecutionProvider": {"device_id": number},
    }
    here = onnxruntime.get_available_providers()
    usable = [(name, options) for name, options in known.items() if name in here]
    if not usable:
        log(f"this onnxruntime has neither of {', '.join(known)}: it falls back to {_CPU}")
    elif usable[0][0] == "TensorrtExecutionProvider":
        log(
            f"TensorRT engines are kept in {folder / 'tensorrt'}; they are built on first use, which takes minutes"
        )
    return [*usable, (_CPU, {})]
