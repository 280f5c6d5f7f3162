"""Where memory's cross attention looks, so that it can be trained to look at the object.

For each place of a view, the attention to the places of earlier views (their spatial memory tokens;
object pointers are left out), times the object's share of each of those places, summed: how much of what
the place looks at is the object. A place of the object should look at the object, any other should not.
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
    """While it is entered, what the cross attention of each layer is asked is kept.

    Args:
        sam: the network, whose memory attention has one head or several.
    """

    def __init__(self, sam: SAM2Base) -> None:
        self._layers = [layer.cross_attn_image for layer in sam.memory_attention.layers]
        self._asked: list[tuple[Any, Tensor, Tensor]] = []
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
        self._asked.append((layer, kwargs["q"], keys[:, : keys.shape[1] - pointers]))

    def loss(self, remembered: Tensor, target: Tensor) -> Tensor:
        """The cross entropy of where was looked since the last call, meant over layers and places.

        Args:
            remembered: (N, K) in 0 to 1, the object's share of each spatial token of memory, in
                memory's order (see :func:`memory_views`).
            target: (N, T) in 0 to 1, the object's share of each place of the view.
        """
        losses = []
        for layer, query, keys in self._asked:
            shares = attention_weights(layer, query, keys) @ remembered[:, :, None]
            shares = shares[:, :, 0].float().clamp(1e-4, 1 - 1e-4)
            losses.append(F.binary_cross_entropy(shares, target))
        self._asked.clear()
        return torch.stack(losses).mean()


def attention_weights(layer: Any, query: Tensor, keys: Tensor) -> Tensor:
    """What SAM 2's rotary attention weighs keys (N, K, C) with, for a query (N, T, C): (N, T, K).

    The mean over its heads.
    """
    q = layer._separate_heads(layer.q_proj(query), layer.num_heads)
    k = layer._separate_heads(layer.k_proj(keys), layer.num_heads)
    side = math.isqrt(q.shape[-2])
    turns = layer.compute_cis(end_x=side, end_y=side).to(q.device)
    q, k = apply_rotary_enc(q, k, freqs_cis=turns, repeat_freqs_k=layer.rope_k_repeat)
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1).mean(1)


def memory_views(sam: SAM2Base, memory: Memory, index: int) -> list[int]:
    """The views that SAM 2 reads memory of for a view, in training and in its order.

    First all views with a prompt, then those of the last ``num_maskmem`` - 1 that have none.
    """
    last = range(index - sam.num_maskmem + 1, index)
    return [
        *memory["cond_frame_outputs"],
        *(i for i in last if i in memory["non_cond_frame_outputs"]),
    ]
