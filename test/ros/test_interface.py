"""The rest of the interface: prompts of every kind, services, parameters, diagnostics, pictures."""

import importlib.util
import math
import re
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, Vector3Stamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sap_ros.msg import Object, Prompt
from sap_ros.srv import AddObject, RemoveObject
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from sap_ros.core import sphere
from sap_ros.engine.engine import Engine
from sap_ros.node.camera_input import LENS_TOPICS
from sap_ros.node.parameters import PARAMETERS, table

README = Path(__file__).parents[2] / "README.md"


def _call(rig, kind, name, **fields):
    client = rig.peer.create_client(kind, name)
    rig.until(client.service_is_ready)
    answer = client.call_async(kind.Request(**fields))
    rig.until(answer.done)
    return answer.result()


def _point(u, v, **fields):
    return Prompt(points=[Point(x=float(u), y=float(v))], **fields)


def _stamped(prompt, stamp):
    prompt.header.stamp.sec = stamp
    return prompt


def _labels(masks):
    return np.frombuffer(masks.data, np.uint8).reshape(masks.height, masks.width)


def test_objects_are_added_and_removed_by_services(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    added = _call(rig, AddObject, "add_object", prompt=_point(300, 120, label="door"))
    assert (added.success, added.object_id) == (True, 1)
    added = _call(rig, AddObject, "add_object", prompt=_point(100, 50, object_id=9))
    assert (added.success, added.object_id) == (True, 9)
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == 2)
    assert [(o.id, o.label) for o in rig.objects[-1].objects] == [(1, "door"), (9, "")]
    removed = _call(rig, RemoveObject, "remove_object", object_id=5)
    assert not removed.success
    assert "there are [1, 9]" in removed.message
    assert _call(rig, RemoveObject, "remove_object", object_id=1).success
    rig.publish(panorama, stamp=2)
    assert [o.id for o in rig.answer(2)[1].objects] == [9]


