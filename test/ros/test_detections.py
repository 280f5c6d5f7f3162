"""Detections, depths and ranges over DDS, against the truth of the traced drive; skipped by name without ROS."""

import math
from dataclasses import replace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from builtin_interfaces.msg import Time
from sap_ros.msg import Object, Prompt
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from sap_ros.core.instances import measure
from sap_ros.node.detections import pixel_box
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


@pytest.fixture(scope="module")
def scene():
    return MovingScene(0)


def truth_prompt(rig, labels, object_id, **fields):
    mask = np.where(labels == object_id, 255, 0).astype(np.uint8)
    return Prompt(mask=rig.message(mask, encoding="mono8"), object_id=object_id, **fields)


def start(rig, scene, ids, time=1.0, **fields):
    """Publishes an image of the drive, and the true masks of some of its objects."""
    picture, labels = scene.render(time, SIZE)
    prompts = rig.peer.create_publisher(Prompt, "prompt", 10)
    rig.until(prompts.get_subscription_count)
    rig.publish(picture, stamp=1)
    for object_id in ids:
        prompts.publish(truth_prompt(rig, labels, object_id, **fields))
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == len(ids))
    return labels


def seen(labels, least=60):
    return [int(i) for i in np.unique(labels[labels > 0]) if (labels == i).sum() > least]


def depth_message(distance, seconds=1):
    header = Header(stamp=Time(sec=seconds), frame_id="camera_link")
    height, width = distance.shape
    message = Image(header=header, height=height, width=width, encoding="32FC1", step=4 * width)
    message.data.frombytes(distance.astype("<f4").tobytes())
    return message


def test_a_depth_panorama_gives_the_true_ranges(make_rig, scene):
    rig = make_rig().up()
    depths = rig.peer.create_publisher(Image, "depth", 1)
    rig.until(depths.get_subscription_count)
    distance = scene.depth(1.0, SIZE)
    depths.publish(depth_message(distance))
    rig.spin(0.3)
    labels = scene.render(1.0, SIZE)[1]
    wanted = seen(labels)[:3]
    start(rig, scene, wanted)
    for found in rig.objects[-1].objects:
        true = np.median(distance[labels == found.id])
        assert found.range == pytest.approx(true, rel=0.03)
        assert found.range_source == Object.DEPTH
        at = np.array([found.position.x, found.position.y, found.position.z])
        assert np.linalg.norm(at) == pytest.approx(found.range, rel=1e-4)


def test_a_depth_panorama_of_another_size_is_one_line_and_the_masks_go_on(make_rig, scene, capfd):
    rig = make_rig().up()
    depths = rig.peer.create_publisher(Image, "depth", 1)
    rig.until(depths.get_subscription_count)
    depths.publish(depth_message(np.ones((8, 16))))
    rig.spin(0.3)
    start(rig, scene, [seen(scene.render(1.0, SIZE)[1])[0]])
    (found,) = rig.objects[-1].objects
    assert (found.state, found.range_source) == (Object.TRACKED, Object.NONE)
    assert math.isnan(found.range)
    assert capfd.readouterr().err.count("16x8; it must have the image's size, 512x256") == 1


