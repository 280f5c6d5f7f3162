"""tracked_object and motion: what is kept of elongated objects, near the poles, and what may move how."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import sees
from sap_ros.core.motion import Following, grown, main_part, rotation_between
from sap_ros.core.panorama import Region
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import Prompt
from sap_ros.core.scan import Scan
from sap_ros.core.search import views_to_search
from sap_ros.core.tracked_object import TrackedObject, sample_mask
from sap_ros.core.views import PerspectiveViews

SIZE = (1024, 512)
WHOLE = Region(0, 0, 512, 1024)
V, U = np.mgrid[:512, :1024] + 0.5
DIRECTIONS = sphere.pixel_to_direction(np.stack([U, V], -1), SIZE)
AZIMUTH, ELEVATION = (np.degrees(a) for a in sphere.direction_to_angles(DIRECTIONS))


def _noted(mask, click=(1.0, 0, 0)):
    tracked = TrackedObject(Prompt(1, np.array([click]), np.array([1])))
    tracked.note(WHOLE, mask, SIZE)
    return tracked


def _cap(centre, radius):
    return centre @ np.moveaxis(DIRECTIONS, -1, 1) > np.cos(radius)


WIDE = (abs(AZIMUTH) < 40) & (abs(ELEVATION - 10) < 1)
TALL = (abs(AZIMUTH) * np.cos(np.radians(ELEVATION)) < 1) & (abs(ELEVATION) < 40)


@pytest.mark.parametrize(("mask", "axis"), [(WIDE, 0), (TALL, 1)], ids=["80 by 2", "2 by 80"])
def test_an_elongated_object_keeps_its_extent(mask, axis):
    """80 degrees by 2: all of it is sampled, and looked at on the next panorama."""
    tracked = _noted(mask)
    angles = sphere.direction_to_angles(tracked.track.directions)[axis]
    assert np.degrees(np.ptp(angles)) > 76
    views = PerspectiveViews(Panorama(np.zeros((512, 1024, 3), np.uint8)), 64, Scan())
    visited = views_to_search(views, tracked, Following())
    seen = np.any([sees(views.views[i], DIRECTIONS[mask]) for i in visited], axis=0)
    assert seen.mean() > 0.97


def test_half_of_an_elongated_object_may_be_hidden():
    tracked = _noted(WIDE)
    tracked.advance()
    assert tracked.plausible(WHOLE, WIDE & (AZIMUTH > 0), SIZE, Following())
    assert not tracked.plausible(WHOLE, np.roll(WIDE, 300, axis=1), SIZE, Following())


@pytest.mark.parametrize(("growth", "plausible"), [(1.4, True), (2.5, False)])
def test_an_object_may_come_nearer_and_a_mask_may_not_leak_a_little_more_each_time(
    growth, plausible
):
    """Growth from image to image, by solid angle: below max_growth in both cases."""
    ahead, solid_angle = np.array([1.0, 0, 0]), 0.02
    tracked = _noted(_cap(ahead, np.sqrt(solid_angle / np.pi)))
    for _ in range(4):
        tracked.advance()
        tracked.prompted_here = False
        solid_angle *= growth
        mask = _cap(ahead, np.sqrt(solid_angle / np.pi))
        last = tracked.plausible(WHOLE, mask, SIZE, Following())
        tracked.note(WHOLE, mask, SIZE)
    assert last is plausible


def test_strays_are_left_out():
    ball, speck = _cap(np.array([1.0, 0, 0]), 0.15), _cap(np.array([0, 1.0, 0]), 0.03)
    tracked = _noted(ball | speck)
    assert sphere.angle_between(tracked.track.directions, np.array([1.0, 0, 0])).max() < 0.16


@given(st.floats(-np.pi, np.pi), st.floats(-np.pi / 2, np.pi / 2), st.floats(0.06, 0.5))
@settings(max_examples=25)
def test_a_sample_is_even_at_the_poles_too(azimuth, elevation, radius):
    centre = sphere.angles_to_direction(azimuth, elevation)
    sample = sample_mask(WHOLE, _cap(centre, radius), SIZE)
    assert 60 <= len(sample) <= 1200
    off = sphere.angle_between(sample.mean(0), centre)
    assert off < max(0.06 * radius, 0.004)


@pytest.mark.parametrize("mask", [U == 300.5, V == 200.5, (U == 300.5) & (V == 200.5)])
def test_thin_masks_have_a_sample(mask):
    sample = sample_mask(WHOLE, mask, SIZE)
    assert len(sample) >= 1
    u, v = sphere.direction_to_pixel(sample, SIZE).astype(int).T
    assert mask[v, u].all()


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_the_smallest_rotation_takes_one_direction_to_the_other(values):
    source = np.array(values[:3]) + np.eye(3)[0] * 2
    aside = np.array(values[3:]) + np.eye(3)[1] * 2
    for target in (
        aside,
        source + 1e-6 * aside,
        1e-4 * aside - source,
    ):  # also almost the same, or opposite
        rotation = rotation_between(source, target)
        assert sphere.angle_between(rotation.apply(source), target) < 1e-6
        angle = float(sphere.angle_between(source, target))
        assert rotation.magnitude() == pytest.approx(angle, abs=1e-6)


def test_a_region_is_grown_outward_all_round():
    spot = np.array([[1.0, 0, 0]])
    away = sphere.angle_between(grown(spot, 0.2), spot[0])
    np.testing.assert_allclose(away[1:], 0.2, atol=1e-6)
    assert np.linalg.norm(grown(spot, 0.2)[1:].mean(0)[1:]) < 1e-9


def test_all_of_a_small_mask_is_its_main_part():
    ball = _cap(np.array([0, 0, 1.0]), 0.05)
    sample = sample_mask(WHOLE, ball, SIZE)
    assert len(main_part(sample, 2 * np.pi * (1 - np.cos(0.05)))) == len(sample)
