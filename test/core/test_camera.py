"""camera: where directions fall in a view, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import (
    View,
    direction_to_view,
    focal_length,
    row_span,
    sees,
    view_to_direction,
)

directions = st.tuples(st.floats(-np.pi, np.pi), st.floats(-1, 1)).map(
    lambda a: sphere.angles_to_direction(a[0], np.arcsin(a[1]))
)


def test_focal_length_is_the_papers():
    assert focal_length(1024, np.pi / 2) == pytest.approx(511.5)


@given(directions, st.floats(-np.pi, np.pi), st.floats(-1.5, 1.5))
def test_view_pixel_to_direction_and_back(direction, yaw, pitch):
    view = View(yaw, pitch)
    pixel = direction_to_view(direction, view, 1024)
    if sees(view, direction):
        assert (pixel >= 0.5 - 1e-6).all()
        assert (pixel <= 1023.5 + 1e-6).all()
        back = view_to_direction(pixel, view, 1024)
        assert sphere.angle_between(back, direction) < 1e-9


def test_behind_the_camera_there_is_no_pixel():
    assert np.isnan(direction_to_view((-1, 0, 0), View(0, 0), 1024)).all()


@pytest.mark.parametrize(
    ("pitch", "roll"),
    [(0.69936, 0.56120), (0.69933, 0.56083), (0.70350, 0.54694), (-0.69936, 2.5804)],
)
def test_the_rows_of_a_rolled_view_are_known_where_a_side_passes_by_a_pole(pitch, roll):
    """The highest place of a side is between its corners, and its elevation changes fast there."""
    size, height, view = 1024, 2048, View(0.3, pitch, np.pi / 2, roll)
    edge = np.linspace(0, size, 20_001)
    near, far = np.zeros_like(edge), np.full_like(edge, size)
    border = [(edge, near), (edge, far), (near, edge), (far, edge)]
    pixels = np.concatenate([np.stack(each, -1) for each in border])
    _, elevation = sphere.direction_to_angles(view_to_direction(pixels, view, size))
    first, last = row_span(view, size, height)
    assert first <= (0.5 - elevation.max() / np.pi) * height
    assert last >= (0.5 - elevation.min() / np.pi) * height
