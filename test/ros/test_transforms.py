"""Gaze, bearings and frames through the real tf2_ros; skipped by name where it is missing."""

import math

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
tf2_ros = pytest.importorskip("tf2_ros")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PoseStamped, TransformStamped
from sap_ros.msg import Object, Prompt
from sap_ros.srv import AddObject
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import UInt16
from visualization_msgs.msg import MarkerArray

from sap_ros.core import sphere
from sap_ros.core.instances import measure
from sap_ros.core.loading import load_model
from sap_ros.core.motion import rotation_between
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.node.transforms import bearing_quaternion
from sap_ros.synthesis.moving import MovingScene


def _transform(parent, child, yaw=0.0, at=(0.0, 0.0, 0.0), seconds=0):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp.sec = parent, seconds
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = at
    turn.z, turn.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return message


def _fixed(rig, *transforms):
    tf2_ros.StaticTransformBroadcaster(rig.peer).sendTransform(list(transforms))
    rig.spin(0.3)


def _add(rig, prompt):
    client = rig.peer.create_client(AddObject, "add_object")
    rig.until(client.service_is_ready)
    answer = client.call_async(AddObject.Request(prompt=prompt))
    rig.until(answer.done)
    assert answer.result().success, answer.result().message


def _mask_prompt(rig, u, v, **fields):
    pixels = np.zeros((256, 512), np.uint8)
    pixels[v - 12 : v + 12, u - 12 : u + 12] = 255
    return Prompt(mask=rig.message(pixels, encoding="mono8"), **fields)


def _is_disk(number, labels, spots):
    """The object was found, and it is that disk: the masks of other directions are others."""
    true = spots[1].ravel() == number
    assert ((labels == 1) & true).sum() > 0.7 * ((labels == 1) | true).sum()


def _objects(rig):
    rig.until(lambda: rig.objects)
    return rig.objects[-1]


def test_a_gaze_in_another_frame_is_turned_into_the_images(make_rig, spots):
    rig = make_rig().up()
    _fixed(rig, _transform("camera_link", "head", yaw=math.pi / 2, at=(9.0, 9.0, 9.0)))
    rig.publish(spots[0], stamp=1)
    gaze = Prompt(space=Prompt.DIRECTIONS, points=[Point(x=3.0)])
    gaze.header.frame_id = "head"
    _add(rig, gaze)
    masks, _ = rig.answer(1)
    by_gaze = np.frombuffer(masks.data, np.uint8)
    _is_disk(2, by_gaze, spots)
    rig.down()
    other = make_rig().up()
    other.publish(spots[0], stamp=1)
    other.click(*sphere.direction_to_pixel(np.array([0.0, 1.0, 0.0]), (512, 256)))  # to the left
    np.testing.assert_array_equal(np.frombuffer(other.answer(1)[0].data, np.uint8), by_gaze)


def test_a_position_in_another_frame_is_seen_from_the_camera(make_rig, spots):
    rig = make_rig().up()
    _fixed(rig, _transform("map", "camera_link", at=(1.0, 2.0, 0.0)))
    rig.publish(spots[0], stamp=1)
    place = Prompt(space=Prompt.POSITIONS, points=[Point(x=1.0, y=5.0)])
    place.header.frame_id = "map"
    _add(rig, place)
    masks, _ = rig.answer(1)
    labels = np.frombuffer(masks.data, np.uint8)
    _is_disk(2, labels, spots)
    rig.down()
    other = make_rig().up()
    other.publish(spots[0], stamp=1)
    other.click(*sphere.direction_to_pixel(np.array([0.0, 1.0, 0.0]), (512, 256)))
    np.testing.assert_array_equal(np.frombuffer(other.answer(1)[0].data, np.uint8), labels)


@pytest.mark.parametrize("late", [0, 1])
def test_bearings_are_in_the_target_frame_at_the_images_stamp(make_rig, panorama, late):
    """The camera turns: what counts is where it was at the stamp, less `stamp_offset`."""
    rig = make_rig(target_frame="odom", stamp_offset=float(late)).up()
    broadcaster = tf2_ros.TransformBroadcaster(rig.peer)
    for seconds, yaw in ((1, 0.0), (2, math.pi / 2), (3, math.pi)):
        broadcaster.sendTransform(_transform("odom", "camera_link", yaw, seconds=seconds))
        rig.spin(0.1)
    rig.publish(panorama, stamp=2 + late)
    _add(rig, _mask_prompt(rig, 256, 128))  # straight ahead
    found = _objects(rig)
    assert found.header.frame_id == "odom"
    assert found.header.stamp.sec == 2 + late  # the camera's
    assert found.objects[0].azimuth == pytest.approx(math.pi / 2, abs=0.1)


