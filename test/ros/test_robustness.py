"""What must not stop the node, nor be passed over in silence."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point
from rclpy.parameter import Parameter
from sap_ros.msg import Object, Prompt
from sap_ros.srv import AddObject, RemoveObject
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import UInt16
from visualization_msgs.msg import Marker, MarkerArray

from sap_ros.node.parameters import misspelt_parameters

EXECUTABLE = Path(__file__).parents[2] / "scripts" / "sap_node"


def _call(rig, kind, name, **fields):
    client = rig.peer.create_client(kind, name)
    rig.until(client.service_is_ready)
    answer = client.call_async(kind.Request(**fields))
    rig.until(answer.done)
    return answer.result()


def _pixel(u, v, **fields):
    return Prompt(points=[Point(x=float(u), y=float(v))], **fields)


def _diagnostics(rig):
    said = []
    rig.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: said.append(message.status[0]), 10
    )
    return said


def _values(status):
    return {v.key: v.value for v in status.values}


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("max_objects:=0", "max_objects is 0; it must be int, 1 to 65534"),
        ("margin:=500.0", "margin is 500.0; it must be float, 0 to 90"),
        ("search:=many", "search is 'many'; it must be int"),
    ],
)
def test_a_parameter_that_cannot_be_ends_the_node_in_a_line(setting, named):
    run = subprocess.run(
        [sys.executable, str(EXECUTABLE), "--ros-args", "-p", setting],
        capture_output=True, text=True, timeout=120, env=os.environ,
    )  # fmt: skip
    assert run.returncode == 1
    assert named in run.stderr
    assert "Traceback" not in run.stderr


def test_a_misspelt_parameter_is_named_and_one_of_another_node_is_not(make_rig):
    rig = make_rig(stategy="scan", max_object=3, robot_radius=0.2, use_sim_time=False)
    assert misspelt_parameters(rig.sap) == [
        "there is no parameter max_object; did you mean max_objects?",
        "there is no parameter stategy; did you mean strategy?",
    ]


def test_a_whole_number_is_taken_for_a_float(make_rig):
    rig = make_rig(margin=10).up()
    (changed,) = rig.sap.set_parameters([Parameter("min_score", value=0)])
    assert changed.successful
    (refused,) = rig.sap.set_parameters([Parameter("margin", value=100)])
    assert "0 to 90" in refused.reason


def _png_header(width, height):
    """A PNG that declares a size, and holds next to no pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


@pytest.mark.parametrize("size", [(46000, 23000), (10000, 5000)])
def test_a_compressed_image_that_is_too_large_is_refused_before_it_is_decoded(make_rig, size):
    rig = make_rig(image_transport="compressed").up_compressed()
    said = _diagnostics(rig)
    message = CompressedImage(format="png", data=_png_header(*size))
    rig.until(
        lambda: rig.compressed.publish(message) or any("8192x4096" in s.message for s in said)
    )


def test_images_without_a_stamp_are_all_answered(make_rig, panorama):
    rig = make_rig().up()
    said = _diagnostics(rig)
    rig.publish(panorama, stamp=0)
    rig.click(300, 120)
    rig.until(lambda: rig.masks)
    for count in (2, 3):
        rig.publish(panorama, stamp=0)
        rig.until(lambda n=count: len(rig.masks) >= n)
    rig.until(lambda: any("no stamp" in s.message for s in said))


def test_a_camera_that_falls_silent_is_a_warning(make_rig, panorama):
    rig = make_rig(silence=0.5).up()
    said = _diagnostics(rig)
    rig.publish(panorama, stamp=1)
    rig.spin(1.5)
    assert said[-1].level == DiagnosticStatus.OK  # with no object, nobody waits for images
    rig.click(300, 120)
    rig.answer(1)
    rig.until(lambda: "no image for" in said[-1].message)
    assert said[-1].level == DiagnosticStatus.WARN
    assert said[-1].hardware_id == "/sap/image"
    assert float(_values(said[-1])["image_age_s"]) > 0.5
    assert said[-1].name == "sap/sap: segmentation"


def test_a_topic_on_which_nothing_comes_is_said(make_rig, panorama):
    rig = make_rig(silence=0.5).up()
    said = _diagnostics(rig)
    rig.until(lambda: said and "no image has come on /sap/image yet" in said[-1].message)
    assert said[-1].level == DiagnosticStatus.WARN
    rig.publish(panorama, stamp=1)
    rig.until(lambda: said[-1].level == DiagnosticStatus.OK)


