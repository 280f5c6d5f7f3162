"""Encodes images as a camera's video, a packet per image at once, by PyAV: for the demo, measurements and tests."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

#: By codec: FFmpeg's name of the encoder, and the options with which it sends a packet per image at once.
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:pools=none"},
    ),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:lp=1"}),
}


class VideoEncoder:
    """Encodes the images of one stream, in order.

    Args:
        codec: h264, hevc or av1.
        size: width and height of the images, which must be even.
        every: number of images from one key frame to the next.
        bit_rate: bits per second, at 30 images per second; 0: what the encoder's default quality takes.

    Raises:
        ValueError: another codec, or an odd size.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(
        self, codec: str, size: tuple[int, int], every: int = 10, bit_rate: int = 0
    ) -> None:
        if codec not in ENCODERS:
            raise ValueError(f"the codec is {codec!r}; it must be one of {', '.join(ENCODERS)}")
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"the images are {size[0]}x{size[1]}; both must be even for a video")
        import av

        self._av = av
        name, options = ENCODERS[codec]
        encoder: Any = av.CodecContext.create(name, "w")
        encoder.width, encoder.height = size
        encoder.pix_fmt, encoder.gop_size = "yuv420p", every
        encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
        encoder.options = options
        if bit_rate:
            encoder.bit_rate = bit_rate
            if codec == "av1":  # the only control of the rate that it has without a delay
                encoder.options = {**options, "svtav1-params": options["svtav1-params"] + ":rc=2"}
        self._encoder, self._count = encoder, 0

    def encode(self, image: np.ndarray) -> list[bytes]:
        """The packets that are complete with an image (H, W, 3) uint8 RGB: one, if the encoder holds none back."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self._count
        self._count += 1
        return [bytes(packet) for packet in self._encoder.encode(frame)]

    def flush(self) -> list[bytes]:
        """The packets that were held back; the stream has ended."""
        return [bytes(packet) for packet in self._encoder.encode(None)]
