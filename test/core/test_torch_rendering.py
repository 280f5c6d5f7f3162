"""torch_rendering: the same views as by cv2.remap, on the CPU as the device."""

import numpy as np
import pytest
import torch

from sap_ros.core.camera import View
from sap_ros.core.rendering import TorchRenderer, ViewRenderer
from sap_ros.core.scan import Scan
from sap_ros.core.views import PerspectiveViews

OWN = (View(0.3, 1.5, np.radians(40)), View(3.1, 0.0, np.radians(20)), View(-3.14, -1.57))


@pytest.mark.parametrize("side", [64, 120, 300])  # reduced, as it is, enlarged
def test_views_are_those_of_the_other_renderer(panorama, side):
    plain, ours = ViewRenderer(panorama, side), TorchRenderer(panorama, side, torch.device("cpu"))
    for view in (*Scan().views, *OWN):
        shown = ours.render(view)
        assert shown.shape == (side, side, 3)
        assert np.abs(plain.render(view) - shown.numpy()).max() < 1.5


def test_a_model_takes_views_from_a_device(random_model, panorama):
    frames = PerspectiveViews(panorama, random_model.image_size, Scan())
    remote = TorchRenderer(panorama, random_model.image_size, torch.device("cpu"))
    ours = random_model.encode(remote.render(frames.views[5]))
    plain = random_model.encode(frames.render(5))
    for one, other in zip(ours.maps, plain.maps, strict=True):
        assert (one - other).abs().max() < 0.05 * other.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_model_encodes_the_same(panorama):
    from sap_ros.core.model import load_model

    plain, compiled = load_model(image_size=64), load_model(image_size=64, compiled=True)
    view = ViewRenderer(panorama, 64).render(View(0.0, 0.0))
    for one, other in zip(compiled.encode(view).maps, plain.encode(view).maps, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