def test_reset_forgets_all_and_ids_begin_anew(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    assert _call(rig, Trigger, "reset").success
    rig.until(lambda: not rig.objects[-1].objects)  # nobody is left with what is gone
    rig.until(lambda: not np.frombuffer(rig.masks[-1].data, np.uint8).any())
    rig.publish(panorama, stamp=2)
    rig.spin(0.3)
    assert all(m.header.stamp.sec != 2 for m in rig.masks)
    rig.click(100, 100)
    assert [o.id for o in rig.answer(2)[1].objects] == [1]


def test_disabled_it_ignores_images(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    _call(rig, SetBool, "enable", data=False)
    rig.publish(panorama, stamp=2)
    rig.spin(0.5)
    assert all(m.header.stamp.sec != 2 for m in rig.masks)
    _call(rig, SetBool, "enable", data=True)
    rig.publish(panorama, stamp=3)
    rig.answer(3)


def test_a_box_and_a_mask_as_prompts(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    box = Prompt(object_id=2, box=[Point(x=500.0, y=100.0), Point(x=40.0, y=160.0)])
    assert _call(rig, AddObject, "add_object", prompt=box).success
    pixels = np.zeros((256, 512), np.uint8)
    pixels[100:160, 200:280] = 255
    mask = Prompt(object_id=3, mask=rig.message(pixels, encoding="mono8"))
    assert _call(rig, AddObject, "add_object", prompt=mask).success
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == 2)
    labels = _labels(rig.masks[-1])
    assert ((labels == 3) & (pixels > 0)).sum() > 0.8 * (pixels > 0).sum()


def test_a_gaze_is_a_direction_in_the_images_frame(make_rig, panorama):
    rig = make_rig().up()
    gaze = rig.peer.create_publisher(Vector3Stamped, "prompt/gaze", 10)
    rig.until(gaze.get_subscription_count)
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    by_click = _labels(rig.masks[-1]) == 1
    assert _call(rig, Trigger, "reset").success
    message = Vector3Stamped()
    message.header.frame_id = "camera_link"
    x, y, z = sphere.pixel_to_direction((300, 120), (512, 256)) * 3
    message.vector.x, message.vector.y, message.vector.z = float(x), float(y), float(z)
    rig.publish(panorama, stamp=2)
    gaze.publish(message)
    masks, _ = rig.answer(2)
    np.testing.assert_array_equal(_labels(masks) == 1, by_click)


def test_a_stream_of_gazes_makes_an_object_where_it_rests(make_rig):
    places = [(300, 120), (100, 110), (430, 140)]
    picture = np.full((256, 512, 3), 200, np.uint8)
    for (u, v), shade in zip(places, [(200, 30, 30), (30, 140, 30), (30, 30, 200)], strict=True):
        cv2.circle(picture, (u, v), 22, shade, -1)
    rig = make_rig().up()
    gaze = rig.peer.create_publisher(Vector3Stamped, "prompt/gaze", 10)
    rig.until(gaze.get_subscription_count)
    rig.publish(picture, stamp=1)

    def look(u, v):
        x, y, z = sphere.pixel_to_direction((u + 0.5, v + 0.5), (512, 256))
        message = Vector3Stamped()
        message.vector.x, message.vector.y, message.vector.z = float(x), float(y), float(z)
        for _ in range(8):
            gaze.publish(message)
            rig.spin(0.02)

    look(*places[0])
    rig.answer(1)
    look(*places[1])
    rig.until(lambda: len(rig.objects[-1].objects) == 2)
    rig.publish(picture, stamp=2)
    assert [o.id for o in rig.answer(2)[1].objects] == [1, 2]
    rig.click(*places[2])
    rig.until(lambda: len(rig.objects[-1].objects) == 3)
    assert rig.objects[-1].objects[-1].id == 3  # gazes that add none use up no id


def test_a_click_of_rqt_image_view_is_a_pixel(make_rig, panorama):
    rig = make_rig().up()
    pixel = rig.peer.create_publisher(Point, "prompt/pixel", 10)
    rig.until(pixel.get_subscription_count)
    rig.publish(panorama, stamp=1)
    pixel.publish(Point(x=300.0, y=120.0))
    masks, _ = rig.answer(1)
    by_pixel = _labels(masks) == 1
    assert _call(rig, Trigger, "reset").success
    rig.publish(panorama, stamp=2)
    rig.click(300, 120)
    np.testing.assert_array_equal(_labels(rig.answer(2)[0]) == 1, by_pixel)


def test_the_canvas_shows_the_panorama_flat_and_can_be_clicked(make_rig, panorama):
    rig = make_rig().up()
    seen = []
    rig.peer.create_subscription(PointCloud2, "canvas", seen.append, 1)
    position = rig.peer.create_publisher(PointStamped, "prompt/position", 10)
    rig.until(position.get_subscription_count)
    rig.publish(panorama, stamp=1)
    rig.until(lambda: seen)  # before there is any object
    cloud = seen[-1]
    points = np.frombuffer(cloud.data, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "u1", 4)])
    shown = points["rgb"].reshape(400, 800, 4)[..., 2::-1]
    plain = cv2.resize(panorama, (800, 400), interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - plain).mean() < 3
    nearest = points[np.argmin(np.abs(points["x"] - 5.86) + np.abs(points["y"] + 2.34))]
    message = PointStamped()
    message.header.frame_id = cloud.header.frame_id
    message.point.x, message.point.y = float(nearest["x"]), float(nearest["y"])
    position.publish(message)
    masks, _ = rig.answer(1)
    by_canvas = _labels(masks) == 1
    assert _call(rig, Trigger, "reset").success
    rig.publish(panorama, stamp=2)
    rig.click(float(nearest["x"]) * 51.2, -float(nearest["y"]) * 51.2)
    np.testing.assert_array_equal(_labels(rig.answer(2)[0]) == 1, by_canvas)


