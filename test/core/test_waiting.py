"""The host does not wait for a GPU while views are encoded, decoded and remembered; for a mask it waits once.

Without a GPU, torch's meta device stands for one: it has no values to wait for, so that reading one raises an
error, and copies to it show whether the host would wait for them.
"""

import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sap_ros.core import tracker
from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.loading import load_model
from sap_ros.core.memory import ObjectMemory
from sap_ros.core.model import Model
from sap_ros.core.network import Decoded
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import ViewPrompt
from sap_ros.core.scan import Scan
from sap_ros.core.views import PerspectiveViews

SIDES = {"sap-nano": 64, "sam2.1-tiny": 128, "efficienttam-ti": 64, "edgetam": 256}


def prompts(side):
    """A click, a click that corrects a mask, and a mask."""
    points, labels = np.array([[9.0, 9.0]], np.float32), np.array([1], np.int32)
    low, mask = np.zeros((side // 4, side // 4), np.float32), np.zeros((side, side), bool)
    none = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    return [
        ViewPrompt(points, labels),
        ViewPrompt(points, labels, previous=low),
        ViewPrompt(*none, mask=mask),
    ]


def all_steps(model, encode):
    """Encodes a view, decodes it by each kind of prompt and from memory, and remembers each."""
    features, memory = encode(), ObjectMemory()
    for i, prompt in enumerate([*prompts(model.image_size), None, None]):
        decoded, entry = tracker._decode(model, features, i, i + 1, memory, prompt, 6)
        memory.write(i, entry, prompted=prompt is not None)
        entry()
    return decoded


class Copies(TorchDispatchMode):
    """Notes the operators that copy between devices, and those for which the host would wait."""

    def __init__(self):
        super().__init__()
        self.all, self.waiting = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sources = {value.device for value in args if isinstance(value, torch.Tensor)}
        if isinstance(out, torch.Tensor) and sources and {out.device} != sources:
            self.all.append(str(func))
            if not (kwargs or {}).get("non_blocking"):
                self.waiting.append(str(func))
        return out


@pytest.mark.parametrize("name", SIDES)
def test_nothing_waits_for_the_device(name):
    torch.manual_seed(0)
    model = Model(build_architecture(name, SIDES[name]), name, "meta")
    view = np.zeros((model.image_size, model.image_size, 3), np.uint8)
    for module in model.sam.modules():
        if hasattr(module, "cache"):  # positional encodings that were made on the CPU
            module.cache.clear()
    all_steps(model, lambda: model.encode(view))
    with Copies() as copies:
        all_steps(model, lambda: model.encode(view))
    assert len(copies.all) >= 7  # the view; two points and labels, a mask, two masks as prompts
    assert copies.waiting == []


def test_a_copy_that_waits_is_noticed():
    with Copies() as copies, torch.inference_mode():
        torch.zeros(3).to("meta")
        torch.zeros(3).to("meta", non_blocking=True)
    assert len(copies.all) == 2
    assert len(copies.waiting) == 1


@pytest.mark.parametrize(
    ("prior", "agreement"),
    [(None, 1.0), (np.ones((16, 16), bool), 0.25), (np.ones((16, 16), bool), 1.0)],
    ids=["best", "rather the best", "rather the nearest"],
)
def test_a_mask_and_its_scores_come_in_one_copy(prior, agreement, monkeypatch):
    masks = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks[0, 0] += 3  # the prior's whole view
    ious, scores = torch.tensor([[0.2, 0.6, 0.4]]), torch.tensor([[-3.0]])
    decoded = Decoded(masks, ious, masks[:, 1:2], scores, {}, masks[:, 1:2], True)
    copied, to_host = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copied.append(x.shape) or to_host(x))
    monkeypatch.setattr(torch.Tensor, "item", None)
    mask = tracker._mask(decoded, prior, agreement)
    assert len(copied) == 1
    chosen = 0 if prior is not None and agreement == 1.0 else 1
    np.testing.assert_array_equal(mask.logits, masks[0, chosen].numpy())
    assert mask.predicted_iou == pytest.approx(float(np.array(ious)[0, chosen]))
    assert mask.object_score == -3.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_not_synchronised_but_for_one_mask_a_view(panorama):
    model = load_model(device="cuda", backend="torch")
    views = PerspectiveViews(Panorama(panorama), model.image_size, Scan(), model.device)
    encoded = EncodedViews(model, views)
    try:
        for i in (0, 1):  # the first view warms up
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error" if i else "default")
            decoded = all_steps(model, lambda i=i: encoded.features(i))
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tracker._mask(decoded)
        assert len([w for w in caught if "synchronizing" in str(w.message)]) == 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
