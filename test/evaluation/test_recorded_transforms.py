"""recorded_transforms: a bag's /tf in place of TF; and replays whose views it levels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from sap_ros.core.loading import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.events import Settings
from sap_ros.engine.transforms import NoTransforms, Stamped
from sap_ros.evaluation.bags import Bag, BagWriter, header, make
from sap_ros.evaluation.recorded_transforms import recorded_transforms
from sap_ros.evaluation.replay import find_topics, replay
from sap_ros.synthesis.moving import MovingScene

SECOND = 10**9
SIZE = (512, 256)


def _tf(parent, child, rotation, at=(0.0, 0.0, 0.0), stamp=0):
    x, y, z, w = (float(value) for value in rotation.as_quat())
    transform = make(
        "geometry_msgs/msg/Transform",
        translation=make("geometry_msgs/msg/Vector3", x=at[0], y=at[1], z=at[2]),
        rotation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )
    stamped = make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp, parent), child_frame_id=child, transform=transform,
    )  # fmt: skip
    return make("tf2_msgs/msg/TFMessage", transforms=[stamped])


LEFT = Rotation.from_euler("z", 90, degrees=True)


@pytest.fixture(scope="module")
def transforms(tmp_path_factory):
    """odom to base_link turns left by 90 degrees from 1 to 2 s and drives 2 m; the camera is 1 m above it."""
    path = tmp_path_factory.mktemp("tf") / "bag"
    with BagWriter(path) as writer:
        mounted = _tf("base_link", "camera", Rotation.identity(), (0.0, 0.0, 1.0))
        writer.write("/tf_static", 1, mounted)
        writer.write("/tf_static", 2, _tf("island", "rock", LEFT))
        for k, (turn, x) in enumerate(((Rotation.identity(), 0.0), (LEFT, 2.0)), 1):
            message = _tf("odom", "base_link", turn, (x, 0.0, 0.0), k * SECOND)
            writer.write("/tf", k * SECOND, message)
        broken = _tf("odom", "base_link", LEFT, (np.nan, 0.0, 0.0), SECOND)
        writer.write("/tf", 3 * SECOND, broken)
    with Bag(path) as bag:
        return recorded_transforms(bag)


@given(st.floats(1, 2))
def test_a_moving_frame_is_interpolated(transforms, seconds):
    stamp = round(seconds * SECOND)
    found = transforms.lookup(Stamped("odom", stamp), Stamped("camera", stamp))
    share = stamp / SECOND - 1
    expected = Rotation.from_euler("z", 90 * share, degrees=True).as_matrix()
    np.testing.assert_allclose(found.rotation, expected, atol=1e-9)
    np.testing.assert_allclose(found.translation, (2 * share, 0, 1), atol=1e-9)
    back = transforms.lookup(Stamped("camera", stamp), Stamped("odom", stamp))
    np.testing.assert_allclose(back.points(found.points(np.array([3.0, 4, 5]))), (3, 4, 5))


def test_the_latest_and_that_through_a_fixed_frame(transforms):
    latest = transforms.lookup(Stamped("odom"), Stamped("base_link"))
    np.testing.assert_allclose(latest.translation, (2, 0, 0))
    moved = transforms.lookup(
        Stamped("camera", 2 * SECOND), Stamped("camera", SECOND), fixed_frame="odom"
    )
    # What was 3 m ahead at first is 1 m ahead of where the robot is, and so to its right.
    np.testing.assert_allclose(moved.points(np.array([3.0, 0, 0])), (0, -1, 0), atol=1e-9)


@pytest.mark.parametrize(
    ("target", "stamp", "named"),
    [
        ("odom", 3 * SECOND, "is recorded from 1000000000 to 2000000000 ns"),
        ("rock", SECOND, "do not connect them"),
        ("nowhere", SECOND, "do not connect them"),
    ],
)
def test_what_was_not_recorded_is_named(transforms, target, stamp, named):
    with pytest.raises(ValueError, match=f"no transform from 'camera' to '{target}'.*{named}"):
        transforms.lookup(Stamped(target, stamp), Stamped("camera", stamp))


def test_the_same_and_unnamed_frames_need_nothing(transforms):
    for frames in (("camera", "camera"), ("", "camera"), ("camera", "")):
        found = transforms.lookup(*(Stamped(frame, 9 * SECOND) for frame in frames))
        np.testing.assert_array_equal(found.rotation, np.eye(3))


TILT = Rotation.from_euler("xy", [-20, 20], degrees=True)


def _imu(stamp, covariance=0.0):
    x, y, z, w = (float(value) for value in TILT.as_quat())
    nothing = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    return make(
        "sensor_msgs/msg/Imu", header=header(stamp, "imu_link"),
        orientation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        orientation_covariance=np.full(9, covariance), angular_velocity=nothing,
        angular_velocity_covariance=np.zeros(9), linear_acceleration=nothing,
        linear_acceleration_covariance=np.zeros(9),
    )  # fmt: skip


def _drive(path, covariance=0.0):
    """A tilted robot with an IMU and TF, and a click on an object; the images."""
    scene = MovingScene(2, tilt=lambda _: TILT.as_matrix())
    shots = [scene.render(0.1 * k, SIZE) for k in range(2)]
    v, u = (int(np.median(part)) for part in np.nonzero(shots[0][1] == 5))
    with BagWriter(path) as writer:
        writer.write("/tf_static", 1, _tf("imu_link", "camera", Rotation.identity()))
        for k, (image, _) in enumerate(shots, 1):
            stamp = k * SECOND
            writer.write("/imu/data", stamp - 2, _imu(stamp, covariance))
            writer.write("/tf", stamp - 1, _tf("odom", "imu_link", TILT, stamp=stamp))
            message = make(
                "sensor_msgs/msg/Image", header=header(stamp, "camera"), height=SIZE[1],
                width=SIZE[0], encoding="rgb8", is_bigendian=0, step=SIZE[0] * 3,
                data=np.frombuffer(image.tobytes(), np.uint8),
            )  # fmt: skip
            writer.write("/image", stamp, message)
            if k == 1:
                at = make("geometry_msgs/msg/Point", x=u + 0.5, y=v + 0.5, z=0.0)
                click = make("geometry_msgs/msg/PointStamped", header=header(0, ""), point=at)
                writer.write("/sap/prompt/point", stamp + 1, click)
    return [image for image, _ in shots], (u + 0.5, v + 0.5)


def _replayed(path, out, imu="", **settings):
    with Bag(path) as bag:
        session = PanoramaSession(load_model("sap-nano"))
        result = replay(bag, find_topics(bag, imu=imu), session, out, settings=Settings(**settings))
    with Bag(out / "bag") as bag:
        masks = [
            np.array(m.data).reshape(m.height, m.width) for _, _, m in bag.messages(["/sap/masks"])
        ]
    return masks, result.notes


def test_the_imu_and_tf_of_a_bag_level_the_views(tmp_path):
    images, click = _drive(tmp_path / "bag")
    session, expected = PanoramaSession(load_model("sap-nano")), []
    from sap_ros.core.prompts import from_pixels

    for k, image in enumerate(images):
        session.next_image(image, TILT.inv().apply((0, 0, 1)))
        if not k:
            session.add_prompt(from_pixels(1, [click], SIZE))
        expected.append(session.segment().labels)
    assert expected[0].any()
    plain, notes = _replayed(tmp_path / "bag", tmp_path / "plain")
    assert not notes
    for name, how in (("imu", {"imu": "/imu/data"}), ("tf", {"level_frame": "odom"})):
        masks, notes = _replayed(tmp_path / "bag", tmp_path / name, **how)
        assert not notes
        for mask, true in zip(masks, expected, strict=True):
            np.testing.assert_array_equal(mask, true)
    assert any((mask != true).any() for mask, true in zip(plain, expected, strict=True))


def test_what_levels_nothing_is_noted_and_the_images_are_answered(tmp_path):
    _drive(tmp_path / "bag", covariance=-1.0)
    masks, notes = _replayed(tmp_path / "bag", tmp_path / "imu", imu="/imu/data")
    assert [mask.any() for mask in masks] == [True, True]
    (note,) = notes
    assert "orientation_covariance[0] is -1" in note
    masks, notes = _replayed(tmp_path / "bag", tmp_path / "tf", level_frame="map")
    assert [mask.any() for mask in masks] == [True, True]
    assert all("no transform from 'camera' to 'map'" in note for note in notes)
    with Bag(tmp_path / "bag") as bag, pytest.raises(ValueError, match="must be sensor_msgs"):
        find_topics(bag, imu="/tf")


def test_a_bag_without_tf_has_no_transforms(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/imu/data", SECOND, _imu(SECOND))
    with Bag(tmp_path / "bag") as bag:
        assert isinstance(recorded_transforms(bag), NoTransforms)
