"""instances: measures of a spherical cap of known radius, anywhere."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.instances import State, measure

WIDTH, HEIGHT = 2048, 1024
V, U = np.mgrid[:HEIGHT, :WIDTH] + 0.5
DIRECTIONS = sphere.pixel_to_direction(np.stack([U, V], -1), (WIDTH, HEIGHT))


def _cap(centre, radius):
    return centre @ np.moveaxis(DIRECTIONS, -1, 1) > np.cos(radius)


@given(st.floats(-np.pi, np.pi), st.floats(-np.pi / 2, np.pi / 2), st.floats(0.08, 1.2))
@example(np.pi, 0.0, 0.3)  # across the seam
@example(0.5, np.pi / 2, 0.2)  # on a pole
@example(-2.0, -np.pi / 2, 0.5)
@example(-np.pi, 1.3, 0.2)  # near a pole, across the seam
@settings(max_examples=25)
def test_a_cap_gives_its_direction_and_solid_angle(azimuth, elevation, radius):
    centre = sphere.angles_to_direction(azimuth, elevation)
    found = measure(_cap(centre, radius), 7, 0.5)
    assert found.state == State.TRACKED
    assert np.degrees(sphere.angle_between(found.direction, centre)) < 0.1
    assert found.solid_angle == pytest.approx(2 * np.pi * (1 - np.cos(radius)), rel=0.01)
    np.testing.assert_allclose(
        sphere.angles_to_direction(found.azimuth, found.elevation), found.direction, atol=1e-9
    )
    pixel = np.pi / HEIGHT
    assert found.elevation_max == pytest.approx(min(elevation + radius, np.pi / 2), abs=1.5 * pixel)
    assert found.elevation_min == pytest.approx(
        max(elevation - radius, -np.pi / 2), abs=1.5 * pixel
    )
    if abs(elevation) + radius > np.pi / 2 + pixel:  # it holds a pole
        assert found.azimuth_width == pytest.approx(2 * np.pi)
    elif abs(elevation) + radius < np.pi / 2 - 0.05:
        half = np.arcsin(np.sin(radius) / np.cos(elevation))
        assert found.azimuth_width == pytest.approx(2 * half, abs=0.03)
        away = found.azimuth_centre - azimuth
        assert abs((away + np.pi) % (2 * np.pi) - np.pi) < 0.02


def test_an_interval_across_the_seam_is_the_small_one():
    mask = np.zeros((256, 512), bool)
    mask[100:110, :5] = mask[100:110, -5:] = True
    found = measure(mask, 1, 1.0)
    assert found.azimuth_width == pytest.approx(10 / 512 * 2 * np.pi)
    assert found.azimuth_centre == pytest.approx(np.pi)
    assert abs(found.azimuth) == pytest.approx(np.pi)


def test_what_is_not_there_is_lost():
    found = measure(np.zeros((256, 512), bool), 4, 0.9)
    assert (found.state, found.solid_angle, found.score) == (State.LOST, 0, 0)
    assert np.isnan(found.direction).all()


def test_all_of_the_sphere_has_a_finite_bearing():
    found = measure(np.ones((256, 512), bool), 4, 0.9)
    assert found.solid_angle == pytest.approx(4 * np.pi, rel=1e-5)
    assert np.linalg.norm(found.direction) == pytest.approx(1)
