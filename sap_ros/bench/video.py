"""Measures decoding of video packets; its streams are also those of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from sap_ros.bench.result import Goal, Result, timed
from sap_ros.synthesis.moving import MovingScene
from sap_ros.video import Packet, VideoDecoder

#: What the fastest of the drivers for 360° cameras sends, in pixels and images per second.
_SIZE, _RATE = (2304, 1152), 30.0
#: Of a camera's good video, in bits per second; noise is added to the images until they need as much.
_BIT_RATE = 40_000_000

# By codec: the encoder, and the options with which it sends a packet per image at once, as cameras do.
_ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:pools=none"},
    ),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:lp=1"}),
}


def encode(
    images: Sequence[np.ndarray], codec: str = "h264", every: int = 10, bit_rate: int = 0
) -> list[bytes]:
    """Encodes images (H, W, 3) uint8 RGB, one packet per image.

    Args:
        images: of one size, which must be even.
        codec: h264, hevc or av1.
        every: number of images from one key frame to the next.
        bit_rate: bits per second, at 30 images per second; 0: what the encoder's default quality takes.
    """
    import av

    name, options = _ENCODERS[codec]
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.gop_size = "yuv420p", every
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.options = options
    if bit_rate:
        encoder.bit_rate = bit_rate
        if codec == "av1":  # the only control of the rate that it has without a delay
            encoder.options = {**options, "svtav1-params": options["svtav1-params"] + ":rc=2"}
    packets = []
    for i, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = i
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def decoding(repeats: int = 3, images: int = 30, size: tuple[int, int] = _SIZE) -> Result:
    """Decodes a drive through a room, with and without the conversion of each image to RGB."""
    scene = MovingScene(0)
    rng = np.random.default_rng(0)
    base = scene.render(0.0, size)[0].astype(np.float32)
    # A camera's noise, which costs most of the bits, is another one in each image.
    grain = rng.normal(0, 3, base.shape).astype(np.float32)
    shown = [
        (np.roll(base, 4 * i, 1) + np.roll(grain, int(rng.integers(grain.size)))).clip(0, 255)
        for i in range(images)
    ]
    rows, goals = [], []
    figures: dict[str, list[float]] = {}
    for codec in _ENCODERS:
        data = encode(
            [image.astype(np.uint8) for image in shown], codec, every=images, bit_rate=_BIT_RATE
        )
        packets = [Packet(codec, packet) for packet in data]
        rates = []
        for read in (False, True):
            time = timed(lambda packets=packets, read=read: _decode(packets, read), repeats)  # type: ignore[misc]
            rates.append(images / time.median)
        figures[codec] = rates
        megabits = 8e-6 * _RATE * sum(map(len, data)) / images
        rows.append([codec, f"{megabits:.1f}", *(f"{rate:.0f}" for rate in rates)])
        goals.append(Goal(f"images/s of {codec}", rates[0], _RATE, at_least=True))
    return Result(
        "video",
        f"decoding, {size[0]}x{size[1]}, on the CPU",
        ["codec", f"Mbit/s at {_RATE:g} images/s", "images/s", "images/s, each read as RGB"],
        rows,
        goals,
        figures,
    )


def _decode(packets: Sequence[Packet], read: bool) -> None:
    told: list[str] = []
    decoder = VideoDecoder(told.append)
    count = 0
    for packet in packets:
        for image in decoder.decode(packet):
            if read:
                image.read()
            count += 1
    count += len(decoder.flush())
    if count < len(packets):
        raise ValueError(f"{count} of {len(packets)} images were decoded; {'; '.join(told)}")
