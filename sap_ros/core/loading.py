"""Loads a model by name. torch is imported when the first model is loaded, not with this module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

    from sap_ros.core.model import Model

DEFAULT_MODEL = "sap-nano"

FixedBackend = Literal["torch", "onnxruntime"]
Backend = Literal["auto", FixedBackend]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def _silent(_: str) -> None:
    pass


def load_model(
    name: str = DEFAULT_MODEL,
    checkpoint: Path | None = None,
    device: str | torch.device = "auto",
    image_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    compiled: bool = False,
    backend: Backend = "auto",
    log: Callable[[str], None] = _silent,
) -> Model:
    """Loads a model.

    Args:
        name: a key of :data:`sap_ros.core.checkpoints.MODELS`; selects architecture and weights.
        checkpoint: a file with other weights for that architecture.
        device: ``auto`` (CUDA if there is a GPU for it, else the CPU), or a torch device, such as ``cpu`` or
            ``cuda:0``.
        image_size: side of a view in pixels, a multiple of 32 (edgetam: of 256); None: the model's default.
        progress: called during a download with the downloaded bytes and the total bytes.
        compiled: see :class:`sap_ros.core.model.Model`.
        backend: what runs the model, see :class:`sap_ros.core.model.Model`; ``auto``: ``onnxruntime`` on
            a CPU if it is installed, works, and is not slower for this model, otherwise ``torch``.
        log: called with a message before long operations, and if something cannot be used.

    Raises:
        ValueError: the name, device or backend is unknown, or the backend cannot run the model; a file is
            damaged or has another architecture.
        OSError: a file does not exist, or a download failed.
    """
    from sap_ros.core import checkpoints
    from sap_ros.core.folding import fold
    from sap_ros.core.model import Model

    chosen = usable_device(device)
    info = checkpoints.model_info(name)
    fixed = _chosen(backend, chosen, info.faster_in_torch)
    sam = checkpoints.build_architecture(name, image_size)
    path = checkpoint or checkpoints.checkpoint_path(name, progress)
    weights = checkpoints.read_weights(path)
    checkpoints.check_architecture(sam, weights, f"{path} does not fit {name}")
    sam.load_state_dict(weights)
    fold(sam)
    made = partial(Model, sam, name, chosen, info.fusion, info.weak_memory, compiled, log=log)
    try:
        return made(backend=fixed)
    except Exception as error:  # such as a cache that cannot be written to, or too little memory
        if backend != "auto" or fixed == "torch":
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log(f"{name} cannot be run in ONNX Runtime here ({reason}) and falls back to torch")
        return made(backend="torch")


def usable_device(device: str | torch.device) -> torch.device:
    """The torch device of that name, see :func:`load_model`.

    Raises:
        ValueError: it is unknown, or cannot be used here.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from error
    return chosen


def installed_backends() -> tuple[FixedBackend, ...]:
    """The backends whose packages are installed."""
    return ("torch",) if _missing_for_onnx() else ("torch", "onnxruntime")


def _missing_for_onnx() -> list[str]:
    return [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]


def _chosen(backend: Backend, device: torch.device, faster_in_torch: bool) -> FixedBackend:
    """Resolves ``auto`` for a device. Raises ValueError if the backend is unknown or not installed."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    missing = _missing_for_onnx()
    if backend == "onnxruntime" and missing:
        raise ValueError(
            f"backend is onnxruntime, but {' and '.join(missing)} are not installed: pip install "
            "onnxruntime onnx (for NVIDIA GPUs onnxruntime-gpu instead of onnxruntime)"
        )
    if backend == "auto":
        unfit = missing or faster_in_torch or device.type != "cpu"
        return "torch" if unfit else "onnxruntime"
    return backend
