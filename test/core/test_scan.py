"""scan: which views, in which order, and what they see."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import sees
from sap_ros.core.scan import Scan

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
