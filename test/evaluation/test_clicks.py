"""Clicks on the sphere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.metrics import iou, sphere_iou

SIZE = (512, 256)
RAYS = sphere.pixel_to_direction(
    np.stack(np.meshgrid(np.arange(512) + 0.5, np.arange(256) + 0.5), -1), SIZE
)


@settings(max_examples=40, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-1, 1), st.floats(0.05, 1.2))
def test_a_cap_is_clicked_in_its_middle_wherever_it_lies(azimuth, height, radius):
    middle = sphere.angles_to_direction(azimuth, np.arcsin(height))
    mask = RAYS @ middle > np.cos(radius)
    if not mask.any():
        return
    click = centre_click(mask)
    assert np.degrees(np.arccos(np.clip(click @ middle, -1, 1))) < 2.5
    u, v = sphere.direction_to_pixel(click, SIZE).astype(int)
    assert mask[v, u]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 511))
def test_a_roll_of_the_mask_rolls_the_click(shift):
    mask = np.zeros((256, 512), bool)
    mask[60:140, 200:330] = mask[100:220, 240:270] = True
    first = sphere.direction_to_pixel(centre_click(mask), SIZE)
    rolled = sphere.direction_to_pixel(centre_click(np.roll(mask, shift, 1)), SIZE)
    away = abs(rolled[0] - first[0] - shift) % 512
    assert min(away, 512 - away) <= 6
    assert abs(rolled[1] - first[1]) <= 6


def test_all_and_nothing():
    centre_click(np.ones((256, 512), bool))
    with pytest.raises(ValueError, match="empty"):
        centre_click(np.zeros((256, 512), bool))


def test_iou_weighs_rows_by_solid_angle():
    found, true = np.zeros((2, 256, 512), bool)
    found[:8] = true[120:128] = found[120:128] = True
    assert iou(found, true) == pytest.approx(0.5)
    assert sphere_iou(found, true) > 0.9
    nothing = np.zeros_like(true)
    assert iou(nothing, nothing) == sphere_iou(nothing, nothing) == 1.0
