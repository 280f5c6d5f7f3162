"""clouds and poses: point clouds in and out, and what turns a bearing into a pose."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from hypothesis import given
from hypothesis import strategies as st
from sap_ros.msg import Prompt
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from sap_ros.node.transforms import bearing_quaternion


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5))
def test_a_bearings_pose_has_its_x_axis_along_it(azimuth, elevation):
    direction = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    turn = Rotation.from_quat(bearing_quaternion(direction)).as_matrix()
    np.testing.assert_allclose(turn[:, 0], direction, atol=1e-9)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert turn[2, 1] == pytest.approx(0, abs=1e-9)  # no roll


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
    header = Header(frame_id="camera_link", stamp=Time(sec=1))
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