def test_a_position_is_pointed_at_from_the_camera(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    position = rig.peer.create_publisher(PointStamped, "prompt/position", 10)
    rig.until(position.get_subscription_count)
    message = PointStamped()
    message.header.frame_id = "camera_link"
    x, y, z = sphere.pixel_to_direction((300, 120), (512, 256)) * 4
    message.point.x, message.point.y, message.point.z = float(x), float(y), float(z)
    position.publish(message)
    masks, _ = rig.answer(1)
    by_position = _labels(masks) == 1
    assert _call(rig, Trigger, "reset").success
    rig.publish(panorama, stamp=2)
    rig.click(300, 120)
    np.testing.assert_array_equal(_labels(rig.answer(2)[0]) == 1, by_position)


def test_a_driver_whose_quality_of_service_does_not_fit_is_said(make_rig, panorama):
    """Nobody is to look for hours why nothing comes: the log names the topic."""
    name = "qos_overrides./sap/image.subscription.reliability"
    rig = make_rig(**{name: "reliable"})
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    rig.images = rig.peer.create_publisher(Image, "image", offered)
    said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", said.append, 10)
    assert rig.sap.trigger_configure().name == "SUCCESS"
    assert rig.sap.trigger_activate().name == "SUCCESS"
    rig.until(
        lambda: any("/sap/image" in m.status[0].message and "quality" in m.status[0].message
                    for m in said)
    )  # fmt: skip


def test_a_gaze_in_another_frame_is_rejected_by_name_without_tf(make_rig, panorama):
    if importlib.util.find_spec("tf2_ros"):
        pytest.skip("tf2_ros is installed")
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    prompt = Prompt(space=Prompt.DIRECTIONS, points=[Point(x=1.0)])
    prompt.header.frame_id = "head"
    answer = _call(rig, AddObject, "add_object", prompt=prompt)
    assert not answer.success
    assert "'head'" in answer.message
    assert "tf2_ros" in answer.message


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (Prompt(), "no positive point"),
        (_point(math.nan, 5), "not finite"),
        (_point(900, 5), "lies outside"),
        (Prompt(points=[Point(x=5.0, y=5.0)] * 10_000), "10000 points"),
        (Prompt(points=[Point(x=5.0, y=5.0)], labels=[1, 0]), "1 points and 2 labels"),
        (Prompt(points=[Point(x=5.0, y=5.0)], labels=[7]), "label is 7"),
        (Prompt(box=[Point(x=5.0, y=5.0)]), "1 corners"),
        (_point(5, 5, space=9), "space is 9"),
        (_point(5, 5, object_id=255), "255"),
        (_point(5, 5, object_id=300), "300 does not fit"),
        (Prompt(space=Prompt.DIRECTIONS, points=[Point()]), "no length"),
        (Prompt(mask=Image(width=8, height=8)), "encoding is ''"),
    ],
)
def test_a_bad_prompt_is_rejected_and_the_next_good_one_answered(make_rig, panorama, prompt, named):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    answer = _call(rig, AddObject, "add_object", prompt=prompt)
    assert not answer.success
    assert named in answer.message
    rig.until(lambda: rig.objects)
    (told,) = rig.objects[-1].objects
    assert told.state == Object.REJECTED
    assert named in told.reason
    rig.click(300, 120)
    rig.until(lambda: [o.id for o in rig.objects[-1].objects] == [1])


