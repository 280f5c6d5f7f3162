"""evaluation.latency: the delay of a traced drive's images, known, against a gyroscope and odometry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from sap_ros.camera_files import read_camera
from sap_ros.cli import app
from sap_ros.core.projection import TwoFisheyes
from sap_ros.evaluation.bags import Bag, BagWriter, header, make
from sap_ros.evaluation.latency import camera_delay, find_delay, rotation_of
from sap_ros.synthesis.fisheyes import fisheyes_of
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)
START = 1_700_000_000.0
MOUNTED = Rotation.from_euler("xyz", [10, -20, 70], degrees=True)  # the IMU on the camera


def shaken(time):
    """Uneven ground: roll and pitch with several frequencies."""
    roll = 0.06 * np.sin(2 * np.pi * 0.7 * time) + 0.03 * np.sin(2 * np.pi * 1.3 * time + 1)
    pitch = 0.05 * np.sin(2 * np.pi * 0.45 * time + 2) + 0.03 * np.sin(2 * np.pi * 1.1 * time)
    return Rotation.from_euler("xy", [roll, pitch]).as_matrix()


def rate(scene, time, step=1e-4):
    """The camera's rotation rate (3,) in its own axes, in rad/s."""
    before, after = (Rotation.from_matrix(scene.rotation(t)) for t in (time - step, time + step))
    return (before.inv() * after).as_rotvec() / (2 * step)


def vector(values):
    return make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, values), strict=True)))


def imu(time, value):
    still = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    unknown = np.zeros(9)
    return make(
        "sensor_msgs/msg/Imu", header=header(round(time * 1e9), "imu"), orientation=still,
        orientation_covariance=unknown, angular_velocity=vector(value),
        angular_velocity_covariance=unknown, linear_acceleration=vector((0, 0, 9.81)),
        linear_acceleration_covariance=unknown,
    )  # fmt: skip


def odometry(time, value):
    point = make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
    still = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = make("geometry_msgs/msg/Pose", position=point, orientation=still)
    twist = make("geometry_msgs/msg/Twist", linear=vector((0, 0, 0)), angular=vector(value))
    return make(
        "nav_msgs/msg/Odometry", header=header(round(time * 1e9), "odom"), child_frame_id="base",
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def drive():
    """A scene, and its images at 10 per second."""
    scene = MovingScene(3, tilt=shaken)
    return scene, [(k / 10, scene.render(k / 10, SIZE)[0]) for k in range(60)]


def record(path, scene, images, late, sensor, noise=0.01):
    rng = np.random.default_rng(0)
    messages = []
    for time, image in images:
        stamp = round((START + time + late) * 1e9)
        pixels = np.frombuffer(image.tobytes(), np.uint8)
        messages.append((stamp, "/image", make(
            "sensor_msgs/msg/Image", header=header(stamp, "camera"), height=image.shape[0],
            width=image.shape[1], encoding="rgb8", is_bigendian=0, step=3 * image.shape[1], data=pixels,
        )))  # fmt: skip
    for time in np.arange(-1.0, images[-1][0] + 1, 0.01):
        bias = np.array([0.02, -0.01, 0.03])
        value = MOUNTED.apply(rate(scene, time)) + bias + rng.normal(0, noise, 3)
        stamp = round((START + time) * 1e9)
        messages.append((stamp, "/rates", sensor(START + time, value)))
    with BagWriter(path) as bag:
        for stamp, topic, message in sorted(messages, key=lambda m: m[0]):
            bag.write(topic, stamp, message)
    return path


def test_the_rotation_between_two_panoramas(drive):
    scene, images = drive
    grey = [image[..., 1] for _, image in images[10:12]]
    found = rotation_of(*grey)
    before, after = (Rotation.from_matrix(scene.rotation(time)) for time, _ in images[10:12])
    true = (before.inv() * after).as_rotvec()
    assert np.degrees(np.linalg.norm(true)) > 0.5
    assert np.degrees(np.linalg.norm(found - true)) < 0.35


@pytest.mark.parametrize(("late", "sensor"), [(0.187, imu), (-0.06, odometry), (0.42, imu)])
def test_a_known_delay_is_found(drive, tmp_path, late, sensor):
    with Bag(record(tmp_path / "bag", *drive, late, sensor)) as bag:
        found, notes = camera_delay(bag, longest=0.5)
    assert found.seconds == pytest.approx(late, abs=0.015)
    assert abs(found.seconds - late) < 5 * found.stddev
    assert found.correlation > 0.9
    assert not notes


def test_pictures_of_two_fisheyes(drive, tmp_path):
    scene, images = drive
    camera = read_camera("insta360").of_picture((640, 320))
    pictures = [(time, fisheyes_of(image, camera)) for time, image in images]
    with Bag(record(tmp_path / "bag", scene, pictures, 0.187, imu)) as bag:
        found, _ = camera_delay(bag, longest=0.5, projection=TwoFisheyes(camera))
    assert found.seconds == pytest.approx(0.187, abs=0.015)


def test_the_command_prints_it_or_refuses_in_one_line(drive, tmp_path):
    scene, images = drive
    good = record(tmp_path / "good", scene, images, 0.2, imu)
    result = CliRunner().invoke(app, ["latency", str(good), "--longest", "0.5"])
    assert result.exit_code == 0
    assert "stamp_offset: 0.2" in result.output or "stamp_offset: 0.19" in result.output
    assert "residual" in result.output
    still = record(tmp_path / "still", scene, [(k / 10, images[0][1]) for k in range(60)], 0.2, imu)
    result = CliRunner().invoke(app, ["latency", str(still), "--longest", "0.5"])
    assert isinstance(result.exception, ValueError)
    assert "correlation" in str(result.exception)
    with Bag(good) as bag, pytest.raises(ValueError, match="give a smaller --longest"):
        camera_delay(bag, longest=5)


def rates_of(function, late, count=200):
    """Intervals of images at 10 per second, and a gyroscope at 100, of a rotation about z."""
    times = np.arange(-3, count / 10 + 3, 0.01)
    stamps = np.stack([np.arange(count) / 10, np.arange(1, count + 1) / 10], -1)
    angle = np.concatenate([[0], np.cumsum(function(times)[:-1] * 0.01)])
    turned = np.diff(np.interp(stamps, times, angle), axis=1)
    rotations = turned * [[0, 0, 1.0]] + np.random.default_rng(0).normal(0, 0.002, (count, 3))
    return stamps + late, rotations, times, function(times)[:, None] * [[0, 1.0, 0]]


def test_a_planar_robot_suffices():
    found = find_delay(*rates_of(lambda t: 0.5 * np.sin(2 * t) + 0.3 * np.sin(5 * t), 0.25), 1.0)
    assert found.seconds == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda t: np.zeros_like(t), "correlation"),
        (lambda t: np.full_like(t, 0.5), "correlation"),  # at a constant speed
        (lambda t: 0.5 * np.sin(2 * np.pi * 2 * t), "repeats itself"),
        (lambda t: 0.05 * np.sin(0.4 * t), "determine"),
    ],
)
def test_what_the_motion_does_not_determine_is_refused(function, said):
    with pytest.raises(ValueError, match=said):
        find_delay(*rates_of(function, 0.2), 1.0)


def test_a_delay_beyond_the_longest_is_refused():
    with pytest.raises(ValueError, match="larger --longest"):
        find_delay(*rates_of(lambda t: 0.5 * np.sin(1.2 * t) + 0.1 * np.sin(2.1 * t), 0.6), 0.3)
