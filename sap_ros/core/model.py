"""A SAM 2 network on a device, run view by view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.fusion import Fusion
from sap_ros.core.network import Decoded, Features, Memory, TorchNetwork, empty_memory

if TYPE_CHECKING:
    from sap_ros.core.loading import FixedBackend


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

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None: ...


def _silent(_: str) -> None:
    pass


class Model:
    """A SAM 2 model on a device; encodes views. Views are square, of ``image_size`` pixels.

    Args:
        sam: the network.
        name: what to call it.
        device: a torch device.
        fusion, weak_memory: see :class:`sap_ros.core.checkpoints.ModelInfo`.
        compiled: see :class:`sap_ros.core.network.TorchNetwork`.
        backend: what runs the network: ``torch``; or ``onnxruntime``, which exports it to the cache
            when it is not there.
        log: called with a line on what takes long, and on what cannot be used.

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
        backend: FixedBackend = "torch",
        log: Callable[[str], None] = _silent,
    ) -> None:
        chosen = torch.device(device)
        # ONNX Runtime takes views and gives masks in the host's memory.
        self.device = chosen if backend == "torch" else torch.device("cpu")
        self.sam = sam.to(self.device).eval()
        self.name, self.fusion, self.weak_memory = name, fusion, weak_memory
        self.backend = backend
        self.image_size: int = sam.image_size
        self._again = partial(
            Model,
            name=name,
            device=chosen,
            fusion=fusion,
            weak_memory=weak_memory,
            compiled=compiled,
            backend=backend,
            log=log,
        )
        self._network: Network
        if backend == "torch":
            self._network = TorchNetwork(self.sam, compiled)
        else:
            from sap_ros.core.onnx_network import OnnxNetwork  # which needs onnxruntime

            self._network = OnnxNetwork(self.sam, name, chosen, log)

    def resized(self, image_size: int) -> Model:
        """The same model, its weights shared, for views of another size.

        Raises:
            ValueError: a size that does not fit.
        """
        sam = build_architecture(self.name, image_size)
        # The same for all sizes, and perhaps folded.
        sam.image_encoder, sam.sam_mask_decoder = (
            self.sam.image_encoder,
            self.sam.sam_mask_decoder,
        )
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

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Does pieces of work that call this model: several at once, in threads, if that is faster, or in turn.

        Args:
            works: independent of each other; they must not raise exceptions.
        """
        self._network.side_by_side(works)
