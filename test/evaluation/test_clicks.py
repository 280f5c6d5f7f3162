"""Clicks on the sphere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.evaluation.clicks import centre_click, correction_click

SIZE = (512, 256)


@settings(max_examples=40, deadline=None)
@given(azimuth=st.floats(-np.pi, np.pi), height=st.floats(-1, 1), radius=st.floats(0.05, 1.2))
def test_a_cap_is_clicked_in_its_middle_wherever_it_lies(rays, azimuth, height, radius):
    middle = sphere.angles_to_direction(azimuth, np.arcsin(height))
    mask = rays @ middle > np.cos(radius)
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


def _click(true, found):
    direction, label = correction_click(true, found)
    u, v = sphere.direction_to_pixel(direction, SIZE).astype(int)
    return (v, u), label


def test_a_correction_is_in_the_error_that_reaches_farthest_from_its_boundary():
    true = np.zeros((256, 512), bool)
    true[80:160, 200:300] = True
    found = true.copy()
    found[80:84] = False  # 400 pixels are missed, in a strip
    found[100:115, 380:395] = True  # 225 are in excess, in a square
    where, label = _click(true, found)
    assert label == 0
    assert found[where]
    assert not true[where]
    found[90:120, 240:270] = False  # a larger square is missed
    where, label = _click(true, found)
    assert label == 1
    assert (100, 250) < where < (112, 262)


def test_without_an_error_the_click_is_on_the_object():
    true = np.zeros((256, 512), bool)
    true[80:160, 200:300] = True
    where, label = _click(true, true)
    assert label == 1
    assert true[where]
