"""video: streams of packets that are joined late, lose packets, are damaged, change."""

import time
from types import SimpleNamespace as Message

import cv2
import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed")

from sap_ros.bench.video import encode
from sap_ros.core.projection import Equirectangular
from sap_ros.messages import ImageReader, packet_of
from sap_ros.synthesis.moving import MovingScene
from sap_ros.video import Packet, VideoDecoder, codec_of
from sap_ros.video_encoder import ENCODERS, VideoEncoder

CODECS = ("h264", "hevc", "av1")
SIZE = (256, 128)
EVERY = 10  # images from key frame to key frame


def pictures(count, size=SIZE):
    """Smooth panoramas, each turned by two columns from the one before."""
    u = np.arange(size[0]) * 2 * np.pi / size[0]
    v = np.arange(size[1])[:, None] / size[1]
    first = 127 + 100 * np.stack([np.sin(k * u + 3 * k * v) * (1 - v) for k in (1, 2, 3)], -1)
    return [np.roll(first.astype(np.uint8), 2 * i, 1) for i in range(count)]


@pytest.fixture(scope="module")
def streams():
    return {codec: encode(pictures(25), codec, EVERY) for codec in CODECS}


def decode(codec, packets, decoder=None):
    """The images of packets whose stamps are their numbers, and what was said."""
    said = []
    decoder = decoder or VideoDecoder(said.append)
    found = [
        image
        for stamp, data in packets
        for image in decoder.decode(Packet(codec, data, stamp, "camera"))
    ]
    return found + decoder.flush(), said


@pytest.mark.parametrize("codec", CODECS)
def test_every_image_comes_with_its_own_packet_stamp_and_frame(streams, codec):
    decoder = VideoDecoder(pytest.fail)
    shown = pictures(25)
    for i, data in enumerate(streams[codec]):
        (image,) = decoder.decode(Packet(codec, data, i + 1, "camera"))
        assert (image.stamp, image.frame_id, image.size) == (i + 1, "camera", SIZE)
        assert np.abs(image.read().astype(int) - shown[i]).mean() < 6
    assert decoder.flush() == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_that_is_joined_late_waits_for_a_key_frame_and_says_so_once(streams, codec):
    found, said = decode(codec, list(enumerate(streams[codec]))[3:])
    assert [image.stamp for image in found] == list(range(10, 25))
    assert len(said) == 1
    assert "waiting for a key frame" in said[0]


@pytest.mark.parametrize("codec", CODECS)
def test_a_lost_packet_costs_the_images_up_to_the_next_key_frame(streams, codec):
    packets = list(enumerate(streams[codec]))
    found, said = decode(codec, packets[:14] + packets[15:])
    stamps = [image.stamp for image in found]
    assert stamps == [*range(14), *range(20, 25)]
    for image in found:
        assert np.abs(image.read().astype(int) - pictures(25)[image.stamp]).mean() < 6
    assert len(said) == 1


