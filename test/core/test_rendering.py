"""projection: views rendered from a panorama, masks fused back onto it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import View, sees, view_to_direction
from sap_ros.core.fusion import NO_OBJECT, Canvas
from sap_ros.core.panorama import check_panorama
from sap_ros.core.rendering import ViewRenderer
from sap_ros.core.scan import Scan

SCAN = Scan()
sizes = st.sampled_from([(512, 256), (1000, 500), (1002, 501), (1024, 512)])
views = st.sampled_from(SCAN.views)


def _position_panorama(size):
    """A float panorama whose pixels hold their own direction: what a view shows tells from where."""
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    return sphere.pixel_to_direction(np.stack([u, v], -1), size).astype(np.float32)


@given(sizes, views, st.integers(136, 200))  # not so small that the panorama is reduced
@settings(max_examples=30)
def test_a_view_shows_each_direction_where_it_is(size, view, side):
    shown = ViewRenderer(_position_panorama(size), side).render(view).astype(float)
    v, u = np.mgrid[:side, :side] + 0.5
    true = view_to_direction(np.stack([u, v], -1), view, side)
    pixel = 2 * np.pi / size[0]  # angle of a panorama pixel at the equator
    assert sphere.angle_between(shown, true).max() < 0.05 * pixel


@given(sizes, views, st.sampled_from([16, 64, 128]))
@settings(max_examples=30)
def test_a_fused_mask_lies_where_the_view_saw_it(size, view, grid):
    """A ramp across the view's grid comes back at every panorama pixel with the ramp's value there."""
    side = 128
    ramp = (np.arange(grid) + 0.5) * (side / grid)  # the view pixel of each grid cell
    for axis in (0, 1):
        mask = np.repeat(ramp[None] if axis == 0 else ramp[:, None], grid, axis=axis)
        canvas = Canvas(size)
        canvas.add_view(view, mask.astype(np.float32), side)
        fused = canvas.logits()
        v, u = np.mgrid[: size[1], : size[0]] + 0.5
        directions = sphere.pixel_to_direction(np.stack([u, v], -1), size)
        x, y, z = np.moveaxis(directions @ view.rotation, -1, 0)
        focal = (side - 1) / 2
        true = (x if axis == 0 else y) / np.where(z > 0, z, np.nan) * focal + side / 2
        inner = sees(view, directions, slack=-side / grid / side)
        assert inner.any()
        assert np.abs(fused - true)[inner].max() < 0.05


@given(sizes)
def test_all_views_together_leave_no_gap(size):
    canvas = Canvas(size)
    for view in SCAN.views:
        canvas.add_view(view, np.zeros((16, 16), np.float32), 64)
    assert (canvas.logits() == 0).all()


@given(sizes, views)
@settings(max_examples=20)
def test_one_view_covers_what_it_sees_and_nothing_else(size, view):
    canvas = Canvas(size)
    canvas.add_view(view, np.zeros((16, 16), np.float32), 256)
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    directions = sphere.pixel_to_direction(np.stack([u, v], -1), size)
    covered = canvas.logits() == 0
    assert covered[sees(view, directions)].all()
    assert not covered[~sees(view, directions, slack=0.01)].any()


@given(st.integers(0, 7), views)
def test_a_roll_of_the_panorama_rolls_the_view(columns, view):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 512, 3), np.uint8)
    turned = np.roll(image, 64 * columns, axis=1)
    other = View(view.yaw - 2 * np.pi * columns / 8, view.pitch)
    a = ViewRenderer(image, 64).render(view)
    b = ViewRenderer(turned, 64).render(other)
    np.testing.assert_array_equal(a, b)


def test_the_maximum_wins_and_the_mean_prefers_the_centre():
    size, a, b = (512, 256), View(0, 0), View(np.pi / 4, 0)
    canvas, mean = Canvas(size), Canvas(size, "weighted")
    for target in (canvas, mean):
        target.add_view(a, np.full((16, 16), 4, np.float32), 64)
        target.add_view(b, np.full((16, 16), -4, np.float32), 64)
    # A quarter to the left of forward: at a's border, at b's centre.
    at = (127, 256 - 62)
    assert canvas.logits()[at] == 4
    assert mean.logits()[at] < -3
    assert mean.logits()[127, 256] > 3


def test_where_no_view_looked_there_is_no_object():
    for fusion in ("max", "weighted"):
        canvas = Canvas((512, 256), fusion)
        canvas.add_view(View(0, 0), np.ones((8, 8), np.float32), 64)
        assert canvas.logits()[128, 0] == NO_OBJECT
        assert canvas.logits()[128, 256] == pytest.approx(1)


def test_labels_are_picked_not_mixed():
    labels = np.random.default_rng(0).choice(np.array([0, 7, 300], np.uint16), (256, 512))
    shown = ViewRenderer(labels, 128, labels=True).render(View(0.3, 0.5))
    assert set(np.unique(shown)) <= {0, 7, 300}


def test_a_fine_panorama_does_not_alias():
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = ViewRenderer(stripes, 64).render(View(0, 0))
    assert abs(shown.astype(int) - 127).max() < 20


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((256, 500, 3), np.uint8), "500x256"),
        (np.zeros((1, 1, 3), np.uint8), "1x1"),
        (np.zeros((128, 256, 3), np.uint8), "512x256 to 8192x4096"),
        (np.zeros((256, 512), np.uint8), r"\(256, 512\)"),
        (np.zeros((256, 512, 3), np.float32), "float32"),
    ],
)
def test_what_is_no_panorama_is_named(image, named):
    with pytest.raises(ValueError, match=named):
        check_panorama(image)


def test_unknown_fusion_is_named():
    with pytest.raises(ValueError, match="mean"):
        Canvas((512, 256), "mean")