def test_a_point_off_an_object_corrects_one_that_is_there(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    off = _point(300, 30, object_id=4, labels=[0])
    answer = _call(rig, AddObject, "add_object", prompt=off)
    assert not answer.success
    assert "object 4 has no positive point" in answer.message
    assert _call(rig, AddObject, "add_object", prompt=_point(100, 100, object_id=4)).success
    rig.answer(1)
    rig.publish(panorama, stamp=2)
    rig.answer(2)
    off.header.stamp.sec = 1  # seen on an earlier image, meant for what is there now
    assert _call(rig, AddObject, "add_object", prompt=off).success
    count = len(rig.objects)
    rig.until(lambda: len(rig.objects) > count)
    assert [o.id for o in rig.objects[-1].objects] == [4]


def test_there_are_never_more_than_max_objects(make_rig, panorama):
    rig = make_rig(max_objects=1).up()
    rig.publish(panorama, stamp=1)
    assert _call(rig, AddObject, "add_object", prompt=_point(300, 120)).success
    answer = _call(rig, AddObject, "add_object", prompt=_point(100, 120))
    assert "max_objects" in answer.message


def test_a_late_prompt_is_taken_on_its_own_image(make_rig, panorama):
    """It was clicked on image 1; by now the object is half a turn away, in image 2."""
    rig = make_rig(keep_images=5).up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    rig.publish(np.roll(panorama, 20, axis=1), stamp=2)
    rig.spin(0.2)
    rig.click(100, 100)  # the newest is being worked on
    rig.answer(2)
    assert _call(rig, AddObject, "add_object", prompt=_stamped(_point(300, 120), 1)).success
    rig.until(lambda: len(rig.objects[-1].objects) == 2)
    assert all(o.state != Object.REJECTED for o in rig.objects[-1].objects)


def test_a_prompt_on_an_image_that_is_gone_is_rejected(make_rig, panorama):
    rig = make_rig(keep_images=0).up()
    rig.publish(panorama, stamp=5)
    rig.click(100, 100)
    rig.answer(5)
    answer = _call(rig, AddObject, "add_object", prompt=_stamped(_point(300, 120), 1))
    assert not answer.success
    assert "no longer kept" in answer.message
    rig.until(lambda: len(rig.objects[-1].objects) == 2)
    assert {o.id: o.state for o in rig.objects[-1].objects}[0] == Object.REJECTED
    rig.publish(panorama, stamp=6)
    assert [o.id for o in rig.answer(6)[1].objects] == [1]


def test_of_a_burst_the_newest_wins_and_drops_are_counted(make_rig, monkeypatch, panorama):
    go, work = threading.Event(), Engine.work
    monkeypatch.setattr(Engine, "work", lambda engine, now: go.wait(60) and work(engine, now))
    rig = make_rig(strategy="scan").up()
    said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", said.append, 10)
    go.set()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)  # there is an object: from now on images are worked on
    go.clear()  # for as long as the burst lasts, however fast the machine is
    for stamp in range(2, 52):
        rig.publish(panorama, stamp=stamp)
        rig.spin(0.002)
    rig.until(lambda: said and int(_values(said[-1])["received"]) > 10)  # some are lost on the way
    go.set()
    rig.answer(51)
    stamps = [m.header.stamp.sec for m in rig.masks]
    assert stamps == sorted(set(stamps))
    assert len(stamps) <= 3  # the first, the one that was worked on when the burst came, the newest
    said.clear()  # a report that was made before the last image counts fewer
    rig.until(lambda: said and int(_values(said[-1])["dropped"]) > 0)
    values = _values(said[-1])
    assert int(values["dropped"]) + len(stamps) <= int(values["received"])


def _values(message):
    return {v.key: v.value for v in message.status[0].values}


@pytest.mark.parametrize(
    ("ending", "name"), [(".jpg", "rgb8; jpeg compressed bgr8"), (".png", "png")]
)
def test_compressed_images(make_rig, panorama, ending, name):
    rig = make_rig(image_transport="compressed").up_compressed()
    _, data = cv2.imencode(ending, panorama[..., ::-1])
    message = CompressedImage(format=name, data=data.tobytes())
    message.header.stamp.sec = 3
    rig.compressed.publish(message)
    rig.click(300, 120)
    masks, _ = rig.answer(3)
    assert (masks.width, masks.height) == (512, 256)


