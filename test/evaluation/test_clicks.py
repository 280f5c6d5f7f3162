"""Clicks on the sphere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.evaluation.clicks import centre_click

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
