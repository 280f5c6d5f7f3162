"""Packets of a video over DDS through the node to masks; its thread when it is behind."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("rclpy")

from sensor_msgs.msg import CompressedImage

from sap_ros.bench.video import encode
from sap_ros.node import video_input
from sap_ros.node.video_input import VideoInput
from sap_ros.video import Packet


def test_packets_over_dds_become_masks(make_rig, panorama):
    rig = make_rig(image_transport="compressed").up_compressed()
    packets = encode([np.roll(panorama, 2 * i, 1) for i in range(12)], "h264", every=6)
    rig.click(300, 120)

    def publish(i):
        message = CompressedImage(format="h264", data=packets[i])
        message.header.stamp.sec, message.header.frame_id = i + 1, "camera_frame"
        rig.compressed.publish(message)
        rig.spin(0.05)

    for i in range(2, 6):  # joined late: nothing before the key frame
        publish(i)
    assert not rig.masks
    publish(6)
    masks, _ = rig.answer(7)
    assert (masks.width, masks.height) == (512, 256)
    assert masks.header.frame_id == "camera_frame"
    publish(7)
    publish(9)  # one is lost
    publish(10)
    rig.answer(8)
    assert max(m.header.stamp.sec for m in rig.masks) == 8
    rig.compressed.publish(CompressedImage(format="h264", data=b"\xff" * 50))
    for i in range(6):  # a key frame again; stamps go on
        message = CompressedImage(format="h264", data=packets[i])
        message.header.stamp.sec = 20 + i
        rig.compressed.publish(message)
        rig.spin(0.05)
    rig.answer(25)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_packets_of_ffmpeg_image_transport(make_rig, panorama, codec):
    messages = pytest.importorskip(
        "ffmpeg_image_transport_msgs.msg", reason="ffmpeg_image_transport_msgs is not installed"
    )
    rig = make_rig(image_transport="ffmpeg")
    publisher = rig.peer.create_publisher(messages.FFMPEGPacket, "image/ffmpeg", 10)
    rig.up(publisher)
    rig.click(300, 120)
    stream = encode([np.roll(panorama, 2 * i, 1) for i in range(6)], codec, every=6)
    for i, data in enumerate(stream):
        message = messages.FFMPEGPacket(
            width=512, height=256, encoding=f"{codec};yuv420p;bgr8;bgr8", pts=i, flags=int(i == 0)
        )
        message.data.frombytes(data)
        message.header.stamp.sec, message.header.frame_id = i + 1, "camera_frame"
        publisher.publish(message)
        rig.spin(0.05)
    masks, objects = rig.answer(6)
    assert (masks.width, masks.height) == (512, 256)
    assert masks.header.frame_id == "camera_frame"
    assert np.frombuffer(masks.data, np.uint8).any()
    assert len(objects.objects) == 1


def packets(count, every):
    shown = [np.full((64, 128, 3), 40 + i, np.uint8) for i in range(count)]
    return [Packet("h264", d, i + 1) for i, d in enumerate(encode(shown, "h264", every))]


@pytest.fixture
def behind():
    """A video input whose taker waits until it is let go; the stamps taken, and what was said."""
    taken, said, go = [], [], threading.Event()

    def take(image):
        taken.append(image.stamp)
        go.wait(20)

    video = VideoInput(take, said.append)
    yield video, taken, said, go
    go.set()
    video.stop()


def until(ready):
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_only_the_newest_of_the_waiting_images_is_handed_on(behind):
    video, taken, said, go = behind
    stream = packets(30, 100)
    video.put(stream[0])
    until(lambda: taken == [1])
    for packet in stream[1:]:
        video.put(packet)
        video.put(packet)  # by the second subscription
    go.set()
    until(lambda: len(taken) == 2)
    assert taken == [1, 30]
    assert not said


@pytest.mark.parametrize(("every", "last"), [(50, True), (1000, False)])
def test_packets_are_dropped_up_to_a_key_frame_when_too_many_wait(behind, every, last):
    video, taken, said, go = behind
    stream = packets(video_input._MOST_BEHIND + 10, every)
    video.put(stream[0])
    until(lambda: taken == [1])
    for packet in stream[1:]:
        video.put(packet)
    go.set()
    if last:
        until(lambda: taken[-1] == len(stream))
        assert len(said) == 1
    else:
        until(lambda: len(said) == 2)
        assert "waiting for a key frame" in said[1]
        assert taken == [1]
    assert "packets were dropped" in said[0]


def test_after_a_restart_a_key_frame_is_awaited(behind):
    video, taken, said, go = behind
    go.set()
    stream = packets(20, 10)
    for packet in stream[:3]:
        video.put(packet)
    until(lambda: taken[-1:] == [3])
    video.restart()
    for packet in stream[5:]:
        video.put(packet)
    until(lambda: taken[-1:] == [20])
    assert not {6, 7, 8, 9, 10} & set(taken)
    assert len(said) == 1