def _robot(tilt):
    """A panorama (256, 512, 3) of a tilted robot, and a pixel of an object."""
    image, labels = MovingScene(2, tilt=lambda _: tilt.as_matrix()).render(0, (512, 256))
    v, u = (int(np.median(part)) for part in np.nonzero(labels == 5))
    return image, (u + 0.5, v + 0.5)


def test_views_are_level_and_bearings_are_too_by_tf(make_rig):
    """The robot is rolled and pitched by 20 degrees, and tf has it from odom to the camera."""
    tilt = Rotation.from_euler("xy", [20, 20], degrees=True)
    image, click = _robot(tilt)
    session = PanoramaSession(load_model())
    session.set_image(image, tilt.inv().apply(sphere.UP))
    session.add_prompt(from_pixels(1, [click], (512, 256)))
    expected = session.segment()
    rig = make_rig(strategy="auto", level_frame="odom", target_frame="odom").up()
    mounted = _transform("odom", "camera_link")
    turn = mounted.transform.rotation
    turn.x, turn.y, turn.z, turn.w = (float(value) for value in tilt.as_quat())
    _fixed(rig, mounted)
    rig.publish(image, stamp=1)
    rig.click(*click)
    masks, objects = rig.answer(1)
    np.testing.assert_array_equal(np.frombuffer(masks.data, np.uint8), expected.labels.ravel())
    d = objects.objects[0].direction
    expected_direction = tilt.apply(expected.objects[0].direction)
    np.testing.assert_allclose([d.x, d.y, d.z], expected_direction, atol=1e-5)


def test_a_missing_frame_is_named(make_rig, panorama):
    rig = make_rig(target_frame="odom", tf_timeout=0.1).up()
    said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", said.append, 10)
    rig.publish(panorama, stamp=2)
    _add(rig, _mask_prompt(rig, 256, 128))
    rig.until(lambda: any("'odom'" in m.status[0].message for m in said))
    assert rig.masks
    found = _objects(rig)  # what they are is known, and not where
    assert found.header.frame_id == "odom"
    assert found.objects[0].state == Object.TRACKED
    assert math.isnan(found.objects[0].direction.x)
    assert math.isnan(found.objects[0].azimuth)


def test_an_old_direction_is_turned_by_the_robots_own_motion(make_rig, spots):
    rig = make_rig(fixed_frame="odom", keep_frames=0).up()
    broadcaster = tf2_ros.TransformBroadcaster(rig.peer)
    for seconds, yaw in ((1, 0.0), (5, math.pi / 2)):
        broadcaster.sendTransform(_transform("odom", "camera_link", yaw, seconds=seconds))
        rig.spin(0.1)
    rig.publish(spots[0], stamp=5)
    gaze = Prompt(space=Prompt.DIRECTIONS, points=[Point(y=1.0)])  # left, before it turned left
    gaze.header.frame_id, gaze.header.stamp = "camera_link", Time(sec=1)
    _add(rig, gaze)
    masks, _ = rig.answer(5)
    labels = np.frombuffer(masks.data, np.uint8)
    _is_disk(1, labels, spots)
    rig.down()
    other = make_rig().up()
    other.publish(spots[0], stamp=1)
    other.click(256, 128)  # ahead, now
    np.testing.assert_array_equal(np.frombuffer(other.answer(1)[0].data, np.uint8), labels)


def test_objects_are_broadcast_as_frames_along_their_bearings(make_rig, panorama):
    rig = make_rig(broadcast_tf=True).up()
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, rig.peer)
    rig.publish(panorama, stamp=1)
    _add(rig, _mask_prompt(rig, 150, 90))
    (thing,) = _objects(rig).objects
    assert thing.state == Object.TRACKED
    rig.until(lambda: buffer.can_transform("camera_link", "sap/object_1", rclpy.time.Time()))
    q = buffer.lookup_transform("camera_link", "sap/object_1", rclpy.time.Time()).transform.rotation
    axis = [1 - 2 * (q.y**2 + q.z**2), 2 * (q.x * q.y + q.z * q.w), 2 * (q.x * q.z - q.y * q.w)]
    d = thing.direction
    np.testing.assert_allclose(axis, [d.x, d.y, d.z], atol=1e-6)
    del listener