def test_the_ground_gives_ranges_and_a_cloud_with_a_mask_of_its_points(make_rig):
    """The pair that Nav2's semantic segmentation layer takes: a point for each pixel of the mask."""
    floor = -1.9
    scene = MovingScene(0)
    scene.solids = tuple(  # on the floor, and standing still
        replace(s, home=np.array([*s.home[:2], floor + s.half[2]]), swing=np.zeros(3))
        for s in scene.solids
    )
    eye, _ = scene.pose(1.0)
    rig = make_rig(camera_height=float(eye[2] - floor), max_range_stddev=2.0).up()
    clouds, masks = [], []
    rig.peer.create_subscription(PointCloud2, "object_points", clouds.append, 1)
    rig.peer.create_subscription(Image, "object_points/mask", masks.append, 1)
    rig.until(lambda: rig.sap.count_subscribers("object_points/mask") == 1)
    distance, labels = scene.depth(1.0, SIZE), scene.render(1.0, SIZE)[1]
    on_floor = [i for i in seen(labels) if scene.solids[i - 1].kind == "box"]
    assert len(on_floor) >= 2
    start(rig, scene, on_floor)
    rig.until(lambda: masks and clouds and set(masks[-1].data) == set(on_floor))
    rig.until(lambda: clouds[-1].header == masks[-1].header and clouds[-1].width == masks[-1].width)
    assert {o.range_source for o in rig.objects[-1].objects} == {Object.GROUND}
    for found in rig.objects[-1].objects:
        v, u = np.nonzero(labels == found.id)
        foot = v.argmax()
        depression = (v[foot] + 0.5) / SIZE[1] * math.pi - math.pi / 2
        level = distance[v[foot], u[foot]] * math.cos(depression)
        # The mask, as the model gives it back, is exact to a few pixels.
        assert found.range * math.cos(found.elevation) == pytest.approx(
            level, abs=4 * found.range_stddev
        )
    cloud, mask = clouds[-1], masks[-1]
    assert cloud.header == mask.header == rig.masks[-1].header
    assert (mask.height, mask.width, mask.encoding) == (1, cloud.width, "mono8")
    rows = np.frombuffer(cloud.data, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("id", "<u2")])
    np.testing.assert_array_equal(rows["id"], np.frombuffer(mask.data, np.uint8))
    assert set(rows["id"]) == set(on_floor)


def test_objects_become_boxes_on_the_panorama(make_rig, scene):
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    rig = make_rig().up()
    boxes = []
    rig.peer.create_subscription(vision_msgs.Detection2DArray, "detections", boxes.append, 10)
    rig.until(lambda: rig.sap.count_subscribers("detections") == 1)
    wanted = seen(scene.render(1.0, SIZE)[1])[:3]
    labels = start(rig, scene, wanted, label="thing")
    rig.until(lambda: boxes and len(boxes[-1].detections) == len(wanted))
    message = boxes[-1]
    assert (message.header.stamp.sec, message.header.frame_id) == (1, "camera_link")
    for found in message.detections:
        instance = measure(labels == int(found.id), int(found.id), 1.0)
        left, top, width, height = pixel_box(instance, SIZE)
        centre = found.bbox.center.position
        assert (centre.x, centre.y) == pytest.approx((left + width / 2, top + height / 2), abs=3.1)
        assert (found.bbox.size_x, found.bbox.size_y) == pytest.approx((width, height), abs=3.1)
        (result,) = found.results
        assert result.hypothesis.class_id == "thing"
        assert result.hypothesis.score > 0


def test_a_box_across_the_seam_extends_past_the_border():
    mask = np.zeros((256, 512), bool)
    mask[100:120, 500:] = mask[100:120, :20] = True
    assert pixel_box(measure(mask, 1, 1.0), SIZE) == pytest.approx((500, 100, 32, 20))
    mask = np.zeros((256, 512), bool)
    mask[100:120, 0:20] = True
    assert pixel_box(measure(mask, 1, 1.0), SIZE) == pytest.approx((0, 100, 20, 20))


def test_objects_with_a_range_become_boxes_in_space(make_rig, scene):
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    rig = make_rig().up()
    boxes = []
    rig.peer.create_subscription(vision_msgs.Detection3DArray, "detections_3d", boxes.append, 10)
    depths = rig.peer.create_publisher(Image, "depth", 1)
    rig.until(lambda: rig.sap.count_subscribers("detections_3d") == 1)
    rig.until(depths.get_subscription_count)
    distance = scene.depth(1.0, SIZE)
    depths.publish(depth_message(distance))
    rig.spin(0.3)
    wanted = seen(scene.render(1.0, SIZE)[1])[:3]
    start(rig, scene, wanted)
    rig.until(lambda: boxes and len(boxes[-1].detections) == len(wanted))
    eye, heading = scene.pose(1.0)
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    for found in boxes[-1].detections:
        solid = scene.solids[int(found.id) - 1]
        true = solid.centre(1.0) - eye
        true[:2] = turn @ true[:2]
        at = found.bbox.center.position
        # The box is on the object's front, which is nearer than its centre by up to its half extent.
        assert np.linalg.norm(np.array([at.x, at.y, at.z]) - true) < 1.5 * solid.half.max()
        assert found.bbox.size.x == 0
        assert 0.5 * solid.half.min() < found.bbox.size.z < 3 * solid.half.max()
        covariance = np.array(found.results[0].pose.covariance).reshape(6, 6)
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        assert (np.linalg.eigvalsh(covariance) > -1e-12).all()


