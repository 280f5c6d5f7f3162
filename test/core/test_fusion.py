"""fusion: masks of views fused onto the panorama; parts that are connected on the sphere."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import View, sees
from sap_ros.core.fusion import NO_OBJECT, Canvas, connected, reached
from sap_ros.core.panorama import NOWHERE
from sap_ros.core.scan import Scan, steady, tilted

SCAN = Scan()
sizes = st.sampled_from([(512, 256), (1000, 500), (1002, 501), (1024, 512)])
TILTED = tilted(SCAN, steady((0.2, -0.5, 0.8)))
views = st.one_of(
    st.sampled_from(SCAN.views),
    st.sampled_from(TILTED.views),
    st.builds(
        View, st.floats(-3.2, 3.2), st.floats(-1.57, 1.57), st.just(np.pi / 2), st.floats(-3.2, 3.2)
    ),
)


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


@given(sizes, st.sampled_from([SCAN, TILTED]))
def test_all_views_together_leave_no_gap(size, scan):
    canvas = Canvas(size)
    for view in scan.views:
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


@given(
    sizes,
    st.builds(View, st.floats(-3.2, 3.2), st.floats(-1.57, 1.57), st.floats(0.2, 1.6)),
    st.tuples(*[st.integers(0, 63)] * 2, *[st.integers(1, 30)] * 2),
)
@settings(max_examples=60)
def test_the_region_that_is_reached_holds_all_of_a_mask(size, view, ellipse):
    """Also one across the seam, over a pole, or cut off by its view."""
    u, v, across, down = ellipse
    mask = np.full((64, 64), -5, np.float32)
    cv2.ellipse(mask, (u, v), (across, down), 20, 0, 360, 5, -1)
    canvas = Canvas(size)
    canvas.add_view(view, mask, 256)
    positive = canvas.logits() > 0
    region = reached([(view, mask)], 256, size) or NOWHERE
    assert region.read(positive).sum() == positive.sum()


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


def test_unknown_fusion_is_named():
    with pytest.raises(ValueError, match="mean"):
        Canvas((512, 256), "mean")


@pytest.mark.parametrize("turn", [0, 100, 256, 500])
def test_what_hangs_together_across_the_seam_is_one_part(turn):
    mask = np.zeros((256, 512), bool)
    mask[100:120, 490:], mask[100:120, :10] = True, True  # across the seam
    mask[100:120, 200:220] = True
    mask, start = np.roll(mask, turn, axis=1), (500 + turn) % 512
    part = connected(mask, np.array([[start + 0.5, 110.0]]))
    assert part.sum() == 20 * 32
    assert part[110, (5 + turn) % 512]
    assert not part[110, (210 + turn) % 512]


def test_what_hangs_together_over_a_pole_is_one_part():
    mask = np.zeros((256, 512), bool)
    mask[:20, 10:30] = mask[:20, 266:286] = True  # opposite meridians
    mask[200:210, 10:30] = True
    assert connected(mask, np.array([[20.0, 5.0]])).sum() == 2 * 20 * 20


def test_where_no_part_is_pointed_at_none_is_kept():
    mask = np.zeros((256, 512), bool)
    mask[100:120, 200:220] = True
    assert not connected(mask, np.array([[5.0, 5.0]])).any()