def test_compressed_images_are_beside_the_topic_that_image_is_remapped_to(make_rig):
    rig = make_rig(image_transport="compressed", remap=["image:=/camera/image_raw"])
    assert rig.sap.trigger_configure().name == "SUCCESS"
    assert rig.sap.trigger_activate().name == "SUCCESS"
    rig.until(lambda: rig.peer.count_subscribers("/camera/image_raw/compressed") == 1)


@pytest.mark.skipif(
    importlib.util.find_spec("ffmpeg_image_transport_msgs") is not None,
    reason="ffmpeg_image_transport_msgs is installed",
)
def test_a_transport_without_its_package_is_refused_when_configured(make_rig):
    rig = make_rig(image_transport="ffmpeg")
    assert rig.sap.trigger_configure().name == "FAILURE"


def test_packets_of_ffmpeg_image_transport(make_rig, panorama):
    pytest.importorskip("av", reason="PyAV is not installed")
    messages = pytest.importorskip("ffmpeg_image_transport_msgs.msg")
    rig = make_rig(image_transport="ffmpeg")
    publisher = rig.peer.create_publisher(messages.FFMPEGPacket, "image/ffmpeg", 1)
    rig.up(publisher)
    from sap_ros.bench.video import encode

    (data,) = encode([panorama])
    message = messages.FFMPEGPacket(encoding="h264;yuv420p;bgr8;bgr8", data=data)
    message.header.stamp.sec = 3
    publisher.publish(message)
    rig.click(300, 120)
    rig.answer(3)


@pytest.mark.parametrize(
    ("name", "named"), [("h264", "is not h264"), ("jpeg", "cannot be decoded")]
)
def test_what_cannot_be_decoded_is_said(make_rig, panorama, name, named):
    if name == "h264":
        pytest.importorskip("av", reason="PyAV is not installed")
    rig = make_rig(image_transport="compressed").up_compressed()
    said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", said.append, 10)
    rig.click(300, 120)
    message = CompressedImage(format=name, data=b"no image")
    message.header.stamp.sec = 1
    rig.compressed.publish(message)
    rig.until(lambda: any(named in m.status[0].message for m in said))
    assert said[-1].status[0].level == DiagnosticStatus.WARN
    _, data = cv2.imencode(".png", panorama)
    message = CompressedImage(format="png", data=data.tobytes())
    message.header.stamp.sec = 2
    rig.compressed.publish(message)
    rig.answer(2)


def test_late_stamps_are_corrected_where_things_are_placed_in_space(make_rig, panorama):
    rig = make_rig(stamp_offset=2.0)
    markers = []
    rig.peer.create_subscription(MarkerArray, "markers", markers.append, 10)
    rig.up()
    rig.publish(panorama, stamp=5)
    rig.click(300, 120)
    masks, objects = rig.answer(5)
    assert masks.header.stamp.sec == objects.header.stamp.sec == 5
    rig.until(lambda: markers)
    assert {m.header.stamp.sec for m in markers[-1].markers} == {3}
    rig.sap.set_parameters([Parameter("stamp_offset", value=1.0)])
    rig.publish(panorama, stamp=6)
    rig.answer(6)
    rig.until(lambda: {m.header.stamp.sec for m in markers[-1].markers} == {5})


def test_an_optical_frame_has_its_z_axis_ahead(make_rig, panorama):
    rig = make_rig(image_frame_convention="optical", forward_column=0.75).up()
    rig.publish(panorama, stamp=1)
    pixels = np.zeros((256, 512), np.uint8)
    pixels[118:138, 374:394] = 255  # round the column at 0.75
    mask = Prompt(object_id=3, mask=rig.message(pixels, encoding="mono8"))
    assert _call(rig, AddObject, "add_object", prompt=mask).success
    rig.until(lambda: rig.objects)
    (thing,) = rig.objects[-1].objects
    d = thing.direction
    assert d.z == pytest.approx(1, abs=0.01)
    assert thing.azimuth == pytest.approx(math.atan2(d.y, d.x), abs=1e-5)
    assert thing.elevation == pytest.approx(math.asin(d.z), abs=1e-3)