def detections(vision_msgs, header, *boxes):
    message = vision_msgs.Detection2DArray(header=header)
    for x, y, w, h, label, score in boxes:
        detection = vision_msgs.Detection2D()
        detection.bbox.center.position.x, detection.bbox.center.position.y = float(x), float(y)
        detection.bbox.size_x, detection.bbox.size_y = float(w), float(h)
        result = vision_msgs.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = label, score
        detection.results = [result]
        message.detections.append(detection)
    return message


@pytest.fixture
def send(make_rig):
    """A node that has got its first image, and a function that sends detections of it."""
    vision_msgs = pytest.importorskip("vision_msgs.msg")

    def make(picture, **parameters):
        rig = make_rig(**parameters).up()
        publisher = rig.peer.create_publisher(vision_msgs.Detection2DArray, "prompt/detections", 1)
        rig.until(publisher.get_subscription_count)
        rig.publish(picture, stamp=1)
        rig.spin(0.3)

        def give(*boxes, frame="camera_link", seconds=1):
            header = Header(stamp=Time(sec=seconds), frame_id=frame)
            publisher.publish(detections(vision_msgs, header, *boxes))

        return rig, give

    return make


def test_a_detectors_boxes_start_objects_by_name(send, spots):
    rig, give = send(spots[0], detection_classes="disk, ball")
    give(
        (256, 128, 44, 44, "ball", 0.9),
        (128, 128, 44, 44, "disk", 0.8),
        (384, 128, 44, 44, "cup", 0.9),
    )
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == 2)
    assert [o.label for o in rig.objects[-1].objects] == ["ball", "disk"]
    labels = np.frombuffer(rig.masks[-1].data, np.uint8).reshape(256, 512)
    for number in (1, 2):
        both, either = (
            (labels == number) & (spots[1] == number),
            (labels == number) | (spots[1] == number),
        )
        assert both.sum() > 0.8 * either.sum()


def test_boxes_of_another_camera_need_its_calibration(send, spots, capfd):
    """A camera beside the panoramic one, with a frame of its own at the same place and axes."""
    rig, give = send(spots[0], image_frame_convention="optical")
    give((320, 240, 120, 120, "ball", 0.9), frame="front")
    rig.until(lambda: rig.objects and rig.objects[-1].objects)
    (refused,) = rig.objects[-1].objects
    assert refused.state == Object.REJECTED
    assert "CameraInfo was not received on prompt/camera_info" in refused.reason
    infos = rig.peer.create_publisher(CameraInfo, "prompt/camera_info", 1)
    rig.until(infos.get_subscription_count)
    wrong = CameraInfo(header=Header(frame_id="front"), width=640, height=480)
    infos.publish(wrong)
    rig.spin(0.3)
    assert "focal lengths 0 and 0" in capfd.readouterr().err
    wrong.k = [240.0, 0.0, 320.0, 0.0, 240.0, 240.0, 0.0, 0.0, 1.0]
    wrong.distortion_model = "plumb_bob"
    infos.publish(wrong)
    rig.spin(0.3)
    give((320, 240, 120, 120, "ball", 0.9), frame="front")
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        rig.until(lambda: any("needs tf2_ros" in o.reason for m in rig.objects for o in m.objects))
    else:
        rig.until(lambda: any("no transform" in o.reason for m in rig.objects for o in m.objects))


def test_bad_boxes_are_one_line_and_the_good_one_is_used(send, spots):
    rig, give = send(spots[0])
    give(
        (math.nan, 1, 5, 5, "disk", 0.9),
        (256, 900, 40, 40, "disk", 0.9),
        (256, 128, 0, 0, "disk", 0.9),
        (256, 128, 44, 44, "disk", 0.9),
    )
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == 2)
    refused, found = rig.objects[-1].objects
    assert (refused.id, refused.state) == (0, Object.REJECTED)
    assert refused.reason.startswith("3 of 4 detections cannot be used; the first: ")
    assert (found.id, found.state, found.label) == (1, Object.TRACKED, "disk")


def test_too_many_classes_are_refused(make_rig):
    rig = make_rig(detection_classes=",".join(map(str, range(10000))))
    assert rig.sap.trigger_configure().name == "FAILURE"