def test_a_lidar_elsewhere_gives_range_pose_and_frame(make_rig, panorama):
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    rig = make_rig(pose_object=1, broadcast_tf=True).up()
    _fixed(rig, _transform("camera_link", "lidar", at=(0.0, 0.0, -0.5)))
    poses = []
    rig.peer.create_subscription(PoseStamped, "pose", poses.append, 10)
    clouds = rig.peer.create_publisher(PointCloud2, "points", 10)
    rig.until(clouds.get_subscription_count)
    header = rig.message(panorama, stamp=1).header
    header.frame_id = "lidar"
    # A wall 4 m ahead of the camera, as the lidar half a metre below sees it.
    y, z = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60))
    points = np.stack([np.full(y.shape, 4.0), y, z + 0.5], -1).reshape(-1, 3).astype(np.float32)
    clouds.publish(point_cloud2.create_cloud_xyz32(header, points))
    rig.spin(0.3)
    rig.publish(panorama, stamp=1)
    _add(rig, _mask_prompt(rig, 256, 128))
    rig.until(lambda: poses)
    (thing,) = _objects(rig).objects
    assert thing.range == pytest.approx(4.0, abs=0.1)
    at = poses[0].pose.position
    np.testing.assert_allclose([at.x, at.y, at.z], [4.0, 0.0, 0.0], atol=0.15)


def test_the_canvas_frame_is_known_to_tf(make_rig, panorama):
    rig = make_rig().up()
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, rig.peer)
    seen = []
    rig.peer.create_subscription(PointCloud2, "canvas", seen.append, 1)
    rig.until(lambda: rig.sap.count_subscribers("canvas"))
    rig.publish(panorama, stamp=1)
    rig.until(lambda: seen)
    frame = seen[0].header.frame_id
    rig.until(lambda: buffer.can_transform(frame, f"{frame}_origin", rclpy.time.Time()))
    del listener


def test_the_quaternion_of_a_bearing_has_no_roll():
    for direction in ((1, 0, 0), (0, 1, 0), (-0.6, 0.0, 0.8), (0.48, -0.64, -0.6)):
        x, y, z, w = bearing_quaternion(np.array(direction, float))
        up = np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
        left = np.array([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)])
        assert left[2] == pytest.approx(0, abs=1e-9)
        assert up[2] >= -1e-9


def test_a_pose_is_where_the_object_is_on_the_robot(make_rig, panorama):
    """base_link to the camera: (0.2, 0, 1.5), turned by 90 degrees."""
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    rig = make_rig(pose_object=1, target_frame="base_link").up()
    _fixed(rig, _transform("base_link", "camera_link", yaw=math.pi / 2, at=(0.2, 0.0, 1.5)))
    poses, arrows = [], []
    rig.peer.create_subscription(PoseStamped, "pose", poses.append, 10)
    rig.peer.create_subscription(MarkerArray, "markers", arrows.append, 10)
    clouds = rig.peer.create_publisher(PointCloud2, "points", 10)
    rig.until(clouds.get_subscription_count)
    rig.until(lambda: rig.sap.count_subscribers("markers"))
    y, z = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60))
    wall = np.stack([np.full(y.shape, 4.0), y, z], -1).reshape(-1, 3).astype(np.float32)
    clouds.publish(point_cloud2.create_cloud_xyz32(rig.message(panorama, stamp=1).header, wall))
    rig.spin(0.3)
    rig.publish(panorama, stamp=1)
    _add(rig, _mask_prompt(rig, 256, 128))
    rig.until(lambda: poses and arrows)
    at = poses[0].pose.position
    np.testing.assert_allclose([at.x, at.y, at.z], [0.2, 4.0, 1.5], atol=0.15)
    tail, tip = arrows[-1].markers[1].points
    np.testing.assert_allclose([tail.x, tail.y, tail.z], [0.2, 0.0, 1.5], atol=1e-6)
    np.testing.assert_allclose([tip.x, tip.y, tip.z], [at.x, at.y, at.z], atol=1e-5)


def test_frames_are_broadcast_while_only_tf_is_listened_to(make_rig, panorama):
    rig = make_rig(broadcast_tf=True)
    for subscription in list(rig.peer.subscriptions):  # nobody wants masks or objects
        rig.peer.destroy_subscription(subscription)
    rig.up(listeners=0)
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, rig.peer)
    rig.publish(panorama, stamp=1)
    _add(rig, _mask_prompt(rig, 150, 90))
    rig.until(lambda: buffer.can_transform("camera_link", "sap/object_1", rclpy.time.Time()))
    del listener


