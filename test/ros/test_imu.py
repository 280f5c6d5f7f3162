"""A tilted robot with an IMU, over DDS: the views are level."""

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Imu

from sap_ros.core import sphere
from sap_ros.core.loading import load_model
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.synthesis.moving import MovingScene

TILT = Rotation.from_euler("xy", [-20, 20], degrees=True)  # from the robot's axes to level ones
SIZE = (512, 256)


def _imu(stamp=1, frame="camera_link", quaternion=None, covariance=0.0):
    message = Imu()
    message.header.stamp.sec, message.header.frame_id = stamp, frame
    q = message.orientation
    q.x, q.y, q.z, q.w = (float(v) for v in (TILT.as_quat() if quaternion is None else quaternion))
    message.orientation_covariance[0] = covariance
    return message


def _up(make_rig, **parameters):
    rig = make_rig(strategy="auto", **parameters)
    rig.imus = rig.peer.create_publisher(Imu, "imu/data", 10)
    rig.said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", rig.said.append, 10)
    rig.up()
    rig.until(rig.imus.get_subscription_count)
    return rig


def _tell(rig, message):
    rig.imus.publish(message)
    rig.spin(0.3)


def _labels(rig, stamp):
    masks, _ = rig.answer(stamp)
    return np.frombuffer(masks.data, np.uint8).reshape(masks.height, masks.width)


def _by_the_core(image, click, up):
    session = PanoramaSession(load_model())
    session.set_image(image, up)
    session.add_prompt(from_pixels(1, [click], SIZE))
    return session.segment().labels


@pytest.fixture(scope="module")
def tilted():
    """A traced panorama of the tilted robot, and the middle of an object."""
    image, labels = MovingScene(2, tilt=lambda _: TILT.as_matrix()).render(0, SIZE)
    v, u = (int(np.median(part)) for part in np.nonzero(labels == 5))
    return image, (u + 0.5, v + 0.5)


def test_views_are_level_by_the_imu(make_rig, tilted):
    image, click = tilted
    up = TILT.inv().apply(sphere.UP)
    level, plain = _by_the_core(image, click, up), _by_the_core(image, click, None)
    assert (level != plain).any()
    rig = _up(make_rig)
    _tell(rig, _imu())
    rig.publish(image, stamp=1)
    rig.click(*click)
    np.testing.assert_array_equal(_labels(rig, 1), level)
    rig.down()
    without = _up(make_rig)
    without.publish(image, stamp=1)
    without.click(*click)
    np.testing.assert_array_equal(_labels(without, 1), plain)


def test_a_fast_imu_reaches_back_to_an_image_that_has_waited(make_rig, tilted):
    """1000 messages a second, which come while the worker is busy."""
    image, click = tilted
    rig = _up(make_rig)
    for k in range(1000):
        message = _imu()
        message.header.stamp.nanosec = k * 10**6
        rig.sap._take_imu(message)
    rig.publish(image, stamp=1)
    rig.click(*click)
    up = TILT.inv().apply(sphere.UP)
    np.testing.assert_array_equal(_labels(rig, 1), _by_the_core(image, click, up))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (_imu(covariance=-1.0), "orientation_covariance[0] is -1"),
        (_imu(quaternion=(0, 0, 0, 0)), "(0.0, 0.0, 0.0, 0.0)"),
        (_imu(quaternion=(0, 0, math.nan, 1)), "finite and not zero"),
        (_imu(frame="imu_link"), "from 'imu_link' to 'camera_link'"),
    ],
)
def test_with_a_bad_imu_images_are_answered_as_if_level(make_rig, tilted, message, named):
    image, click = tilted
    rig = _up(make_rig, tf_timeout=0.1)
    _tell(rig, message)
    rig.publish(image, stamp=1)
    rig.click(*click)
    np.testing.assert_array_equal(_labels(rig, 1), _by_the_core(image, click, None))
    rig.until(lambda: any(named in told.status[0].message for told in rig.said))
    lines = {told.status[0].message for told in rig.said if named in told.status[0].message}
    assert all("\n" not in line and line.startswith("views are not levelled") for line in lines)


def test_an_imu_that_is_not_needed_is_not_complained_about(make_rig, tilted):
    """TF was asked for, and is the one that is missing."""
    image, click = tilted
    rig = _up(make_rig, level_frame="odom", tf_timeout=0.1)
    _tell(rig, _imu(covariance=-1.0))
    rig.publish(image, stamp=1)
    rig.click(*click)
    np.testing.assert_array_equal(_labels(rig, 1), _by_the_core(image, click, None))
    rig.until(lambda: any("to 'odom'" in told.status[0].message for told in rig.said))
    assert not any("covariance" in told.status[0].message for told in rig.said)
