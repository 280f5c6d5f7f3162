"""Memory of images and messages: kept by the process for the next one, instead of given back to the system."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), and their values in bytes.
_MMAP_THRESHOLD, _LARGEST_REUSED = -3, 32 << 20  # a raw image of 4096x2048 has 25 MB
_TRIM_THRESHOLD, _MOST_KEPT = -1, 256 << 20


def reuse_freed_memory() -> None:
    """Lets glibc keep freed memory, up to 256 MB, and take buffers of up to 32 MB from it.

    By default the buffers of a raw panorama, of which a message has several on its way, are mapped anew for each
    image, and the kernel clears their pages: half of the time that DDS and rclpy take. Does nothing with other C
    libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