# Encoders' other ways to refer to images: to several, to later ones, to some that are never shown.
STRUCTURES = {
    "h264, four references": ("h264", "libx264", {"refs": "4", "tune": "zerolatency"}),
    "h264, later references": ("h264", "libx264", {}),
    "hevc, three references": ("hevc", "libx265", {"x265-params": "ref=3:bframes=0", "tune": "zerolatency"}),
    "hevc, later references": ("hevc", "libx265", {"x265-params": "bframes=3:open-gop=1"}),
    "av1, later references": ("av1", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def drive():
    """Images in which much changes, so that a wrong reference is seen."""
    return [MovingScene(0).render(i / 10, SIZE)[0] for i in range(25)]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("count", [1, 2])
def test_no_image_is_wrong_whichever_packets_are_lost(drive, structure, count, monkeypatch):
    codec, *encoder = STRUCTURES[structure]
    if codec == "hevc":
        encoder[1] = {
            **encoder[1],
            "x265-params": "log-level=none:pools=none:" + encoder[1]["x265-params"],
        }
    monkeypatch.setitem(ENCODERS, codec, encoder)
    packets = list(enumerate(encode(drive, codec, EVERY)))
    right = {image.stamp: image.read().astype(int) for image in decode(codec, packets)[0]}
    assert len(right) == 25
    for first in range(1, 25 - count):
        found, _ = decode(codec, packets[:first] + packets[first + count :])
        for image in found:
            wrong = np.abs(image.read() - right[image.stamp]).mean()
            assert wrong < 1, f"{first} was lost, {image.stamp} is wrong by {wrong:.1f}"


def test_a_damaged_h264_packet_gives_no_image(drive):
    packets = list(enumerate(encode(drive, "h264", EVERY)))
    right = {image.stamp: image.read().astype(int) for image in decode("h264", packets)[0]}
    for k in range(1, 20):
        half = k, packets[k][1][: len(packets[k][1]) // 2]
        found, said = decode("h264", [*packets[:k], half, *packets[k + 1 :]])
        assert said
        for image in found:
            assert np.abs(image.read() - right[image.stamp]).mean() < 1


def test_a_damaged_hevc_packet_is_noticed_if_the_images_have_hashes(drive, monkeypatch):
    options = {"tune": "zerolatency", "x265-params": "log-level=none:pools=none:hash=1"}
    monkeypatch.setitem(ENCODERS, "hevc", ("libx265", options))
    packets = list(enumerate(encode(drive[:10], "hevc", EVERY)))
    right = {image.stamp: image.read().astype(int) for image in decode("hevc", packets)[0]}
    for k in range(1, 9):
        data = bytearray(packets[k][1])
        data[len(data) // 2] ^= 64
        found, said = decode("hevc", [*packets[:k], (k, bytes(data)), *packets[k + 1 :]])
        assert said
        for image in found:
            assert np.abs(image.read() - right[image.stamp]).mean() < 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "damage",
    [lambda d: d[: len(d) // 2], lambda d: d[:5], lambda d: b"", lambda d: b"\xff" * 99],
    ids=["half", "five bytes", "empty", "other bytes"],
)
def test_a_damaged_packet_never_ends_the_stream(streams, codec, damage):
    packets = [(i, damage(d) if i in (0, 12) else d) for i, d in enumerate(streams[codec])]
    found, said = decode(codec, packets)
    assert [image.stamp for image in found][-5:] == list(range(20, 25))
    assert said


def test_a_stream_that_gives_no_image_is_reported(streams):
    key, *others = streams["hevc"][:10]
    packets = [(0, key), *((i, others[1 + i % 2]) for i in range(1, 30))]
    found, said = decode("hevc", packets)
    assert [image.stamp for image in found][:1] == [0]
    assert said


@pytest.mark.parametrize(("codec", "size"), [("vp9", SIZE), ("h264", (255, 128))])
def test_what_cannot_be_encoded_is_refused(codec, size):
    with pytest.raises(ValueError, match="must be"):
        VideoEncoder(codec, size)


def test_random_bytes_are_survived(streams):
    rng = np.random.default_rng(0)
    decoder = VideoDecoder(lambda text: None)
    for codec in CODECS:
        for start in (b"\0\0\0\1\x67", b"\0\0\1\x65", b"\0\0\1\x26", b"\x0a\x0b", b""):
            decoder.decode(Packet(codec, start + rng.bytes(200)))
        found, _ = decode(codec, enumerate(streams[codec]), decoder)
        assert len(found) == 25


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a" + b"\xff" * 400_000,  # a unit's size that does not end
        # A sequence header of 400009 bytes; after the times, a number that does not end; a frame.
        b"\x0a\x89\xb5\x18" + b"\x04" + bytes(7) + b"\x02" + bytes(400_000) + b"\x32\x01\x00",
    ],
)
def test_a_damaged_av1_packet_takes_no_time(streams, data):
    decoder = VideoDecoder(lambda _: None)
    decode("av1", [(0, streams["av1"][0])], decoder)
    began = time.monotonic()
    decode("av1", [(1, data)], decoder)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("codec", CODECS)
def test_the_resolution_may_change(streams, codec):
    larger = encode(pictures(5, (512, 256)), codec, EVERY)
    found, said = decode(codec, enumerate(streams[codec] + larger))
    assert [image.size for image in found] == [SIZE] * 25 + [(512, 256)] * 5
    assert np.abs(found[-1].read().astype(int) - pictures(5, (512, 256))[-1]).mean() < 6
    assert not said


def test_parameter_sets_may_come_by_themselves(streams):
    first = streams["h264"][0]
    at = first.index(b"\0\0\1\x65")
    packets = [(0, first[:at]), (1, first[at:]), (2, streams["h264"][1])]
    found, said = decode("h264", packets)
    assert [image.stamp for image in found] == [1, 2]
    assert not said


def test_codecs_by_their_names():
    names = {"h264": "h264", "H265": "hevc", "hevc;nv12;bgr8;bgr8": "hevc", "libx264": "h264",
             "av1": "av1", "jpeg": "", "rgb8; png compressed bgr8": ""}  # fmt: skip
    assert {name: codec_of(name) for name in names} == names


def message(**fields):
    return Message(header=Message(stamp=Message(sec=3, nanosec=5), frame_id="camera"), **fields)


def test_messages_hold_images_or_packets(streams):
    data = streams["h264"][0]
    for found in (
        packet_of(message(format="h264", data=data)),
        packet_of(message(encoding="h264;yuv420p;bgr8;bgr8", pts=0, data=data)),
    ):
        assert (found.codec, found.stamp, found.frame_id) == ("h264", 3 * 10**9 + 5, "camera")
    assert packet_of(message(format="jpeg", data=data)) is None
    with pytest.raises(ValueError, match="'vp9'; it must be h264"):
        packet_of(message(encoding="vp9", pts=0, data=data))


def test_without_pyav_the_command_to_install_it_is_named(streams, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    reader = ImageReader(Equirectangular(), pytest.fail)
    with pytest.raises(ValueError, match="pip install av"):
        reader.read(message(format="h264", data=streams["h264"][0]))
    _, jpeg = cv2.imencode(".jpg", pictures(1)[0])
    assert reader.read(message(format="jpeg", data=jpeg.tobytes()))[0].size == SIZE
