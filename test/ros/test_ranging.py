"""ranging and frames: points on masks, and what turns a bearing into a pose."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from geometry_msgs.msg import Point
from hypothesis import given
from hypothesis import strategies as st
from sap_ros.msg import Prompt
from std_msgs.msg import Header

from sap_ros.messages import ImageFrame
from sap_ros.node.frames import _rotation, bearing_quaternion
from sap_ros.node.ranging import ids_of_points, ranges_of_objects
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


@pytest.mark.parametrize("frame", [ImageFrame(), ImageFrame(0.3, "optical")])
def test_points_fall_on_the_objects_they_come_from(frame):
    scene = MovingScene(0)
    _, labels = scene.render(1.0, SIZE)
    points, true = scene.scan(1.0)
    ids = ids_of_points(frame.to_frame(points), labels, frame)
    assert (ids == true).mean() > 0.98
    found = ranges_of_objects(frame.to_frame(points), ids)
    seen = [i for i in np.unique(true[true > 0]) if (true == i).sum() > 20]
    assert len(seen) >= 3
    for i in seen:
        on = np.linalg.norm(points[true == i], axis=1)
        assert found[int(i)] == pytest.approx(np.median(on), rel=0.05)


def test_points_past_the_rim_do_not_change_the_range():
    near, far = np.tile([2.0, 0, 0], (20, 1)), np.tile([9.0, 0, 0], (8, 1))
    points = np.concatenate([near, far])
    assert ranges_of_objects(points, np.ones(28, np.uint16)) == {1: pytest.approx(2.0)}


def test_too_few_points_are_no_range():
    assert ranges_of_objects(np.ones((2, 3)), np.ones(2, np.uint16)) == {}


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5))
def test_a_bearings_pose_has_its_x_axis_along_it(azimuth, elevation):
    direction = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    turn = _rotation(*bearing_quaternion(direction))
    np.testing.assert_allclose(turn[:, 0], direction, atol=1e-9)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert turn[2, 1] == pytest.approx(0, abs=1e-9)  # no roll


@given(st.floats(0, 1), st.sampled_from(["body", "optical"]))
def test_frames_there_and_back(column, convention):
    frame = ImageFrame(column, convention)
    directions = np.eye(3)
    back = frame.from_frame(frame.to_frame(directions))
    np.testing.assert_allclose(back, directions, atol=1e-12)


def test_a_cloud_gives_ranges_and_is_given_back_with_ids(make_rig, panorama):
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    from sensor_msgs.msg import PointCloud2

    rig = make_rig().up()
    clouds = rig.peer.create_publisher(PointCloud2, "points", 1)
    given_back = []
    rig.peer.create_subscription(PointCloud2, "object_points", given_back.append, 1)
    rig.until(clouds.get_subscription_count)
    rig.spin(0.3)
    ahead = np.random.default_rng(0).normal((5.0, 0.0, 0.0), 0.1, (200, 3))
    header = Header(frame_id="camera_link")
    clouds.publish(point_cloud2.create_cloud_xyz32(header, ahead.astype(np.float32)))
    rig.spin(0.3)
    pixels = np.zeros((256, 512), np.uint8)
    pixels[108:148, 236:276] = 255
    prompt = rig.peer.create_publisher(Prompt, "prompt", 1)
    rig.until(prompt.get_subscription_count)
    rig.publish(panorama, stamp=1)
    prompt.publish(Prompt(mask=rig.message(pixels, encoding="mono8")))
    (thing,) = rig.answer(1)[1].objects
    assert thing.range == pytest.approx(5.0, abs=0.2)
    assert isinstance(thing.position, Point)
    rig.until(lambda: given_back)
    assert set(point_cloud2.read_points(given_back[0])["id"]) == {1}