def test_pictures_are_made_while_somebody_looks(make_rig, panorama):
    rig = make_rig(overlay_width=256).up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    raw, jpeg, arrows = [], [], []
    rig.peer.create_subscription(Image, "overlay", raw.append, 1)
    rig.peer.create_subscription(CompressedImage, "overlay/compressed", jpeg.append, 1)
    rig.peer.create_subscription(MarkerArray, "markers", arrows.append, 1)
    rig.until(lambda: rig.sap.count_subscribers("markers") == 1)
    rig.spin(0.3)
    rig.publish(panorama, stamp=2)
    rig.until(lambda: raw and jpeg and arrows)
    assert (raw[0].width, raw[0].height, raw[0].encoding) == (256, 128, "rgb8")
    assert cv2.imdecode(np.frombuffer(jpeg[0].data, np.uint8), 1).shape == (128, 256, 3)
    assert arrows[0].markers[0].action == Marker.DELETEALL


def test_the_static_mask_leaves_out_what_is_tracked(make_rig, panorama):
    rig = make_rig().up()
    static = []
    rig.peer.create_subscription(Image, "static_mask", static.append, 1)
    rig.until(lambda: rig.sap.count_subscribers("static_mask") == 1)
    rig.spin(0.3)
    rig.publish(panorama, stamp=1)
    rig.until(lambda: static)
    assert set(static.pop().data) == {255}  # no object yet
    rig.publish(panorama, stamp=2)
    rig.click(300, 120)
    masks, _ = rig.answer(2)
    rig.until(lambda: any(message.data.count(0) for message in static))
    assert static[-1].header == masks.header
    assert static[-1].encoding == "mono8"
    labels, mask = (np.frombuffer(message.data, np.uint8) for message in (masks, static[-1]))
    assert (labels > 0).any()
    assert (mask == np.where(labels == 0, 255, 0)).all()


def test_parameters_change_while_it_runs_where_they_may(make_rig, panorama):
    rig = make_rig().up()
    (changed,) = rig.sap.set_parameters([Parameter("max_objects", value=1)])
    assert changed.successful
    (refused,) = rig.sap.set_parameters([Parameter("model", value="sam2.1-tiny")])
    assert "deactivate" in refused.reason
    (refused,) = rig.sap.set_parameters([Parameter("margin", value=500.0)])
    assert not refused.successful
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    assert "max_objects" in _call(rig, AddObject, "add_object", prompt=_point(50, 50)).message


def test_the_latency_is_by_simulated_time(make_rig, panorama):
    from rosgraph_msgs.msg import Clock

    rig = make_rig(use_sim_time=True)
    clock = rig.peer.create_publisher(Clock, "/clock", 10)
    said = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", said.append, 10)
    rig.up()
    now = Clock()
    now.clock.sec = 1000
    rig.until(lambda: clock.publish(now) or rig.sap.get_clock().now().nanoseconds == 1000 * 10**9)
    rig.publish(panorama, stamp=998)
    rig.click(300, 120)
    rig.answer(998)
    rig.until(lambda: said and _values(said[-1])["latency_s"] == "2.000")
    assert said[-1].header.stamp.sec == 1000


def test_two_nodes_run_side_by_side(make_rig, panorama):
    front, back = make_rig(namespace="front").up(), make_rig(namespace="back").up()
    front.publish(panorama, stamp=1)
    front.click(300, 120)
    front.answer(1)
    back.spin(0.3)
    assert not back.masks
    back.publish(panorama, stamp=2)
    back.click(100, 60)
    back.answer(2)
    assert all(m.header.stamp.sec == 1 for m in front.masks)


@pytest.mark.parametrize("offered", list(ReliabilityPolicy)[1:3], ids=lambda policy: policy.name)
def test_drivers_and_listeners_of_any_reliability(make_rig, panorama, offered):
    rig = make_rig()
    rig.images = rig.peer.create_publisher(Image, "image", QoSProfile(depth=1, reliability=offered))
    heard = []
    wanted = QoSProfile(depth=1, reliability=offered)
    rig.peer.create_subscription(Image, "masks", heard.append, wanted)
    rig.up(listeners=2)
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.until(lambda: heard)


