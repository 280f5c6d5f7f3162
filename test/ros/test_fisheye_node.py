"""The node on dual-fisheye pictures over DDS: masks on the panorama, and pictures that cannot be used."""

import math
from dataclasses import replace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray
from sap_ros.msg import Object
from sensor_msgs.msg import CompressedImage, Image

from sap_ros.camera_files import read_camera, write_camera
from sap_ros.synthesis.fisheyes import fisheyes_of

STRATEGY = {"strategy": "auto"}


@pytest.fixture
def camera():
    return read_camera("insta360").of_picture((640, 320))


@pytest.fixture
def camera_file(tmp_path, camera):
    write_camera(tmp_path / "camera.yaml", replace(camera, panorama_width=512))
    return str(tmp_path / "camera.yaml")


def _up(make_rig, camera_file, **more):
    return make_rig(projection="dual_fisheye", camera_file=camera_file, **STRATEGY, **more)


def test_masks_and_bearings_are_on_the_panorama(make_rig, camera, camera_file, spots):
    panorama, labels = spots
    rig = _up(make_rig, camera_file)
    overlays = []
    rig.peer.create_subscription(Image, "overlay", overlays.append, 1)
    rig.up()
    rig.publish(fisheyes_of(panorama, camera), stamp=1)
    rig.click(256, 128)  # ahead
    rig.click(128, 128)  # to the left: on the border between the lenses
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == 2)
    mask, objects = rig.answer(1)
    assert (mask.width, mask.height) == (512, 256)
    found = np.frombuffer(mask.data, np.uint8).reshape(256, 512)
    for tracked, azimuth in zip(objects.objects, (0.0, math.pi / 2), strict=True):
        assert tracked.state == Object.TRACKED
        assert math.degrees(abs(tracked.azimuth - azimuth)) < 1
        assert math.degrees(abs(tracked.elevation)) < 1
        on, true = found == tracked.id, labels == tracked.id
        assert (on & true).sum() / (on | true).sum() > 0.9
    rig.until(lambda: overlays)
    assert (overlays[-1].width, overlays[-1].height) == (512, 256)


def test_pictures_as_packets_of_a_video(make_rig, camera, camera_file, spots):
    pytest.importorskip("av", reason="PyAV is not installed")
    from sap_ros.bench.video import encode

    panorama, labels = spots
    packets = encode([fisheyes_of(np.roll(panorama, k, 1), camera) for k in (2, 1, 0)])
    rig = _up(make_rig, camera_file, image_transport="compressed").up_compressed()
    for stamp, data in enumerate(packets, 1):
        message = CompressedImage(format="h264", data=data)
        message.header.stamp.sec, message.header.frame_id = stamp, "camera_frame"
        rig.compressed.publish(message)
        rig.spin(0.1)
    rig.click(256, 128)
    mask, objects = rig.answer(3)
    found = np.frombuffer(mask.data, np.uint8).reshape(256, 512) == 1
    true = labels == labels[128, 256]
    assert (found & true).sum() / (found | true).sum() > 0.9
    assert math.degrees(abs(objects.objects[0].azimuth)) < 1
    # In the middle of the stream the camera is set to another size, which its file is not for.
    said = []
    rig.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: said.append(m.status[0].message), 10
    )
    other = encode([np.zeros((160, 640, 3), np.uint8)])[0]
    rig.compressed.publish(CompressedImage(format="h264", data=other))
    rig.until(lambda: any("the picture is 640x160" in text for text in said))


def test_pictures_that_cannot_be_used_are_one_line_and_the_next_one_is_answered(
    make_rig, camera, camera_file, spots
):
    picture = fisheyes_of(spots[0], camera)
    rig = _up(make_rig, camera_file)
    rig.up()
    said = []
    rig.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: said.append(m.status[0].message), 10
    )
    rig.publish(picture, stamp=1)
    rig.click(256, 128)
    rig.answer(1)
    covered, half = picture.copy(), picture[:160].copy()
    covered[:, :320] = 0
    for stamp, bad, line in (
        (2, covered, "the back lens is black"),
        (3, half, "the picture is 640x160, and the camera file is for 640x320"),
        (4, picture[:, :320].copy(), "the picture is 320x320"),
    ):
        rig.publish(bad, stamp=stamp)
        rig.until(lambda line=line: any(line in text for text in said))
        assert not any("\n" in text for text in said)
    rig.publish(picture, stamp=5)
    _, objects = rig.answer(5)
    assert objects.objects[0].state == Object.TRACKED


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("field_of_view: 190.0", "field_of_view: 19.0"), "field_of_view of the front lens is 19"),
        (("name: front", "names: front"), "unknown key names"),
        (("lenses:", "lenses: 3 #"), "not valid yaml"),
    ],
)
def test_an_impossible_camera_file_is_refused_in_a_line(
    make_rig, camera_file, tmp_path, change, line, monkeypatch
):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((tmp_path / "camera.yaml").read_text().replace(*change))
    rig = _up(make_rig, str(wrong))
    logged = []
    monkeypatch.setattr(rig.sap, "get_logger", lambda: type("Log", (), {"error": logged.append})())
    assert rig.sap.trigger_configure().name == "FAILURE"
    (text,) = logged
    assert "wrong.yaml" in text
    assert line in text


def test_the_projection_needs_its_camera_file(make_rig):
    assert make_rig(projection="dual_fisheye").sap.trigger_configure().name == "FAILURE"
    assert make_rig(camera_file="insta360").sap.trigger_configure().name == "FAILURE"
