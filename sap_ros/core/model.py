"""A SAM 2 network on a device: loaded by name, run view by view."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sap_ros.core.checkpoints import (
    DEFAULT_MODEL,
    build_architecture,
    check_architecture,
    checkpoint_path,
    model_info,
    read_weights,
)
from sap_ros.core.download import Progress
from sap_ros.core.fusion import Fusion
from sap_ros.core.graphs import normalize as normalize
from sap_ros.core.nano import EfficientNetLiteTrunk
from sap_ros.core.network import Decoded as Decoded
from sap_ros.core.network import Features as Features
from sap_ros.core.network import Memory as Memory
from sap_ros.core.network import TorchNetwork
from sap_ros.core.network import decode_view as decode_view
from sap_ros.core.network import empty_memory as empty_memory
from sap_ros.core.network import remember as remember

FixedBackend = Literal["torch", "onnxruntime"]
Backend = Literal["auto", FixedBackend]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class Network(Protocol):
    """What runs a SAM 2 network. The methods are those of :class:`Model`, with all arguments given."""

    def encode(self, view: np.ndarray | Tensor) -> Features: ...

    def decode(
        self,
        features: Features,
        index: int,
        count: int,
        memory: Memory,
        points: dict[str, Tensor] | None,
        mask: Tensor | None,
        previous: Tensor | None,
    ) -> Decoded: ...

    def remember(self, features: Features, decoded: Decoded) -> dict[str, Any]: ...


def _silent(_: str) -> None:
    pass


class Model:
    """A SAM 2 model on a device; encodes views. Views are square, of ``image_size`` pixels.

    Args:
        sam: the network.
        name: what to call it.
        device: a torch device.
        fusion, weak_memory, mask_feedback: see :class:`sap_ros.core.checkpoints.ModelInfo`.
        compiled: see :class:`sap_ros.core.network.TorchNetwork`.
        backend: what runs the network: ``torch``; or ``onnxruntime``, which exports it to the cache
            when it is not there.
        tell: told, in a line, of what takes long, and of what cannot be used.

    Attributes:
        device: the torch device of views and prompts.
    """

    def __init__(
        self,
        sam: SAM2Base,
        name: str,
        device: str | torch.device = "cpu",
        fusion: Fusion = "max",
        weak_memory: bool = False,
        compiled: bool = False,
        mask_feedback: bool = True,
        backend: FixedBackend = "torch",
        tell: Callable[[str], None] = _silent,
    ) -> None:
        chosen = torch.device(device)
        # ONNX Runtime takes views and gives masks in the host's memory.
        self.device = chosen if backend == "torch" else torch.device("cpu")
        self.sam = sam.to(self.device).eval()
        self.name, self.fusion, self.weak_memory = name, fusion, weak_memory
        self.mask_feedback, self.backend = mask_feedback, backend
        self.image_size: int = sam.image_size
        self._again = partial(
            Model,
            name=name,
            device=chosen,
            fusion=fusion,
            weak_memory=weak_memory,
            compiled=compiled,
            mask_feedback=mask_feedback,
            backend=backend,
            tell=tell,
        )
        self._network: Network
        if backend == "torch":
            self._network = TorchNetwork(self.sam, compiled)
        else:
            from sap_ros.core.onnx_network import OnnxNetwork  # which needs onnxruntime

            self._network = OnnxNetwork(self.sam, name, chosen, tell)

    def resized(self, image_size: int) -> Model:
        """The same model, its weights shared, for views of another size.

        Raises:
            ValueError: a size that does not fit.
        """
        sam = build_architecture(self.name, image_size)
        sam.image_encoder = self.sam.image_encoder  # the same for all sizes
        sam.load_state_dict(self.sam.state_dict(), assign=True)
        return self._again(sam)

    @torch.inference_mode()
    def encode(self, view: np.ndarray | Tensor) -> Features:
        """Encodes a view, (S, S, 3) RGB: uint8, or a tensor on the model's device, 0 to 255."""
        return self._network.encode(view)

    @torch.inference_mode()
    def decode(
        self,
        features: Features,
        index: int = 0,
        count: int = 1,
        memory: Memory | None = None,
        points: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Decoded:
        """Decodes N objects in a view; see :func:`sap_ros.core.network.decode_view`.

        Args:
            features: of the view, as :meth:`encode` gives them.
            index, count, points, mask, previous: as there, on the model's device.
            memory: what came before; None: nothing.
        """
        bank = empty_memory() if memory is None else memory
        return self._network.decode(features, index, count, bank, points, mask, previous)

    @torch.inference_mode()
    def remember(self, features: Features, decoded: Decoded) -> dict[str, Any]:
        """Encodes what SAM 2 reads of a decoded view in later ones, and keeps it as SAM 2 does."""
        return self._network.remember(features, decoded)


def load_model(
    name: str = DEFAULT_MODEL,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    progress: Progress | None = None,
    compiled: bool = False,
    backend: Backend = "auto",
    tell: Callable[[str], None] = _silent,
) -> Model:
    """Loads a model.

    Args:
        name: a key of :data:`MODELS`: which architecture, and which weights.
        checkpoint: a file with other weights for that architecture.
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        image_size: side of a view in pixels, a multiple of 32; None takes the model's own.
        progress: told of a download, as (bytes, all bytes).
        compiled: see :class:`Model`.
        backend: see :class:`Model`; auto: ``onnxruntime`` on a CPU where it is installed, else, or
            where it fails, ``torch``.
        tell: see :class:`Model`.

    Raises:
        ValueError: an unknown name, device or backend; a damaged file, or one of another architecture.
        OSError: a file that is not there, a download that failed.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from error
    sam = build_architecture(name, image_size)
    path = checkpoint or checkpoint_path(name, progress)
    weights = read_weights(path)
    check_architecture(sam, weights, f"{path} does not fit {name}")
    sam.load_state_dict(weights)
    if isinstance(sam.image_encoder.trunk, EfficientNetLiteTrunk):
        sam.image_encoder.trunk.fold()
    info = model_info(name)
    made = partial(
        Model,
        sam,
        name,
        chosen,
        info.fusion,
        info.weak_memory,
        compiled,
        info.mask_feedback,
        tell=tell,
    )
    fixed = _chosen(backend, chosen)
    try:
        return made(backend=fixed)
    except Exception as error:  # such as a cache that cannot be written to, or too little memory
        if backend != "auto" or fixed == "torch":
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        tell(f"{name} cannot be run in ONNX Runtime here ({reason}) and falls back to torch")
        return made(backend="torch")


def _chosen(backend: Backend, device: torch.device) -> FixedBackend:
    """What ``auto`` stands for here. Raises ValueError if the backend is unknown or not installed."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    missing = [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]
    if backend == "onnxruntime" and missing:
        raise ValueError(
            f"backend is onnxruntime, and {' and '.join(missing)} are not installed: "
            "pip install onnxruntime onnx (on NVIDIA's GPUs onnxruntime-gpu in its place)"
        )
    if backend == "auto":
        return "torch" if missing or device.type != "cpu" else "onnxruntime"
    return backend
