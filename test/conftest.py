"""Shared by all tests: one thread budget, hypothesis without deadlines, a small random model."""

from __future__ import annotations

import os

# Before torch is imported: a thread for each test process, of which there are as many as cores. The
# processes that a test starts inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.model import Model

settings.register_profile("sap", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("sap")

# Tests talk over DDS on this machine only.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")


@pytest.fixture(scope="session", autouse=True)
def _cache(pytestconfig: pytest.Config) -> None:
    """Exported graphs are kept with pytest's own cache, for this run and the next."""
    assert pytestconfig.cache is not None
    os.environ["SAP_CACHE"] = str(pytestconfig.cache.mkdir("sap_ros"))


@pytest.fixture(scope="session")
def random_model() -> Model:
    """sap-nano's architecture with random weights, 64 pixels a view; it always masks something."""
    torch.manual_seed(1)
    sam = build_architecture("sap-nano", 64)
    # Else the object is absent from every view, and a test compares nothing with nothing.
    with torch.no_grad():
        sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return Model(sam, "random")


@pytest.fixture(scope="session")
def panorama() -> np.ndarray:
    """A panorama (256, 512, 3) that is smooth over seam and poles: a few waves in space."""
    from sap_ros.core import sphere

    v, u = np.mgrid[:256, :512] + 0.5
    directions = sphere.pixel_to_direction(np.stack([u, v], -1), (512, 256))
    rng = np.random.default_rng(5)
    waves = np.sin(directions @ rng.normal(0, 4, (3, 12)) + rng.uniform(0, 6, 12))
    colours = waves.reshape(256, 512, 3, 4).mean(-1)
    return np.round((colours + 1) * 127).astype(np.uint8)
