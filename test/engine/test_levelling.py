"""levelling: which way is up, from TF or from an IMU; and what the engine does with it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Attitude, Image, Settings
from sap_ros.engine.levelling import Levels
from sap_ros.engine.transforms import Transform

from .conftest import SECOND, KnownTransforms, click, ids, image, mask_at, tell

UP = np.array(sphere.UP)
TILT = Rotation.from_euler("xy", [15, 20], degrees=True)  # from the robot's axes to level ones
ROBOT_UP = TILT.inv().apply(UP)


def _levels(**known):
    said = []
    return Levels(KnownTransforms(**known), said.append), said


def _attitude(up=ROBOT_UP, seconds=1.0, frame="camera"):
    return Attitude(up, round(seconds * SECOND), frame)


def _image(seconds=1, frame="camera", delay=0):
    return Image((512, 256), lambda: None, seconds * SECOND, frame, delay)


def test_nothing_is_levelled_unless_it_is_wanted():
    levels, said = _levels()
    assert levels.up(_image(), Settings()) is None
    assert not said


@pytest.mark.parametrize("axes", [ImageAxes(), ImageAxes(0.25), ImageAxes(0.5, "optical")])
def test_up_is_the_level_frames_z_axis_in_the_panoramas_axes(axes):
    levels, _ = _levels(camera_to_odom=Transform(TILT.as_matrix(), np.array([1.0, 2, 3])))
    up = levels.up(_image(), Settings(level_frame="odom", axes=axes))
    np.testing.assert_allclose(axes.to_frame(up), ROBOT_UP, atol=1e-12)


def test_up_is_what_the_imu_says_in_the_cameras_frame():
    mounted = Rotation.from_euler("z", 90, degrees=True)
    levels, said = _levels(imu_link_to_camera=Transform(mounted.as_matrix()))
    levels.take(_attitude(frame="imu_link"))
    np.testing.assert_allclose(levels.up(_image(), Settings()), mounted.apply(ROBOT_UP), atol=1e-12)
    assert not said


def test_of_the_attitudes_the_nearest_in_time_is_taken_also_with_late_stamps():
    levels, _ = _levels()
    for at, up in ((0.9, [1.0, 0, 0]), (1.0, [0, 1.0, 0]), (1.1, [0, 0, 1.0])):
        levels.take(_attitude(np.array(up), at))
    np.testing.assert_array_equal(levels.up(_image(), Settings()), [0, 1, 0])
    late = _image(delay=round(0.09 * SECOND))
    np.testing.assert_array_equal(levels.up(late, Settings()), [1, 0, 0])


def test_without_stamps_the_latest_attitude_is_taken():
    levels, _ = _levels()
    for up in ([1.0, 0, 0], [0, 1.0, 0]):
        levels.take(_attitude(np.array(up), 0))
    np.testing.assert_array_equal(levels.up(_image(0), Settings()), [0, 1, 0])


def test_a_fast_imu_is_kept_for_seconds():
    levels, said = _levels()
    for k in range(2000):  # 400 Hz
        levels.take(_attitude(seconds=1 + k / 400))
    assert levels.up(_image(2), Settings()) is not None
    assert not said


@pytest.mark.parametrize(
    ("settings", "attitude", "frame", "named"),
    [
        ({"level_frame": "odom"}, None, "camera", "no transform from 'camera' to 'odom'"),
        ({"level_frame": "odom"}, None, "", "the images have no frame_id"),
        ({}, _attitude(frame="imu_link"), "camera", "no transform from 'imu_link' to 'camera'"),
        ({}, _attitude(seconds=3), "camera", "is 2 s from the image, more than 0.2 s"),
        ({"level_frame": "broken"}, None, "camera", "is not finite"),
    ],
)
def test_what_is_missing_is_said_in_one_line(settings, attitude, frame, named):
    levels, said = _levels(camera_to_broken=Transform(np.full((3, 3), np.nan)))
    if attitude is not None:
        levels.take(attitude)
    assert levels.up(_image(frame=frame), Settings(**settings)) is None
    (line,) = said
    assert named in line
    assert line.startswith("views are not levelled: ")


def _spied(engine):
    """The up directions that the engine's session is given."""
    given, session = [], engine._session
    for name in ("next_image", "set_image"):
        plain = getattr(session, name)

        def spy(pixels, up=None, plain=plain):
            given.append(up)
            plain(pixels, up)

        setattr(session, name, spy)
    return given


def test_an_image_is_answered_with_and_without_an_up_direction(make_engine, panorama):
    engine = make_engine(KnownTransforms())
    given = _spied(engine)
    answers = tell(
        engine, image(panorama, 1), mask_at(256, 128), _attitude(seconds=2), image(panorama, 2),
        image(panorama, 3), _attitude(seconds=4, frame="imu_link"), image(panorama, 4),
    )  # fmt: skip
    assert [up is not None for up in given] == [False, True, False, False]
    np.testing.assert_allclose(given[1], ROBOT_UP)
    by_stamp = {answer.stamp // SECOND: answer for answer in answers}
    assert not by_stamp[2].problems
    assert "1 s from the image" in by_stamp[3].problems[0]
    assert "'imu_link'" in by_stamp[4].problems[0]
    assert [ids(by_stamp[k]) for k in (1, 2, 3, 4)] == [[1]] * 4


def test_the_image_of_a_late_prompt_has_its_own_up_direction(make_engine, panorama, monkeypatch):
    engine = make_engine()
    given, sibling = [], engine._session.sibling

    def spied():
        other = sibling()
        plain = other.set_image
        other.set_image = lambda pixels, up=None: (given.append(up), plain(pixels, up))
        return other

    monkeypatch.setattr(engine._session, "sibling", spied)
    tell(
        engine, _attitude(UP, 1), image(panorama, 1), _attitude(ROBOT_UP, 2), image(panorama, 2),
        click(256, 128, stamp=SECOND),
    )  # fmt: skip
    assert [tuple(up) for up in given] == [sphere.UP]
