"""Decodes streams of h264, h265 and av1 packets, one image per packet, by PyAV (``pip install av``). No ROS.

Most images of such a stream are stored as differences from the images before them, so every packet is needed
to decode the next one, until a *key frame*, which is complete. A packet that is lost or damaged therefore
costs all images up to the next key frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sap_ros.engine.events import Image
from sap_ros.frame_numbers import FrameNumbers, OrderHints, obus

# By a part of the names that drivers and encoders use (h264, avc, libx265, hevc_nvenc, ...): codec.
_CODECS = {
    "264": "h264",
    "avc": "h264",
    "265": "hevc",
    "hevc": "hevc",
    "av1": "av1",
}
# PyAV's name of the decoder; FFmpeg's own one for AV1 needs a GPU.
_DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d"}

#: Maximum number of images that a decoder holds back, to sort them; no profile of these codecs allows more.
_HELD_BACK = 16
#: Number of threads for h265, whose images may be coded in parts.
_HEVC_THREADS = 4
#: Maximum number of bytes of parameter sets that are kept for the image that follows them.
_MAX_PARAMETERS = 1 << 16


@dataclass(frozen=True)
class Packet:
    """A packet of a video stream: one image, or the parameter sets that come before one.

    Attributes:
        codec: h264, hevc or av1, see :func:`codec_of`.
        data: h264 and hevc as in Annex B (with start codes), av1 as a temporal unit.
        stamp: of its image, in ns.
        frame_id: TF frame of the camera.
    """

    codec: str
    data: bytes
    stamp: int = 0
    frame_id: str = ""

    @property
    def parts(self) -> frozenset[str]:
        """What it holds: ``parameters``, ``key`` (a key frame), ``image`` (of any kind), ``other``; empty: it is
        not of this codec."""
        units = _av1_units if self.codec == "av1" else _nal_units
        return frozenset(units(self.codec, self.data))

    @property
    def starts(self) -> bool:
        """Whether decoding can start here: it holds a key frame, or an image and its parameter sets."""
        parts = self.parts
        return "key" in parts or {"parameters", "image"} <= parts


def codec_of(name: str) -> str:
    """The codec that a message's format or encoding names; empty: it is no video.

    Args:
        name: for example ``h264``, or ``hevc;yuv420p;bgr8;bgr8`` as ffmpeg_image_transport writes it.
    """
    first = name.lower().split(";")[0]
    return next((codec for part, codec in _CODECS.items() if part in first), "")


class VideoDecoder:
    """Decodes the packets of one stream, in order. Bad packets cost images and never raise.

    Args:
        tell: called with a line when something about the stream is worth saying.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        import av

        self._av, self._tell = av, tell
        self._codec = ""
        self.restart()
        self._told = False  # whether it was said that a key frame is awaited

    def restart(self) -> None:
        """Forgets the stream: the next image will be that of a key frame."""
        self._decoder: Any = None
        self._parameters = b""
        self._order: FrameNumbers | OrderHints | None = None
        self._given: dict[int, Packet] = {}  # by number: packets whose images are not decoded yet
        self._count = 0

    def decode(self, packet: Packet) -> list[Image]:
        """The images that are complete with this packet: usually one; their pixels are converted when read."""
        parts = packet.parts
        if packet.codec != self._codec:
            self.restart()
            self._codec = packet.codec
        if not parts:
            self._lose(f"a packet of {len(packet.data)} bytes is not {packet.codec}")
            return []
        if "image" not in parts:  # some drivers send parameter sets by themselves
            if "parameters" in parts and len(self._parameters) < _MAX_PARAMETERS:
                self._parameters += packet.data
            return []
        before, self._parameters = self._parameters, b""
        data = packet.data if "parameters" in parts else before + packet.data
        whole = Packet(packet.codec, data, packet.stamp, packet.frame_id)
        if self._order is not None and not self._order.follows(data):
            self._lose("a packet of the video was lost")
        if self._decoder is None:
            if not whole.starts:
                self._wait()
                return []
            self._decoder = self._av.CodecContext.create(_DECODERS[packet.codec], "r")
            # Threads for whole images would delay each by several; with those for parts of an image, FFmpeg's
            # decoder for h264 hands on damaged images without an error.
            self._decoder.thread_type = "SLICE"
            self._decoder.thread_count = _HEVC_THREADS if packet.codec == "hevc" else 1
            # Otherwise that for hevc leaves images out without an error, and ignores hashes of images.
            self._decoder.options = {"err_detect": "explode+crccheck"}
            if packet.codec != "hevc":  # FFmpeg's decoder for it notices itself what is missing
                self._order = FrameNumbers() if packet.codec == "h264" else OrderHints()
                self._order.follows(data)
            self._told = False
        return self._decode(whole)

    def flush(self) -> list[Image]:
        """The images that the decoder still holds back; the stream has ended."""
        decoder, given = self._decoder, self._given
        self.restart()
        if decoder is None:
            return []
        try:
            return [image for frame in decoder.decode(None) if (image := _image(frame, given))]
        except self._av.error.FFmpegError:
            return []

    def _decode(self, packet: Packet) -> list[Image]:
        self._count += 1
        self._given[self._count] = packet
        coded = self._av.Packet(packet.data)
        # The image gets it back, wherever it comes in the order.
        coded.pts = coded.dts = self._count
        try:
            frames = self._decoder.decode(coded)
        except self._av.error.FFmpegError as error:
            self._lose(f"a packet of the video cannot be decoded ({error.strerror})")
            return []
        if any(frame.is_corrupt for frame in frames):
            self._lose("an image of the video is damaged")
            return []
        if len(self._given) > _HELD_BACK + len(frames):
            self._lose(f"{len(self._given)} packets of the video gave no image")
            return []
        return [image for frame in frames if (image := _image(frame, self._given))]

    def _lose(self, reason: str) -> None:
        self.restart()
        self._tell(f"{reason}; the next image will be that of the next key frame")
        self._told = True

    def _wait(self) -> None:
        if not self._told:
            self._tell("the video is received from its middle on: waiting for a key frame")
            self._told = True


def _image(frame: Any, given: dict[int, Packet]) -> Image | None:
    packet = given.pop(frame.pts, None)
    if packet is None:
        return None
    return Image(
        (frame.width, frame.height),
        lambda: np.asarray(frame.to_ndarray(format="rgb24")),
        packet.stamp,
        packet.frame_id,
    )


# Kinds of NAL units: parameter sets, slices of key frames, slices of other images.
_H264 = {**dict.fromkeys((7, 8), "parameters"), 5: "key", **dict.fromkeys((1, 2), "image")}
_HEVC = {
    **dict.fromkeys((32, 33, 34), "parameters"),
    **dict.fromkeys(range(16, 22), "key"),
    **dict.fromkeys(range(10), "image"),
}


def _nal_units(codec: str, data: bytes) -> set[str]:
    """The parts of an h264 or hevc packet up to its first slice (ITU-T H.264 7.4.1, H.265 7.4.2)."""
    found: set[str] = set()
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        first = data[at + 3]
        kind = (_H264 if codec == "h264" else _HEVC).get(
            first & 31 if codec == "h264" else first >> 1 & 63, "other"
        )
        found.add(kind)
        if kind in ("key", "image"):
            return found | {"image"}
        at = data.find(b"\0\0\1", at + 3)
    return found


def _av1_units(codec: str, data: bytes) -> set[str]:
    """The parts of an av1 packet up to its first frame."""
    found: set[str] = set()
    for kind, _ in obus(data):
        found.add("parameters" if kind == 1 else "other")
        if kind in (3, 6):  # frame header, frame
            return found | {"image"}
    return found
