"""rendering: views of a panorama, by cv2.remap and on a torch device."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import View, view_to_direction
from sap_ros.core.projection import Panorama
from sap_ros.core.rendering import TorchRenderer, ViewRenderer, arctan2
from sap_ros.core.scan import Scan, steady, tilted
from sap_ros.core.views import PerspectiveViews

SCAN = Scan()
sizes = st.sampled_from([(512, 256), (1000, 500), (1002, 501), (1024, 512)])
TILTED = tilted(SCAN, steady((0.2, -0.5, 0.8)))
views = st.one_of(
    st.sampled_from(SCAN.views),
    st.sampled_from(TILTED.views),
    # Nearly touching a pole with a side or a corner, too.
    st.builds(
        View,
        st.floats(-3.2, 3.2),
        st.one_of(st.floats(-1.57, 1.57), st.floats(0.7, 0.9)),
        st.just(np.pi / 2),
        st.one_of(st.floats(-3.2, 3.2), st.sampled_from([0.1, 0.01, 1.56, np.pi])),
    ),
)
OWN = (
    View(0.3, 1.5, np.radians(40)),
    View(3.1, 0.0, np.radians(20)),
    View(-3.14, -1.57),
    View(2.0, 1.2, np.radians(60), 0.5),
    View(-3.1, -0.1, np.radians(30), -2.0),
)


def _position_panorama(size):
    """A float panorama whose pixels hold their own direction: what a view shows tells from where."""
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    return sphere.pixel_to_direction(np.stack([u, v], -1), size).astype(np.float32)


@given(sizes, views, st.integers(136, 200))  # not so small that the panorama is reduced
@settings(max_examples=100)
def test_a_view_shows_each_direction_where_it_is(size, view, side):
    shown = ViewRenderer(_position_panorama(size), side).render(view).astype(float)
    v, u = np.mgrid[:side, :side] + 0.5
    true = view_to_direction(np.stack([u, v], -1), view, side)
    pixel = 2 * np.pi / size[0]  # angle of a panorama pixel at the equator
    assert sphere.angle_between(shown, true).max() < 0.05 * pixel


@given(st.integers(0, 7), views)
def test_a_roll_of_the_panorama_rolls_the_view(columns, view):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 512, 3), np.uint8)
    turned = np.roll(image, 64 * columns, axis=1)
    other = replace(view, yaw=view.yaw - 2 * np.pi * columns / 8)
    a = ViewRenderer(image, 64).render(view)
    b = ViewRenderer(turned, 64).render(other)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [2048, 1042])  # halved to 256 columns, to 260
def test_a_fine_panorama_is_averaged_over_areas(width):
    image = np.random.default_rng(0).integers(0, 256, (width // 2, width, 3), np.uint8)
    reduced = cv2.resize(
        image, (256, 128) if width == 2048 else (520, 260), interpolation=cv2.INTER_AREA
    )
    fine = ViewRenderer(image, 64 if width == 2048 else 128)
    coarse = ViewRenderer(reduced, fine.size)
    for view in SCAN.views:
        assert np.abs(fine.render(view).astype(int) - coarse.render(view)).max() <= 2


def test_labels_are_picked_not_mixed():
    labels = np.random.default_rng(0).choice(np.array([0, 7, 300], np.uint16), (256, 512))
    shown = ViewRenderer(labels, 128, labels=True).render(View(0.3, 0.5))
    assert set(np.unique(shown)) <= {0, 7, 300}


def test_a_fine_panorama_does_not_alias():
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = ViewRenderer(stripes, 64).render(View(0, 0))
    assert abs(shown.astype(int) - 127).max() < 20


@pytest.mark.parametrize("side", [64, 120, 300])  # reduced, as it is, enlarged
def test_views_are_those_of_the_other_renderer(panorama, side):
    plain, ours = ViewRenderer(panorama, side), TorchRenderer(panorama, side, torch.device("cpu"))
    for view in (*Scan().views, *OWN):
        shown = ours.render(view)
        assert shown.shape == (side, side, 3)
        assert np.abs(plain.render(view) - shown.numpy()).max() < 1.5


def test_a_model_takes_views_from_a_device(random_model, panorama):
    frames = PerspectiveViews(Panorama(panorama), random_model.image_size, Scan())
    remote = TorchRenderer(panorama, random_model.image_size, torch.device("cpu"))
    ours = random_model.encode(remote.render(frames.views[5]))
    plain = random_model.encode(frames.render(5))
    for one, other in zip(ours.maps, plain.maps, strict=True):
        assert (one - other).abs().max() < 0.05 * other.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_model_encodes_the_same(panorama):
    from sap_ros.core.loading import load_model

    plain, compiled = load_model(image_size=64), load_model(image_size=64, compiled=True)
    view = ViewRenderer(panorama, 64).render(View(0.0, 0.0))
    for one, other in zip(compiled.encode(view).maps, plain.encode(view).maps, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@given(
    st.integers(256, 600),
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-1.5, 1.5), st.floats(0.3, 1.6)), max_size=6),
)
@settings(max_examples=20, deadline=None)
def test_a_view_is_the_same_whichever_views_were_rendered_before(height, before):
    image = np.random.default_rng(height).integers(0, 255, (height, 2 * height, 3), np.uint8)
    view, renderer = View(0.4, -0.2, 1.5), ViewRenderer(image, 32)
    for yaw, pitch, fov in before:
        renderer.render(View(yaw, pitch, fov), keep=False)
    reduced = image
    while reduced.shape[1] / (2 * np.pi) >= 2 * 32 / view.fov:
        rows = reduced.shape[0] // 2
        reduced = cv2.resize(reduced, (2 * rows, rows), interpolation=cv2.INTER_AREA)
    assert len(reduced) < height
    expected = ViewRenderer(reduced, 32).render(view)
    assert np.array_equal(renderer.render(view), expected)


@given(st.integers(0, 2**32 - 1))
def test_arctan2_is_numpys(seed):
    rng = np.random.default_rng(seed)
    y, x = rng.normal(size=(2, 50, 40)).astype(np.float32) * 10.0 ** rng.integers(-6, 6)
    y[rng.random(y.shape) < 0.1], x[rng.random(x.shape) < 0.1] = 0, 0
    expected = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    assert np.abs(arctan2(y, x) - expected).max() < 4e-7  # rounding of pi
