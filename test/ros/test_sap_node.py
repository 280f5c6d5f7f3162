"""The node over DDS: what goes in, what comes out, and what must not stop it."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray

from sap_ros.core import sphere
from sap_ros.core.instances import State, measure
from sap_ros.core.loading import load_model
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession

RIGHT = (384, 128)  # the pixel of the disk to the right


def _labels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def _iou(found, true):
    return (found & true).sum() / (found | true).sum()


def _by_the_core(image, click, strategy="direct"):
    session = PanoramaSession(load_model(), strategy)
    session.set_image(image)
    session.add_prompt(from_pixels(1, [click], (512, 256)))
    return session.segment().labels


def test_masks_and_objects_carry_the_images_header(make_rig, spots):
    image, true = spots
    rig = make_rig().up()
    rig.publish(image, stamp=7, frame="camera_frame")
    rig.click(*RIGHT)
    masks, objects = rig.answer(7)
    for message in (masks, objects):
        assert (message.header.stamp.sec, message.header.frame_id) == (7, "camera_frame")
    assert (masks.width, masks.height, masks.step, masks.encoding) == (512, 256, 512, "mono8")
    (thing,) = objects.objects
    assert (thing.id, thing.state) == (1, State.TRACKED)
    assert _iou(_labels(masks) == 1, true == 3) > 0.7
    measured = measure(_labels(masks) == 1, 1, 0.5)
    assert thing.solid_angle == pytest.approx(measured.solid_angle, rel=1e-5)
    direction = [thing.direction.x, thing.direction.y, thing.direction.z]
    np.testing.assert_allclose(direction, measured.direction, atol=1e-9)
    np.testing.assert_allclose(direction, [0, -1, 0], atol=0.05)  # to the right
    expected = sphere.angles_to_direction(thing.azimuth, thing.elevation)
    np.testing.assert_allclose(direction, expected, atol=1e-6)
    assert math.isnan(thing.range)


def test_the_node_and_the_core_give_the_same_masks(make_rig, spots):
    image, true = spots
    rig = make_rig(strategy="auto").up()
    rig.publish(image, stamp=1)
    rig.click(*RIGHT)
    labels = _labels(rig.answer(1)[0])
    np.testing.assert_array_equal(labels, _by_the_core(image, RIGHT, "auto"))
    assert _iou(labels == 1, true == 3) > 0.9


def test_a_click_before_any_image_waits_for_it(make_rig, panorama):
    rig = make_rig().up()
    rig.click(300, 120)
    rig.spin(0.3)
    assert not rig.objects
    rig.publish(panorama, stamp=2)
    assert len(rig.answer(2)[1].objects) == 1


def test_each_click_is_a_new_object_and_the_old_ones_stay(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    for i, at in enumerate([(100, 100), (300, 120), (400, 60)], 1):
        rig.click(*at)
        rig.until(lambda i=i: any(len(m.objects) == i for m in rig.objects))
    assert [thing.id for thing in rig.objects[-1].objects] == [1, 2, 3]


def test_without_an_object_nothing_is_published(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.spin(0.5)
    assert not rig.masks
    assert not rig.objects


def test_objects_are_found_again_in_the_next_image(make_rig, spots):
    rig, (image, true) = make_rig().up(), spots
    rig.publish(image, stamp=1)
    rig.click(*RIGHT)
    rig.answer(1)
    rig.publish(np.ascontiguousarray(np.roll(image, 3, axis=1)), stamp=2)
    masks, objects = rig.answer(2)
    assert [(thing.id, thing.state) for thing in objects.objects] == [(1, State.TRACKED)]
    assert _iou(_labels(masks) == 1, np.roll(true, 3, axis=1) == 3) > 0.6


def test_a_stamp_is_processed_once(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    count = len(rig.masks)
    for _ in range(3):
        rig.publish(panorama, stamp=1)
        rig.spin(0.2)
    assert len(rig.masks) == count


@pytest.mark.parametrize("encoding", ["rgb8", "BGR8", "rgba8", "bgra8", "mono8"])
def test_encodings(make_rig, spots, encoding):
    rig, (image, true) = make_rig().up(), spots
    pixels = {
        "rgb8": image,
        "BGR8": image[..., ::-1],
        "rgba8": np.dstack([image, image[..., :1]]),
        "bgra8": np.dstack([image[..., ::-1], image[..., :1]]),
        "mono8": image[..., 0],
    }[encoding]
    rig.publish(np.ascontiguousarray(pixels), stamp=1, encoding=encoding)
    rig.click(*RIGHT)
    seen = np.repeat(image[..., :1], 3, 2) if encoding == "mono8" else image
    labels = _labels(rig.answer(1)[0])
    np.testing.assert_array_equal(labels, _by_the_core(seen, RIGHT))
    assert _iou(labels == 1, true == 3) > 0.7
    if encoding != "mono8":  # channels in another order give another mask, if not by much
        swapped = np.ascontiguousarray(image[..., ::-1])
        assert (labels != _by_the_core(swapped, RIGHT)).any()


def test_rows_may_be_padded(make_rig, spots):
    rig, (image, _) = make_rig().up(), spots
    padded = np.zeros((256, 512 * 3 + 64), np.uint8)
    padded[:, : 512 * 3] = image.reshape(256, -1)
    message = rig.message(image, stamp=1)
    message.step, message.data = padded.shape[1], padded.tobytes()
    rig.images.publish(message)
    rig.click(*RIGHT)
    labels = _labels(rig.answer(1)[0])
    np.testing.assert_array_equal(labels, _by_the_core(image, RIGHT))
    assert labels.any()


def _spoil(message, what):
    if what == "encoding":
        message.encoding = "yuv422"
    elif what == "step":
        message.step = 5
    elif what == "truncated":
        message.data = message.data[:1000]
    elif what == "shape":
        message.width, message.height, message.step = 256, 512, 768
    elif what == "empty":
        message.width = message.height = message.step = 0
        message.data = b""
    return message


@pytest.mark.parametrize("what", ["encoding", "step", "truncated", "shape", "empty"])
def test_after_a_bad_image_the_next_good_one_is_answered(make_rig, panorama, what):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    rig.images.publish(_spoil(rig.message(panorama, stamp=2), what))
    rig.spin(0.3)
    assert all(m.header.stamp.sec != 2 for m in rig.masks)
    rig.publish(panorama, stamp=3)
    rig.answer(3)


@pytest.mark.parametrize("at", [(math.nan, 5), (math.inf, 5), (-1, 5), (900, 5), (5, 256.5)])
def test_a_bad_click_is_no_object(make_rig, panorama, at):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(*at)
    rig.until(lambda: rig.objects)
    (told,) = rig.objects[-1].objects
    assert (told.id, told.state) == (0, State.REJECTED)
    assert "finite" in told.reason or "outside" in told.reason
    rig.click(300, 120)
    rig.until(lambda: len(rig.objects) > 1)
    assert [thing.id for thing in rig.objects[-1].objects] == [1]


def test_sixteen_bit_masks(make_rig, panorama):
    rig = make_rig(mask_encoding="mono16").up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    masks, _ = rig.answer(1)
    assert (masks.encoding, masks.step, len(masks.data)) == ("mono16", 1024, 1024 * 256)


@pytest.mark.parametrize(
    "parameters", [{"model": "sam9"}, {"strategy": "spiral"}, {"mask_encoding": "32SC1"}]
)
def test_a_bad_parameter_fails_configuring(make_rig, parameters):
    assert make_rig(**parameters).sap.trigger_configure().name == "FAILURE"


def test_the_device_is_chosen_and_reported(make_rig):
    rig, reports = make_rig(), []
    assert rig.sap.get_parameter("device").value == "auto"
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    rig.up()
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    rig.until(
        lambda: (
            ("device", chosen) in {(v.key, v.value) for r in reports for v in r.status[0].values}
        )
    )


@pytest.mark.parametrize("parameters", [{"checkpoint": "/none.pt"}, {"device": "toaster"}])
def test_a_model_that_cannot_be_loaded_fails_activating(make_rig, parameters):
    rig = make_rig(**parameters)
    assert rig.sap.trigger_configure().name == "SUCCESS"
    assert rig.sap.trigger_activate().name == "FAILURE"


def test_down_and_up_again(make_rig, panorama):
    rig = make_rig().up()
    rig.publish(panorama, stamp=1)
    rig.click(300, 120)
    rig.answer(1)
    assert rig.sap.trigger_deactivate().name == "SUCCESS"
    assert rig.sap.trigger_cleanup().name == "SUCCESS"
    rig.up()
    rig.publish(panorama, stamp=1)
    rig.click(100, 100)
    rig.until(lambda: len(rig.objects) > 1)
    assert [thing.id for thing in rig.objects[-1].objects] == [1]  # it has forgotten


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(number):
    executable = Path(__file__).parents[2] / "scripts" / "sap_node"
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(executable)], stderr=subprocess.PIPE, text=True
    )
    assert "waiting to be configured" in process.stderr.readline()
    time.sleep(0.5)  # from the constructor's last line to spin
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "Traceback" not in error


def test_the_thread_for_signals_ends_before_the_node_is_destroyed():
    program = (
        "import rclpy, rclpy.signals\n"
        "from sap_ros.node import sap_node\n"
        "def interrupted(node): raise KeyboardInterrupt\n"
        "def destroyed(node): print(rclpy.signals.get_current_signal_handlers_options())\n"
        "rclpy.spin = interrupted\n"
        "sap_node.SapNode.destroy_node = destroyed\n"
        "sap_node.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "SignalHandlerOptions.NO", done.stderr