def test_transforms_are_known_again_after_a_simulated_clock_has_jumped_back(make_rig, panorama):
    """A bag that is played in a loop."""
    from rosgraph_msgs.msg import Clock

    rig = make_rig(use_sim_time=True, target_frame="odom", tf_timeout=0.1)
    clock = rig.peer.create_publisher(Clock, "/clock", 10)
    rig.up()
    broadcaster = tf2_ros.TransformBroadcaster(rig.peer)

    def play(seconds, yaw):
        now = Clock()
        now.clock.sec = seconds

        def is_now():
            clock.publish(now)
            return rig.sap.get_clock().now().nanoseconds == seconds * 10**9

        rig.until(is_now)
        broadcaster.sendTransform(_transform("odom", "camera_link", yaw, seconds=seconds))
        rig.spin(0.2)
        rig.publish(panorama, stamp=seconds)
        rig.spin(0.2)
        _add(rig, _mask_prompt(rig, 256, 128, object_id=seconds % 255))
        rig.until(lambda: found(seconds))
        return found(seconds)[0]

    def found(seconds):
        told = rig.objects[-1] if rig.objects else None
        if told is None or told.header.stamp.sec != seconds:
            return []
        return [o for o in told.objects if o.id == seconds % 255 and o.state != Object.PENDING]

    for seconds in (1000, 1001):
        play(seconds, 0.0)
    again = play(900, math.pi / 2)  # what TF has kept is from the time after
    assert again.state == Object.TRACKED
    assert again.azimuth == pytest.approx(math.pi / 2, abs=0.1)


def test_without_the_transform_a_reset_is_told_too(make_rig, panorama):
    rig = make_rig(target_frame="odom", tf_timeout=0.1).up()
    rig.publish(panorama, stamp=2)
    _add(rig, _mask_prompt(rig, 256, 128))
    assert _objects(rig).objects
    remove = rig.peer.create_publisher(UInt16, "remove", 10)
    rig.until(remove.get_subscription_count)
    remove.publish(UInt16(data=0))
    rig.until(lambda: not rig.objects[-1].objects)


def test_the_robots_rotation_is_taken_off_the_angular_velocity(make_rig):
    """The traced drive, whose robot turns by up to 11 degrees a second; its odometry is in TF."""
    scene, size = MovingScene(2), (512, 256)
    rig = make_rig(strategy="auto", fixed_frame="odom").up()
    broadcaster = tf2_ros.TransformBroadcaster(rig.peer)
    prompts = rig.peer.create_publisher(Prompt, "prompt", 10)
    rig.until(prompts.get_subscription_count)
    world = {}  # directions of the objects by time, in axes that do not turn
    for step in range(4):
        time = 1.0 + 0.1 * step  # when it turns fastest
        picture, labels = scene.render(time, size)
        _, heading = scene.pose(time)
        moved = _transform("odom", "camera_link", yaw=heading)
        stamp = Time(sec=1, nanosec=step * 10**8)
        moved.header.stamp = stamp
        broadcaster.sendTransform(moved)
        rig.spin(0.2)
        image = rig.message(picture)
        image.header.stamp = stamp
        rig.images.publish(image)
        turn = Rotation.from_euler("z", heading)
        for i in np.unique(labels[labels > 0]):
            world[step, int(i)] = turn.apply(measure(labels == i, int(i), 1.0).direction)
        if step == 0:
            wanted = [int(i) for i in np.unique(labels) if i and (labels == i).sum() > 400]
            for object_id in wanted:
                mask = np.where(labels == object_id, 255, 0).astype(np.uint8)
                prompts.publish(
                    Prompt(mask=rig.message(mask, encoding="mono8"), object_id=object_id)
                )
            count = len(wanted)
            rig.until(lambda n=count: rig.objects and len(rig.objects[-1].objects) == n)
        rig.until(lambda at=stamp: rig.objects and rig.objects[-1].header.stamp == at)
    assert len(wanted) >= 3
    checked = 0
    for found in rig.objects[-1].objects:
        if found.state != Object.TRACKED:
            continue
        moved = rotation_between(world[0, found.id], world[3, found.id])
        expected = turn.inv().apply(moved.as_rotvec() / 0.3)
        velocity = [getattr(found.angular_velocity, axis) for axis in "xyz"]
        # 0.08 rad/s are a shift of the centroid by two pixels; the robot turns by up to 0.19 rad/s.
        np.testing.assert_allclose(velocity, expected, atol=0.08)
        checked += 1
    assert checked >= 3
