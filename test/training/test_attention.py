"""Where the cross attention looks: its weights are the layer's own, memory is read in SAM 2's order."""

import pytest
import torch

pytest.importorskip("accelerate")

from sap_ros.core.checkpoints import build_architecture, checkpoint_path, read_weights
from sap_ros.core.network import Features, decode_view, empty_memory, remember
from sap_ros.training.attention import WatchedAttention, attention_weights, memory_views
from sap_ros.training.steps import encode

SIDE = 8  # places along a side of a view of 128 pixels


@pytest.fixture(scope="module")
def sam():
    sam = build_architecture("sap-nano", 128)
    sam.load_state_dict(read_weights(checkpoint_path("sap-nano")))
    return sam.train()


def test_the_weights_are_those_that_the_layer_reads_with(sam):
    torch.manual_seed(0)
    layer = sam.memory_attention.layers[0].cross_attn_image
    query, memory = torch.randn(2, SIDE**2, 256), torch.randn(2, 3 * SIDE**2, 64)
    weights = attention_weights(layer, query, memory)
    assert torch.allclose(weights.sum(-1), torch.ones(2, SIDE**2), atol=1e-4)
    read = layer.out_proj(weights @ layer.v_proj(memory))
    assert torch.allclose(read, layer(query, memory, memory), atol=1e-4)


def test_memory_is_read_in_the_order_that_is_said(sam):
    torch.manual_seed(0)
    views, count = 10, 2
    images = torch.randint(0, 256, (views, 128, 128, 3), dtype=torch.uint8)
    flat, positions, sizes = encode(sam, images, True, True)
    memory, read = empty_memory(), []
    hook = sam.memory_attention.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["memory"]), with_kwargs=True
    )
    clicked = (0, 4)
    for i in sorted(range(views), key=lambda view: view not in clicked):
        features = Features([f[:, i : i + 1].expand(-1, count, -1) for f in flat], sizes)
        places = [p[:, i : i + 1].expand(-1, count, -1) for p in positions]
        points = None
        if i in clicked:
            at = torch.rand(count, 1, 2) * 128
            points = {"point_coords": at, "point_labels": torch.ones(count, 1, dtype=torch.int32)}
        with torch.no_grad():
            view = decode_view(sam, features, places, i, views, memory, points)
            if points is None:
                expected = []
                for j in memory_views(sam, memory, i):
                    kept = {**memory["cond_frame_outputs"], **memory["non_cond_frame_outputs"]}
                    expected.append(kept[j]["maskmem_features"].flatten(2).permute(2, 0, 1))
                expected = torch.cat(expected)
                assert torch.equal(read[-1][: len(expected)], expected)
                pointers = len(read[-1]) - len(expected)
                assert 0 < pointers < SIDE**2
            kind = "cond_frame_outputs" if points is not None else "non_cond_frame_outputs"
            memory[kind][i] = remember(sam, features, view)
    hook.remove()
    assert len(read) == views - len(clicked)


def test_a_place_that_looks_at_the_object_costs_little_where_it_should(sam):
    class Looks:
        num_heads, rope_k_repeat = 1, True
        compute_cis = staticmethod(sam.memory_attention.layers[0].cross_attn_image.compute_cis)
        q_proj = k_proj = staticmethod(lambda x: x * 4)

        def _separate_heads(self, x, heads):
            return x[:, None]

    # Each place looks at its own in memory, where half is the object.
    torch.manual_seed(0)
    seen = torch.nn.functional.normalize(torch.randn(1, SIDE**2, 256), dim=-1) * 8
    half = torch.zeros(1, SIDE**2)
    half[:, : SIDE**2 // 2] = 1
    watched = WatchedAttention(sam)
    costs = []
    for target in (half, 1 - half):
        watched._keep(Looks(), (), {"q": seen, "k": seen})
        costs.append(watched.loss(half, target).item())
    assert costs[0] < 0.05
    assert costs[1] > 2


def test_only_what_is_asked_while_it_watches_is_kept(sam):
    layer = sam.memory_attention.layers[0].cross_attn_image
    query, memory = torch.randn(1, SIDE**2, 256), torch.randn(1, SIDE**2 + 4, 64)
    with WatchedAttention(sam) as watched:
        layer(q=query, k=memory, v=memory, num_k_exclude_rope=4)
    layer(q=query, k=memory, v=memory, num_k_exclude_rope=4)
    ((_, _, keys),) = watched._recorded
    assert keys.shape[1] == SIDE**2  # pointers are left out
    share = torch.rand(1, SIDE**2)
    watched.loss(share, share).backward()
    assert layer.q_proj.weight.grad.abs().sum() > 0
    layer.zero_grad()
