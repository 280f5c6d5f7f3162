"""fisheye: the lens model, two lenses as one camera, and impossible values."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye, Lens

DISTORTION = (0.083, -0.028, 0.0076, -0.0011)


def _camera(distance=math.inf, distortion=DISTORTION, **changes):
    """Two lenses of 195 degrees side by side, both turned by 90 degrees in the picture."""
    shared = {"focal_length": (305.0, 304.0), "fov": math.radians(195), "distortion": distortion}
    front = Lens("front", (1728.5, 575.0), roll=-math.pi / 2, translation=(0.013, 0, 0), **shared)
    back = Lens(
        "back", (574.0, 577.0), yaw=math.radians(179), pitch=math.radians(1.5),
        roll=math.pi / 2, translation=(-0.013, 0.002, 0), **shared,
    )  # fmt: skip
    return DualFisheye((front, back), (2304, 1152), distance=distance, **changes)


directions = st.tuples(st.floats(-math.pi, math.pi), st.floats(-math.pi / 2, math.pi / 2)).map(
    lambda angles: sphere.angles_to_direction(*angles)
)
lenses = st.sampled_from([0, 1])
distances = st.sampled_from([0.5, 3.0, math.inf])


@given(directions, lenses, distances)
def test_direction_to_pixel_and_back(direction, lens, distance):
    camera = _camera(distance)
    pixel = camera.to_pixels(direction, lens)
    assume(np.isfinite(pixel).all())
    back = camera.to_directions(pixel, lens)
    assert np.linalg.norm(back) == pytest.approx(1)
    assert sphere.angle_between(back, direction) < 1e-6


@given(st.floats(0, 2 * math.pi), st.floats(0, 0.9999), lenses, distances)
def test_pixel_to_direction_and_back(around, out, lens, distance):
    camera = _camera(distance)
    seen = camera.lenses[lens]
    at = np.array([math.cos(around), math.sin(around)]) * seen.radii * out
    pixel = at + seen.centre
    back = camera.to_pixels(camera.to_directions(pixel, lens), lens)
    np.testing.assert_allclose(back, pixel, atol=1e-4)


@given(directions)
def test_every_direction_is_seen_by_one_lens_at_least_and_no_lens_sees_behind_itself(direction):
    camera = _camera()
    seen = [np.isfinite(camera.to_pixels(direction, lens)).all() for lens in (0, 1)]
    assert any(seen)
    for lens, sees in zip(camera.lenses, seen, strict=True):
        assert sees == (sphere.angle_between(lens.axis, direction) <= lens.fov / 2 + 1e-9)


@given(st.floats(0, 2 * math.pi), st.floats(1.001, 1.2), lenses)
def test_pixels_outside_of_the_circle_have_no_direction(around, out, lens):
    camera = _camera()
    seen = camera.lenses[lens]
    at = np.array([math.cos(around), math.sin(around)]) * seen.radii * out
    assert np.isnan(camera.to_directions(at + seen.centre, lens)).all()


@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2))
def test_the_model_is_opencvs(x, y):
    lens = _camera().lenses[0]
    matrix = np.array([[305.0, 0, 1728.0], [0, 304.0, 574.5], [0, 0, 1]])  # centres at integers
    expected, _ = cv2.fisheye.projectPoints(
        np.array([[[x, y, 1.0]]]), np.zeros(3), np.zeros(3), matrix, np.array(DISTORTION)
    )
    np.testing.assert_allclose(lens.project([x, y, 1.0]) - 0.5, expected[0, 0], atol=1e-6)


@given(directions, st.floats(-math.pi, math.pi), distances)
def test_a_rotated_rig_sees_rotated_directions(direction, turn, distance):
    camera = _camera(distance)
    matrix = np.array([
        [math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]
    ])  # fmt: skip
    turned = replace(
        camera,
        lenses=tuple(
            replace(
                lens, yaw=lens.yaw + turn, translation=tuple(matrix @ np.array(lens.translation))
            )
            for lens in camera.lenses
        ),
    )
    for lens in (0, 1):
        np.testing.assert_allclose(
            turned.to_pixels(matrix @ direction, lens), camera.to_pixels(direction, lens), atol=1e-6
        )


def test_the_roll_turns_the_picture_upright():
    lens = Lens("front", (500, 500), (300, 300), math.radians(190), roll=math.radians(90))
    up = lens.project(lens.rotation.T @ sphere.angles_to_direction(0, 0.5))
    assert up[0] < 400  # the left of the picture becomes its top by a clockwise turn
    assert up[1] == pytest.approx(500)


def test_the_lenses_agree_at_the_distance_and_differ_by_the_parallax_elsewhere():
    camera = _camera(distance=2.0)
    side = sphere.angles_to_direction(math.pi / 2, 0.2)
    for away, apart in ((2.0, 0.0), (1.0, 0.013), (math.inf, 0.013)):
        at = _camera(distance=away)
        seen = [camera.to_directions(at.to_pixels(side, lens), lens) for lens in (0, 1)]
        assert sphere.angle_between(*seen) == pytest.approx(apart, abs=2e-4)


def test_the_panoramas_size_follows_from_the_lenses():
    camera = _camera()
    assert camera.panorama_size == (1916, 958)  # 2 pi 305
    assert replace(camera, panorama_width=1024).panorama_size == (1024, 512)
    assert math.degrees(camera.overlap) == pytest.approx(15 - 1.8, abs=0.1)


def test_a_picture_of_another_size():
    camera = _camera()
    with pytest.raises(ValueError, match=r"the picture is 1920x960, .* for 2304x1152"):
        camera.of_picture((1920, 960))
    scaled = replace(camera, any_size=True).of_picture((1152, 576))
    assert scaled.lenses[0].focal_length == (152.5, 152.0)
    with pytest.raises(ValueError, match=r"1920x1080; .* aspect ratio of 2304:1152"):
        replace(camera, any_size=True).of_picture((1920, 1080))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"focal_length": (0.0, 305.0)}, r"focal_length of the front lens is \[0, 305\]"),
        ({"fov": math.radians(90)}, "field_of_view of the front lens is 90 degrees"),
        ({"fov": math.radians(300)}, "field_of_view of the front lens is 300 degrees"),
        ({"centre": (math.nan, 2.0)}, "not finite"),
        ({"pitch": 2.0}, "pitch of the front lens is 114.592"),
        ({"distortion": (-0.5, 0, 0, 0)}, "distortion of the front lens is .* from 47 degrees on"),
        ({"centre": (300.0, 576.0)}, "extends 278 pixels beyond the picture's width of 2304"),
        ({"centre": (700.0, 576.0)}, "the circles of the two lenses overlap in the picture"),
        ({"translation": (3.0, 0.0, 0.0)}, "distance is 2 m, and translation of the front lens"),
    ],
)
def test_impossible_lenses_are_refused_by_name(changes, named):
    camera = _camera(distance=2.0)
    with pytest.raises(ValueError, match=named):
        replace(camera, lenses=(replace(camera.lenses[0], **changes), camera.lenses[1]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"panorama_width": 1001}, "panorama_width is 1001; it must be even"),
        ({"panorama_width": 9000}, "panorama_width is 9000"),
        ({"blend": 2.0}, "blend is 114.592 degrees"),
        ({"distance": 0.01}, "distance is 0.01 m"),
        ({"picture_size": (0, 10)}, "picture_size is 0x10"),
    ],
)
def test_impossible_cameras_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        replace(_camera(), **changes)
