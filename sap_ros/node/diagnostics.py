"""The node's status on `/diagnostics`, with diagnostic_updater's conventions.

diagnostic_updater itself is not used: it has no wheel, and the node only publishes one status per second.
"""

from __future__ import annotations

import math
import resource
import time
from collections import deque
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

_WINDOW = 5.0  # s, time over which rates are measured, and for which a problem sets the level
_FORGET = 60.0  # s, time for which the last problem is reported


class Health:
    """Collects the node's rates, times and problems, on the steady clock; only the latency is in ROS time."""

    def __init__(self) -> None:
        self._done: deque[float] = deque()
        self.seconds: dict[str, float] = {}
        self.latency = math.nan
        self.encoded = 0
        self._problem: tuple[float, str, bytes] | None = None
        self._began = time.monotonic()
        self._came: dict[str, float] = {}  # by input: time of the last message

    def finished(self, seconds: Mapping[str, float], latency: float, encoded: int) -> None:
        """Records an answered image; ``latency`` is the time since its stamp, in s."""
        self._done.append(time.monotonic())
        self.seconds, self.latency, self.encoded = dict(seconds), latency, encoded

    def came(self, name: str) -> None:
        """Records a received message of an input, ``image`` or ``points``."""
        self._came[name] = time.monotonic()

    def warn(self, problem: str) -> None:
        """Records an input that cannot be used."""
        self._problem = time.monotonic(), problem, DiagnosticStatus.WARN

    def fail(self, problem: str) -> None:
        """Records a failure of the node itself."""
        self._problem = time.monotonic(), problem, DiagnosticStatus.ERROR

    def waited(self) -> float:
        """Time without any image since the start, in s; 0 once one has come."""
        return 0.0 if "image" in self._came else time.monotonic() - self._began

    def rate(self) -> float:
        """Images answered per second."""
        now = time.monotonic()
        while self._done and now - self._done[0] > _WINDOW:
            self._done.popleft()
        return len(self._done) / _WINDOW

    def _age(self, name: str) -> float:
        """Time since the last message of an input, in s; NaN if there was none."""
        return time.monotonic() - self._came[name] if name in self._came else math.nan

    def report(
        self,
        name: str,
        hardware: str,
        stamp: Time,
        state: str,
        device: str,
        silence: float,
        tracking: bool,
        facts: Mapping[str, object],
        silent: str = "",
    ) -> DiagnosticArray:
        """Makes the diagnostics message.

        Args:
            name: the node's full name.
            hardware: the hardware id: the topic of the images.
            stamp: current ROS time.
            state: what the node is doing, in a word or two.
            device: the torch device, whose memory use is reported.
            silence: time without input after which there is a warning, in s.
            tracking: whether there are objects, which need images.
            facts: further values.
            silent: a line about a camera or a lens that sends nothing.
        """
        level, message = DiagnosticStatus.OK, state
        since = time.monotonic() - self._problem[0] if self._problem else math.inf
        image_age, points_age = self._age("image"), self._age("points")
        if tracking and points_age > silence:
            level, message = DiagnosticStatus.WARN, f"no point cloud for {points_age:.1f} s"
        if tracking and image_age > silence:
            level, message = DiagnosticStatus.WARN, f"no image for {image_age:.1f} s"
        if silent:
            level, message = DiagnosticStatus.WARN, silent
        if self._problem and since < _WINDOW and self._problem[2] >= level:
            _, message, level = self._problem
        known = self._problem is not None and since < _FORGET
        values = {
            "rate_hz": f"{self.rate():.2f}",
            "latency_s": f"{self.latency:.3f}",
            **{f"{stage}_s": f"{value:.3f}" for stage, value in self.seconds.items()},
            "image_age_s": f"{image_age:.1f}",
            "points_age_s": f"{points_age:.1f}",
            "views_encoded": self.encoded,
            "device": device,
            "memory_mb": f"{_memory(device):.0f}",
            "last_error": self._problem[1] if known and self._problem else "",
            **facts,
        }
        status = DiagnosticStatus(
            level=level,
            name=f"{name.lstrip('/')}: segmentation",
            message=message,
            hardware_id=hardware,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        report = DiagnosticArray(status=[status])
        report.header.stamp = stamp.to_msg()
        return report


def _memory(device: str) -> float:
    """Memory in MB: in use on the GPU, or the peak of the process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
