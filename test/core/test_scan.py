"""scan: which views, in which order, and what they see."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import level_view, sees
from sap_ros.core.scan import Scan, steady, tilted

directions = st.tuples(st.floats(-np.pi, np.pi), st.floats(-1, 1)).map(
    lambda a: sphere.angles_to_direction(a[0], np.arcsin(a[1]))
)
scans = st.builds(
    Scan,
    st.floats(60, 110),
    st.floats(0, 0.8),
    st.sampled_from(["column_first", "row_first"]),
)


@pytest.mark.parametrize(("overlap", "columns", "rows"), [(0.5, 8, 3), (2 / 3, 12, 4), (0.0, 4, 3)])
def test_published_counts(overlap, columns, rows):
    scan = Scan(overlap=overlap)
    assert (len(scan.yaws), len(scan.pitches)) == (columns, rows)
    assert len(scan) == columns * rows


def test_default_pitches():
    np.testing.assert_allclose(np.degrees(Scan().pitches), [-45, 0, 45], atol=1e-12)


@given(scans, directions)
def test_every_direction_is_seen(scan, direction):
    assert any(sees(v, direction, slack=1e-9) for v in scan.views)


@given(directions)
def test_default_sees_every_direction_three_times_or_more(direction):
    scan = Scan()
    assert sum(bool(sees(v, direction, slack=1e-9)) for v in scan.views) >= 3


def _steps(views):
    for a, b in pairwise(views):
        yield abs(np.sin((a.yaw - b.yaw) / 2)) > 1e-9, abs(a.pitch - b.pitch) > 1e-9


@given(scans)
def test_consecutive_views_change_one_angle_only(scan):
    assert all(yaw != pitch for yaw, pitch in _steps(scan.views))


@given(st.floats(60, 110), st.floats(0, 0.8))
def test_the_column_first_path_closes_by_yaw_alone(fov, overlap):
    views = Scan(fov, overlap).views
    assert list(_steps((views[-1], views[0]))) == [(True, False)]


def test_the_row_first_path_does_not_close():
    views = Scan(order="row_first").views
    assert next(_steps((views[-1], views[0])))[1]


@given(st.integers(0, 23), st.integers(1, 24))
def test_a_window_is_a_piece_of_the_path_written_twice(start, length):
    scan = Scan()
    twice = list(range(24)) * 2
    assert list(scan.window(start, length)) == twice[start : start + length]
    assert sorted(scan.window(start)) == list(range(24))


@given(directions)
def test_the_nearest_view_has_no_nearer_one(direction):
    scan = Scan()
    angles = [sphere.angle_between(v.rotation[:, 2], direction) for v in scan.views]
    assert angles[scan.nearest(direction)] == pytest.approx(min(angles))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"fov_degrees": 10}, "fov_degrees is 10"),
        ({"overlap": 1.0}, "overlap"),
        ({"order": "spiral"}, "spiral"),
    ],
)
def test_bad_parameters_are_named(bad, named):
    with pytest.raises(ValueError, match=named):
        Scan(**bad)


@given(scans, directions, directions)
def test_a_tilted_scan_is_the_level_one_rotated(scan, up, direction):
    other = tilted(scan, tuple(up.tolist()))
    rotation = sphere.levelling(up)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(rotation @ (0, 0, 1), up, atol=1e-6)
    for view, level in zip(other.views, scan.views, strict=True):
        np.testing.assert_allclose(view.rotation, rotation @ level.rotation, atol=1e-6)
        assert view.fov == level.fov
    assert any(sees(view, direction, slack=1e-6) for view in other.views)
    best = other.views[other.nearest(direction)].axis @ direction
    assert best >= max(view.axis @ direction for view in other.views) - 1e-9


@given(directions, directions, st.floats(0.2, 2))
def test_what_is_up_is_upright_in_a_level_view(direction, up, fov):
    view = level_view(direction, fov, tuple(up.tolist()))
    assert view.fov == fov
    np.testing.assert_allclose(view.axis, direction, atol=1e-9)
    right, down, _ = up @ view.rotation
    assert down <= 1e-9
    assert right == pytest.approx(0, abs=1e-9)


@given(directions)
def test_a_steady_tilt_is_near_the_true_one_and_stays(up):
    near = np.array(steady(tuple(up.tolist())))
    assert np.linalg.norm(near) == pytest.approx(1)
    off = np.degrees(sphere.angle_between(near, up))
    assert off <= 1.5
    if abs(up[2]) > 0.05:  # near the horizon the steps from above and from below meet
        assert steady(tuple(near.tolist())) == pytest.approx(near, abs=1e-9)
    for vertical in (sphere.UP, (0.0, 0.0, -1.0)):
        if np.degrees(sphere.angle_between(up, vertical)) < 1:
            assert tuple(near) == vertical


@pytest.mark.parametrize("up", [(0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (1e-12, 0.0, -1.0)])
def test_a_camera_may_hang_upside_down_or_look_up(up):
    scan = tilted(Scan(), steady(up))
    np.testing.assert_allclose(scan.up, up, atol=1e-9)
    for view in scan.views:
        right, down, _ = np.array(up) @ view.rotation
        assert down < 0
        assert right == pytest.approx(0, abs=1e-9)


def test_a_small_tilt_keeps_the_views_and_their_tables():
    scan = Scan()
    assert tilted(scan, steady((0.01, -0.01, 0.9999))) is scan
    one, other = ((np.sin(a), 0.0, np.cos(a)) for a in np.radians([19.2, 20.9]))
    assert tilted(scan, steady(one)).views == tilted(scan, steady(other)).views
