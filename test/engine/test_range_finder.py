"""range_finder: depth panoramas and the ground through the engine, and which source counts."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.engine.events import Cloud, Depth
from sap_ros.engine.ranging import RangeSource
from sap_ros.engine.transforms import Transform

from .conftest import (
    AHEAD,
    SECOND,
    SIZE,
    KnownTransforms,
    image,
    mask_at,
    tell,
)


def depth(distance, seconds=1.0, size=SIZE, **holes):
    values = np.full((size[1], size[0]), distance, np.float32)
    values[::7] = np.nan
    values[:, ::9] = holes.get("hole", 0.0)
    return Depth(size, lambda: values, round(seconds * SECOND))


def wall(distance):
    points = np.random.default_rng(0).normal((distance, 0, 0), 0.01, (200, 3))
    return Cloud(lambda: points, SECOND, "camera")


def test_a_depth_panorama_gives_ranges(make_engine, panorama):
    engine = make_engine()
    (found,) = tell(engine, depth(3.0), image(panorama, 1), mask_at(*AHEAD))[-1].objects
    assert found.range == pytest.approx(3.0)
    assert found.range_source == RangeSource.DEPTH
    assert found.range_stddev == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.position, [3, 0, 0], atol=0.1)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ([], RangeSource.GROUND),
        ([depth(3.0)], RangeSource.DEPTH),
        ([depth(3.0), wall(4.0)], RangeSource.LIDAR),
    ],
)
def test_the_lidar_counts_before_the_depth_and_that_before_the_ground(
    make_engine,
    panorama,
    given,
    source,
):
    engine = make_engine(camera_height=1.0, max_range_stddev=5.0)
    (found,) = tell(engine, *given, image(panorama, 1), mask_at(256, 132))[-1].objects
    assert found.range_source == source


def test_a_depth_panorama_of_another_size_or_time_is_named(make_engine, panorama):
    engine = make_engine()
    answers = tell(engine, image(panorama, 1), depth(3.0, size=(256, 128)), mask_at(*AHEAD))
    assert "256x128; it must have the image's size, 512x256" in answers[-1].problems[0]
    assert math.isnan(answers[-1].objects[0].range)
    (late,) = tell(engine, depth(3.0, 1.5), image(panorama, 2))
    assert "depth panorama is 0.5 s from the image" in late.problems[0]

    def broken():
        raise ValueError("its encoding is 8UC3")

    (found,) = tell(engine, Depth(SIZE, broken, 3 * SECOND), image(panorama, 3))
    assert "8UC3" in found.problems[0]


def test_the_ground_gives_a_range_with_the_cameras_height(make_engine, panorama):
    engine = make_engine(camera_height=1.2)
    (found,) = tell(engine, image(panorama, 1), mask_at(256, 180))[-1].objects
    depression = (192 / 256 - 0.5) * math.pi  # of the mask's lower border
    level = found.range * math.cos(found.elevation)
    assert level == pytest.approx(1.2 / math.tan(depression), rel=1e-3)
    assert found.range_source == RangeSource.GROUND
    assert 0 < found.range_stddev < 0.1
    assert np.linalg.norm(found.position) == pytest.approx(found.range)


def test_a_tilted_camera_knows_the_ground_by_tf(make_engine, panorama):
    turned = Rotation.from_euler("y", 20, degrees=True).as_matrix()  # it looks down
    mounted = Transform(turned, np.array([0.1, 0, 1.5]))
    engine = make_engine(
        KnownTransforms(camera_to_base_footprint=mounted),
        ground_frame="base_footprint",
        target_frame="base_footprint",
    )
    (found,) = tell(engine, image(panorama, 1), mask_at(256, 150))[-1].objects
    foot = turned @ sphere.pixel_to_direction((256, 162), SIZE)
    level = found.range * math.cos(math.asin(found.direction[2]))
    assert level == pytest.approx(
        1.5 * np.hypot(*foot[:2]) / -foot[2], rel=0.03
    )  # a pixel is 2.5 %
    high = make_engine(KnownTransforms(), ground_frame="base_footprint")
    answers = tell(high, image(panorama, 1), mask_at(*AHEAD))
    assert "no ranges from the ground" in answers[-1].problems[0]
    under = Transform(np.eye(3), np.array([0, 0, -0.5]))
    low = make_engine(KnownTransforms(camera_to_map=under), ground_frame="map")
    assert "it must be above it" in tell(low, image(panorama, 1), mask_at(*AHEAD))[-1].problems[0]


def test_a_few_stray_points_do_not_take_the_place_of_the_grounds_face(make_engine, panorama):
    engine = make_engine(camera_height=1.2)
    stray = sphere.pixel_to_direction([(256, 180), (258, 181)], SIZE) * 7
    cloud = Cloud(lambda: stray, SECOND, "camera")
    answer = tell(engine, cloud, image(panorama, 1), mask_at(256, 180))[-1]
    assert answer.objects[0].range_source == RangeSource.GROUND
    assert len(answer.points.ids) == 64
    distances = np.linalg.norm(answer.points.points, axis=1)
    assert distances.max() < 5