def test_images_are_taken_reliably_where_all_drivers_offer_that(make_rig, panorama):
    """Best effort is heard by all, and loses pieces of large images."""
    rig = make_rig().up()

    def taken():
        subscriptions = rig.peer.get_subscriptions_info_by_topic("/sap/image")
        return {s.qos_profile.reliability for s in subscriptions}

    rig.until(lambda: taken() == {ReliabilityPolicy.RELIABLE})
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = rig.peer.create_publisher(Image, "image", best_effort)
    rig.until(lambda: taken() == {ReliabilityPolicy.BEST_EFFORT})
    other.publish(rig.message(panorama, stamp=2))
    rig.answer(2)


def test_the_reliability_of_the_input_can_be_overridden(make_rig):
    name = "qos_overrides./sap/image.subscription.reliability"
    rig = make_rig(**{name: "reliable"}).up()
    (of_node,) = rig.peer.get_subscriptions_info_by_topic("/sap/image")
    assert of_node.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_lifecycle_transitions_in_every_order(make_rig, panorama):
    rig = make_rig()
    allowed = {
        "unconfigured": {"configure": "inactive"},
        "inactive": {"activate": "active", "cleanup": "unconfigured"},
        "active": {"deactivate": "inactive"},
    }
    rng, state = np.random.default_rng(0), "unconfigured"
    for _ in range(12):
        name = str(rng.choice(sorted(allowed[state])))
        assert getattr(rig.sap, f"trigger_{name}")().name == "SUCCESS"
        state = allowed[state][name]
    if state == "active":
        rig.sap.trigger_deactivate()
        state = "inactive"
    if state == "inactive":
        rig.sap.trigger_cleanup()
    rig.up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    assert rig.sap.trigger_shutdown().name == "SUCCESS"


def test_the_readmes_table_of_parameters_is_the_nodes():
    assert table() in README.read_text()


