"""Measures decoding of video packets; its streams are also those of the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sap_ros.bench.result import Goal, Result, timed
from sap_ros.synthesis.moving import MovingScene
from sap_ros.video import Packet, VideoDecoder
from sap_ros.video_encoder import ENCODERS, VideoEncoder

#: What the fastest of the drivers for 360° cameras sends, in pixels and images per second.
_SIZE, _RATE = (2304, 1152), 30.0
#: Of a camera's good video, in bits per second; noise is added to the images until they need as much.
_BIT_RATE = 40_000_000


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
    height, width = images[0].shape[:2]
    encoder = VideoEncoder(codec, (width, height), every, bit_rate)
    packets = [packet for image in images for packet in encoder.encode(image)]
    return packets + encoder.flush()


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
    for codec in ENCODERS:
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
