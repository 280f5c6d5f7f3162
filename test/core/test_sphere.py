"""sphere: pixels, directions, rotations, solid angles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere

SIZE = (4096, 2048)
azimuths = st.floats(-np.pi, np.pi)
elevations = st.floats(-np.pi / 2, np.pi / 2)


@given(st.floats(0, 4095.99), st.floats(0.01, 2047.99))
def test_pixel_to_direction_and_back(u, v):
    back = sphere.direction_to_pixel(sphere.pixel_to_direction((u, v), SIZE), SIZE)
    assert abs((back[0] - u + 2048) % 4096 - 2048) < 1e-6
    assert back[1] == pytest.approx(v, abs=1e-6)


@given(azimuths, elevations)
def test_pixels_lie_inside_the_panorama(azimuth, elevation):
    u, v = sphere.direction_to_pixel(sphere.angles_to_direction(azimuth, elevation), SIZE)
    assert 0 <= u < 4096
    assert 0 <= v <= 2048


@pytest.mark.parametrize(
    ("pixel", "direction"),
    [
        ((2048, 1024), (1, 0, 0)),  # centre: forward
        ((1024, 1024), (0, 1, 0)),  # left half: left
        ((3072, 1024), (0, -1, 0)),
        ((0, 1024), (-1, 0, 0)),  # seam: behind
        ((4096, 1024), (-1, 0, 0)),
        ((700, 0), (0, 0, 1)),  # top row: up
        ((700, 2048), (0, 0, -1)),
    ],
)
def test_axes_are_those_of_rep_103(pixel, direction):
    np.testing.assert_allclose(sphere.pixel_to_direction(pixel, SIZE), direction, atol=1e-12)


@given(azimuths, elevations, st.integers(1, 4095))
def test_a_roll_of_the_panorama_is_a_turn_about_the_vertical(azimuth, elevation, shift):
    turn = -2 * np.pi * shift / 4096
    u0, v0 = sphere.direction_to_pixel(sphere.angles_to_direction(azimuth, elevation), SIZE)
    u1, v1 = sphere.direction_to_pixel(sphere.angles_to_direction(azimuth + turn, elevation), SIZE)
    if abs(elevation) < 1.57:
        assert abs((u1 - u0 - shift + 2048) % 4096 - 2048) < 1e-5
    assert v1 == pytest.approx(v0, abs=1e-6)


@given(azimuths, elevations)
def test_a_view_looks_where_it_is_turned_and_has_no_roll(yaw, pitch):
    rotation = sphere.view_rotation(yaw, pitch)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation[:, 2], sphere.angles_to_direction(yaw, pitch), atol=1e-12)
    assert rotation[2, 0] == pytest.approx(0)  # x lies in the horizontal plane
    assert rotation[2, 1] <= 1e-12  # y points down


def test_solid_angles_of_all_pixels_make_the_sphere():
    assert sphere.row_solid_angles(SIZE).sum() * 4096 == pytest.approx(4 * np.pi, rel=1e-12)


@given(azimuths, elevations)
def test_angle_between_opposite_and_equal_directions(azimuth, elevation):
    direction = sphere.angles_to_direction(azimuth, elevation)
    assert sphere.angle_between(direction, direction) == pytest.approx(0, abs=1e-9)
    assert sphere.angle_between(direction, -direction) == pytest.approx(np.pi)