def test_a_failure_of_the_node_itself_is_an_error(make_rig, panorama):
    rig = make_rig().up()
    said = _diagnostics(rig)
    rig.sap._fail(RuntimeError("the GPU is gone"))
    rig.until(lambda: any(s.level == DiagnosticStatus.ERROR for s in said))
    assert "the GPU is gone" in _values(said[-1])["last_error"]


def test_add_object_waits_for_an_image_and_gives_up(make_rig, monkeypatch, panorama):
    monkeypatch.setattr("sap_ros.node.sap_node._PATIENCE", 0.5)
    rig = make_rig().up()
    answer = _call(rig, AddObject, "add_object", prompt=_pixel(300, 120))
    assert not answer.success
    assert "no image" in answer.message
    rig.publish(panorama, stamp=1)
    rig.spin(0.5)
    assert not rig.objects  # the prompt has been withdrawn
    assert _call(rig, AddObject, "add_object", prompt=_pixel(300, 120)).success


def test_add_object_says_what_only_the_image_shows(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.2)
    answer = _call(rig, AddObject, "add_object", prompt=_pixel(300, 999))
    assert not answer.success
    assert "outside the panorama of 512x256" in answer.message


def test_objects_are_removed_by_a_topic_too(make_rig, panorama):
    rig = make_rig().up()
    remove = rig.peer.create_publisher(UInt16, "remove", 10)
    rig.until(remove.get_subscription_count)
    rig.publish(panorama, stamp=1)
    for k, (u, v) in enumerate([(300, 120), (100, 60)], 1):
        rig.click(u, v)
        rig.until(lambda n=k: rig.objects and len(rig.objects[-1].objects) == n)
    remove.publish(UInt16(data=1))
    rig.until(lambda: [o.id for o in rig.objects[-1].objects] == [2])
    remove.publish(UInt16(data=0))
    rig.until(lambda: not rig.objects[-1].objects)


def test_a_rejected_correction_is_told_with_its_object(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    prompts = rig.peer.create_publisher(Prompt, "prompt", 10)
    rig.until(prompts.get_subscription_count)
    prompts.publish(_pixel(300, 999, object_id=1))
    rig.until(lambda: rig.objects[-1].objects[0].reason)
    (told,) = rig.objects[-1].objects
    assert told.id == 1
    assert told.state != Object.REJECTED


def test_markers_go_when_the_node_is_deactivated(make_rig, panorama):
    rig = make_rig().up()
    arrows = []
    rig.peer.create_subscription(MarkerArray, "markers", arrows.append, 10)
    rig.until(lambda: rig.sap.count_subscribers("markers"))
    pixels = np.zeros((256, 512), np.uint8)
    pixels[100:160, 200:280] = 255
    rig.publish(panorama, stamp=1)
    mask = Prompt(mask=rig.message(pixels, encoding="mono8"))
    assert _call(rig, AddObject, "add_object", prompt=mask).success
    rig.until(lambda: arrows and len(arrows[-1].markers) == 3)
    rig.sap.trigger_deactivate()
    rig.until(lambda: len(arrows[-1].markers) == 1)
    assert arrows[-1].markers[0].action == Marker.DELETEALL


def test_an_error_leaves_a_node_that_can_be_configured_anew(make_rig, monkeypatch, panorama):
    rig = make_rig()
    assert rig.sap.trigger_configure().name == "SUCCESS"

    def fails(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("sap_ros.node.sap_node.Worker", fails)
    assert rig.sap.trigger_activate().name == "ERROR"
    monkeypatch.undo()
    rig.up()
    assert rig.peer.count_publishers("masks") == 1  # one set of publishers
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)


def test_any_exception_while_a_model_is_loaded_fails_activating(make_rig, monkeypatch):
    rig = make_rig()
    assert rig.sap.trigger_configure().name == "SUCCESS"

    def fails(*args, **kwargs):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("sap_ros.node.sap_node.load_model", fails)
    assert rig.sap.trigger_activate().name == "FAILURE"
    monkeypatch.undo()
    assert rig.sap.trigger_activate().name == "SUCCESS"


def test_an_unknown_id_is_not_removed(make_rig, panorama):
    rig = make_rig().up()
    answer = _call(rig, RemoveObject, "remove_object", object_id=9)
    assert not answer.success
    assert "no object has the id 9; there are []" in answer.message