@pytest.mark.parametrize(
    "path", sorted(README.with_name("config").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_shipped_parameter_files_fit_the_node(make_rig, path):
    """Each is read as the node reads it; the parts of other nodes are not its own."""
    overrides = {}
    for names, content in yaml.safe_load(path.read_text()).items():
        if names in ("/**", "/**/sap"):
            overrides.update(content["ros__parameters"])
    rig = make_rig(**overrides)
    assert overrides
    assert set(overrides) <= {parameter.name for parameter in PARAMETERS}
    assert rig.sap.trigger_configure().name == "SUCCESS"


def test_the_readmes_topics_and_services_are_the_nodes(make_rig):
    rig = make_rig().up()
    text = README.read_text()
    told = {
        name if name.startswith("/") else f"/sap/{name}"
        for row in re.findall(r"^\| (?:in|out) (.*?) \|", text, re.M)
        for name in re.findall(r"`([^`]+)`", row)
    }

    def own():
        names = {name for name, _ in rig.peer.get_topic_names_and_types()}
        of_ros = {"/rosout", "/parameter_events", "/clock", "/tf", "/tf_static"}
        return names - of_ros - {"/sap/sap/transition_event"}

    of_vision_msgs = (
        "label_info",
        "detections",
        "detections_3d",
        "prompt/detections",
        "prompt/camera_info",
    )
    of_settings = ("image/compressed", "image/ffmpeg", *LENS_TOPICS)
    optional = {f"/sap/{name}" for name in (*of_settings, *of_vision_msgs)}
    rig.until(lambda: told - optional <= own(), 10)
    assert told - optional == own() - optional
    services = {name for name, _ in rig.peer.get_service_names_and_types()}
    for name in ("add_object", "remove_object", "reset", "enable"):
        assert f"/sap/{name}" in services
        assert f"| `{name}` |" in text


def test_ids_and_labels_are_latched(make_rig, panorama):
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    assert _call(rig, AddObject, "add_object", prompt=_point(300, 120, label="door")).success
    heard = []  # somebody who comes late
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.peer.create_subscription(vision_msgs.LabelInfo, "label_info", heard.append, latched)
    rig.until(lambda: heard)
    assert [(c.class_id, c.class_name) for c in heard[0].class_map] == [(1, "door")]


def test_a_service_that_waits_holds_up_neither_itself_nor_other_callbacks(make_rig, panorama):
    """Spun as the executable is: without a timeout, after which the executor would look again."""
    rig = make_rig()
    rig.executor.remove_node(rig.sap)
    executor = SingleThreadedExecutor()
    executor.add_node(rig.sap)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    try:
        assert rig.sap.trigger_configure().name == "SUCCESS"
        assert rig.sap.trigger_activate().name == "SUCCESS"
        client = rig.peer.create_client(AddObject, "add_object")
        rig.until(client.service_is_ready)
        answer = client.call_async(AddObject.Request(prompt=_point(300, 120)))
        rig.spin(1.0)  # there is no image, for which it waits
        assert not answer.done()
        rig.until(rig.images.get_subscription_count)
        rig.publish(panorama)
        rig.until(answer.done, 4.0)
        assert answer.result().success
    finally:
        executor.shutdown()
        spinning.join()
        rig.executor.add_node(rig.sap)


POLICY = README.with_name("config") / "sros2" / "sap_policy.xml"


def _policy_of(**arguments):
    spec = importlib.util.spec_from_file_location(
        "sros2_policy", README.with_name("scripts") / "sros2_policy.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.policy(README.read_text(), **arguments)


def test_the_shipped_sros2_policy_is_up_to_date():
    assert POLICY.read_text() == _policy_of(), "python scripts/sros2_policy.py"
    remapped = {
        "image": "/camera/image_raw",
        "image_front": "/front/image_raw",
        "imu/data": "/imu/data",
        "masks": "seen",
    }
    other = ET.fromstring(_policy_of(namespace="front", remapped=remapped))
    assert other.find(".//enclave").get("path") == "/front/sap"
    topics = {topic.text for topic in other.iter("topic")}
    assert {"/camera/image_raw", "/camera/image_raw/compressed", "object_points/mask"} <= topics
    assert {"/front/image_raw", "/front/image_raw/ffmpeg", "/imu/data", "seen"} <= topics
    assert not topics & {"image", "image/compressed", "image_front", "imu/data", "masks"}
    assert "image_back" in topics
    root = ET.fromstring(_policy_of(namespace="/"))
    assert root.find(".//enclave").get("path") == "/sap"
    assert root.find(".//profile").get("ns") == "/"
    with pytest.raises(ValueError, match="picture is not a topic"):
        _policy_of(remapped={"picture": "/image"})


def test_the_sros2_policy_allows_what_the_node_has(make_rig):
    rig = make_rig(broadcast_tf=True).up()
    profile = ET.parse(POLICY).find(".//profile")
    where = profile.get("node"), profile.get("ns")
    assert where == ("sap", "/sap")

    def allowed(kind, right):
        found = [
            name.text for group in profile.iter(f"{kind}s") if group.get(right) for name in group
        ]
        return {
            re.sub("^~", "/sap/sap", name) if name[0] in "~/" else f"/sap/{name}" for name in found
        }

    for names, kind, right in (
        (rig.peer.get_publisher_names_and_types_by_node, "topic", "publish"),
        (rig.peer.get_subscriber_names_and_types_by_node, "topic", "subscribe"),
        (rig.peer.get_service_names_and_types_by_node, "service", "reply"),
    ):
        rig.until(lambda names=names: names(*where), 10)
        own = {name for name, _ in names(*where)}
        assert len(own) > 5
        assert own <= allowed(kind, right)
