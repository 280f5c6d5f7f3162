"""Region and boundary, on the panorama and on the sphere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.evaluation.metrics import boundary_f, iou, sphere_boundary_f, sphere_iou

F = (boundary_f, sphere_boundary_f)


@pytest.fixture(scope="session")
def cap(rays):
    """Makes the mask of a cap of the sphere."""

    def make(azimuth, elevation, radius):
        return rays @ sphere.angles_to_direction(azimuth, elevation) > np.cos(radius)

    return make


def test_iou_weighs_rows_by_solid_angle():
    found, true = np.zeros((2, 256, 512), bool)
    found[:8] = true[120:128] = found[120:128] = True
    assert iou(found, true) == pytest.approx(0.5)
    assert sphere_iou(found, true) > 0.9
    nothing = np.zeros_like(true)
    assert iou(nothing, nothing) == sphere_iou(nothing, nothing) == 1.0


@pytest.mark.parametrize("f", F)
def test_boundaries_are_near_or_not(f, cap):
    true = cap(0.4, 0.2, 0.3)
    assert f(true, true) == pytest.approx(1)
    assert f(cap(0.41, 0.2, 0.3), true) > 0.95
    assert f(cap(0.4, 0.2, 0.5), true) < 0.05
    nothing = np.zeros_like(true)
    assert f(nothing, nothing) == 1.0
    assert f(nothing, true) == f(true, nothing) == 0.0
    # Half of the boundary is found, and nothing else.
    upper = true.copy()
    upper[: np.flatnonzero(true.any(1)).mean().astype(int)] = False
    assert 0.4 < f(upper, true) < 0.85


@given(shift=st.integers(0, 511), elevation=st.floats(-1.2, 1.2))
def test_a_roll_of_both_masks_changes_nothing(cap, shift, elevation):
    found, true = cap(0.1, elevation, 0.3), cap(0.14, elevation, 0.32)
    for f in (iou, sphere_iou, *F):
        rolled = f(np.roll(found, shift, 1), np.roll(true, shift, 1))
        assert rolled == pytest.approx(f(found, true), abs=1e-6)


@given(azimuth=st.floats(-np.pi, np.pi), elevation=st.floats(-np.pi / 2, np.pi / 2))
def test_on_the_sphere_an_object_counts_the_same_wherever_it_is(cap, azimuth, elevation):
    """A cap and a larger one round it, by 3 degrees: as good at a pole as at the horizon."""
    found, true = cap(azimuth, elevation, 0.30), cap(azimuth, elevation, 0.35)
    expected = (1 - np.cos(0.30)) / (1 - np.cos(0.35))
    assert sphere_iou(found, true) == pytest.approx(expected, abs=0.03)
    assert sphere_boundary_f(found, true) < 0.05
    near = cap(azimuth, elevation, 0.34)
    assert sphere_boundary_f(near, true) > 0.95
