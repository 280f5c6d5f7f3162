"""Supervises the memory cross-attention, so that tokens of the object attend to the object.

For each token of a view: its attention weights on the spatial memory tokens of earlier views (object
pointers are left out), times the share of each memory token that the object covers, summed. The sum is the
share of the attention that is on the object: it should be high for tokens of the object, low for all others.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sap_ros.core.network import Memory


class WatchedAttention:
    """A context in which the queries and keys of each cross-attention layer are recorded.

    Args:
        sam: the network; its memory attention may have one head or several.
    """

    def __init__(self, sam: SAM2Base) -> None:
        self._layers = [layer.cross_attn_image for layer in sam.memory_attention.layers]
        self._recorded: list[tuple[Any, Tensor, Tensor]] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> WatchedAttention:
        self._hooks = [
            layer.register_forward_pre_hook(self._keep, with_kwargs=True) for layer in self._layers
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pointers = kwargs.get("num_k_exclude_rope", 0)
        keys = kwargs["k"]
        self._recorded.append((layer, kwargs["q"], keys[:, : keys.shape[1] - pointers]))

    def loss(self, remembered: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the attention recorded since the last call, averaged over layers and tokens.

        Args:
            remembered: (N, K) in 0 to 1, the share of each spatial memory token that the object
                covers, in the memory's order (see :func:`memory_views`).
            target: (N, T) in 0 to 1, the share of each token of the view that the object covers.
        """
        losses = []
        for layer, query, keys in self._recorded:
            shares = attention_weights(layer, query, keys) @ remembered[:, :, None]
            shares = shares[:, :, 0].float().clamp(1e-4, 1 - 1e-4)
            losses.append(F.binary_cross_entropy(shares, target))
        self._recorded.clear()
        return torch.stack(losses).mean()


def attention_weights(layer: Any, query: Tensor, keys: Tensor) -> Tensor:
    """Weights (N, T, K) of SAM 2's RoPE attention, for queries (N, T, C) and keys (N, K, C).

    They are averaged over the heads.
    """
    q = layer._separate_heads(layer.q_proj(query), layer.num_heads)
    k = layer._separate_heads(layer.k_proj(keys), layer.num_heads)
    side = math.isqrt(q.shape[-2])
    turns = layer.compute_cis(end_x=side, end_y=side).to(q.device)
    q, k = apply_rotary_enc(q, k, freqs_cis=turns, repeat_freqs_k=layer.rope_k_repeat)
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1).mean(1)


def memory_views(sam: SAM2Base, memory: Memory, index: int) -> list[int]:
    """The views whose memory SAM 2 reads for view ``index`` during training, in its order.

    First all views with a prompt, then those of the last ``num_maskmem`` - 1 views that have none.
    """
    last = range(index - sam.num_maskmem + 1, index)
    return [
        *memory["cond_frame_outputs"],
        *(i for i in last if i in memory["non_cond_frame_outputs"]),
    ]
