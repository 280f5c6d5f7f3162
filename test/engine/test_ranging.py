"""ranging: points on masks, and objects on the ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.instances import measure
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.ranging import (
    Ground,
    Range,
    RangeSource,
    face,
    ids_of_points,
    ranges_of_points,
    ranges_on_ground,
)
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


@pytest.mark.parametrize("axes", [ImageAxes(), ImageAxes(0.3, "optical")])
def test_points_fall_on_the_objects_they_come_from(axes):
    scene = MovingScene(0)
    _, labels = scene.render(1.0, SIZE)
    points, true = scene.scan(1.0)
    ids = ids_of_points(axes.to_frame(points), labels, axes)
    assert (ids == true).mean() > 0.98
    found, _ = ranges_of_points(np.linalg.norm(points, axis=1), ids, RangeSource.LIDAR)
    seen = [i for i in np.unique(true[true > 0]) if (true == i).sum() > 20]
    assert len(seen) >= 3
    for i in seen:
        on = np.linalg.norm(points[true == i], axis=1)
        assert found[int(i)].distance == pytest.approx(np.median(on), rel=0.05)


def test_points_past_the_rim_do_not_change_the_range():
    distances = np.concatenate([np.full(20, 2.0), np.full(8, 9.0)])
    found, used = ranges_of_points(distances, np.ones(28, np.uint16), RangeSource.LIDAR)
    np.testing.assert_array_equal(used, distances == 2.0)
    assert found[1] == Range(pytest.approx(2.0), pytest.approx(0.0), RangeSource.LIDAR)


def test_the_spread_of_the_points_is_the_standard_deviation():
    distances = np.random.default_rng(0).normal(4.0, 0.1, 2000)
    found, _ = ranges_of_points(distances, np.ones(2000, np.uint16), RangeSource.DEPTH)
    assert found[1].stddev == pytest.approx(0.1, rel=0.1)


def test_too_few_points_are_no_range():
    found, used = ranges_of_points(np.ones(2), np.ones(2, np.uint16), RangeSource.LIDAR)
    assert found == {}
    assert not used.any()


BIG = (1024, 512)


def standing(distance, azimuth, height, rotation, size=BIG, wide=0.2, tall=1.0):
    """The mask of an upright cylinder on the ground, ``distance`` m away, of a camera that is ``rotation``-ed.

    The rotation (3, 3) is from the panorama's axes to axes with z up.
    """
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), size) @ rotation.T
    level = np.linalg.norm(rays[..., :2], axis=-1)
    off = np.arctan2(rays[..., 1], rays[..., 0]) - azimuth
    across = distance * np.sin(np.arctan2(np.sin(off), np.cos(off)))
    ahead = (np.abs(across) < wide) & (np.cos(off) > 0)
    with np.errstate(divide="ignore"):
        z = height + distance * rays[..., 2] / level
    return ahead & (z > 0) & (z < tall)


turns = st.builds(
    lambda roll, pitch: Rotation.from_euler("xy", [roll, pitch], degrees=True).as_matrix(),
    st.floats(-25, 25),
    st.floats(-25, 25),
)


@settings(max_examples=25)
@given(st.floats(0.8, 8.0), st.floats(-np.pi, np.pi), st.floats(0.4, 1.6), turns)
def test_an_object_on_the_ground_has_its_range(distance, azimuth, height, rotation):
    mask = standing(distance, azimuth, height, rotation)
    found = ranges_on_ground(
        mask.astype(np.uint8), [measure(mask, 1, 1.0)], Ground(rotation[2], height), 10.0
    )
    (one,) = found.values()
    bearing = rotation @ measure(mask, 1, 1.0).direction
    level = one.distance * np.hypot(bearing[0], bearing[1])
    assert one.source == RangeSource.GROUND
    # The mask's foot is known to a pixel, and the cylinder is drawn as a flat one.
    assert abs(level - distance) < 2 * one.stddev + 0.01 * distance


def test_the_ground_gives_no_range_where_the_foot_is_not_seen():
    level = np.eye(3)
    mask = standing(3.0, 0.5, 1.0, level)
    labels, ground = mask.astype(np.uint8), Ground(level[2], 1.0)
    person = measure(mask, 1, 1.0)
    good = ranges_on_ground(labels, [person], ground, 0.5)[1]
    assert ranges_on_ground(labels, [person], ground, good.stddev * 0.9) == {}
    flying = standing(3.0, 0.5, 1.0, level, tall=3.0) & ~standing(3.0, 0.5, 1.0, level, tall=1.2)
    assert ranges_on_ground(flying.astype(np.uint8), [measure(flying, 1, 1.0)], ground, 9.0) == {}
    rows = np.flatnonzero(mask.any(1))
    hidden = labels.copy()  # a nearer object stands before its foot
    hidden[rows[-1] - 20 : rows[-1] + 30][:, mask.any(0)] = 2
    assert ranges_on_ground(hidden, [measure(hidden == 1, 1, 1.0)], ground, 9.0) == {}
    under = np.zeros_like(labels)
    under[-60:, :40] = 1
    assert ranges_on_ground(under, [measure(under == 1, 1, 1.0)], ground, 9.0) == {}
    assert ranges_on_ground(np.zeros_like(labels), [measure(under == 2, 1, 0.0)], ground, 9.0) == {}


def test_one_pixel_moves_the_range_by_its_standard_deviation():
    mask = standing(4.0, 0.0, 1.0, np.eye(3))
    ground = Ground(np.array([0.0, 0, 1]), 1.0)
    at = ranges_on_ground(mask.astype(np.uint8), [measure(mask, 1, 1.0)], ground, 9.0)[1]
    cut = mask.copy()
    cut[np.flatnonzero(mask.any(1))[-1]] = False
    less = ranges_on_ground(cut.astype(np.uint8), [measure(cut, 1, 1.0)], ground, 9.0)[1]
    assert less.distance - at.distance == pytest.approx(at.stddev, rel=0.1)


@given(st.floats(-3.1, 3.1), st.floats(0.5, 9.0))
def test_a_face_fills_the_objects_box_at_its_range(azimuth, distance):
    mask = standing(3.0, azimuth, 1.0, np.eye(3), size=(256, 128))
    person = measure(mask, 1, 1.0)
    points = face(person, distance)
    _, elevations = sphere.direction_to_angles(points)
    assert (elevations.min(), elevations.max()) == pytest.approx(
        (person.elevation_min, person.elevation_max)
    )
    assert sphere.angle_between(points.mean(0) * [1, 1, 0], person.direction * [1, 1, 0]) < 0.05
    level = np.hypot(points[:, 0], points[:, 1])
    np.testing.assert_allclose(level, distance * np.cos(person.elevation), rtol=1e-9)
