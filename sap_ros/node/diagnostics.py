"""What the node says of itself on `/diagnostics`."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

_WINDOW = 5.0  # s, over which rates are measured


class Health:
    """Counts and times, on the steady clock; only the latency is by ROS time."""

    def __init__(self) -> None:
        self._done: deque[float] = deque()
        self.seconds: dict[str, float] = {}
        self.latency = float("nan")
        self.encoded = 0
        self._error: tuple[float, str] | None = None

    def finished(self, seconds: dict[str, float], latency: float, encoded: int) -> None:
        """An image has been answered; ``latency`` from its stamp to now, in s."""
        self._done.append(time.monotonic())
        self.seconds, self.latency, self.encoded = seconds, latency, encoded

    def failed(self, error: str) -> None:
        """Something went wrong."""
        self._error = time.monotonic(), error

    def rate(self) -> float:
        """Images answered a second."""
        now = time.monotonic()
        while self._done and now - self._done[0] > _WINDOW:
            self._done.popleft()
        return len(self._done) / _WINDOW

    def report(
        self, name: str, stamp: Time, state: str, device: str, facts: Mapping[str, object]
    ) -> DiagnosticArray:
        """The message.

        Args:
            name: the node's full name.
            stamp: now, in ROS time.
            state: what it is doing, in a word or two.
            device: the torch device; its memory is looked up.
            facts: further values.
        """
        recent = self._error is not None and time.monotonic() - self._error[0] < _WINDOW
        values = {
            "rate_hz": f"{self.rate():.2f}",
            "latency_s": f"{self.latency:.3f}",
            **{f"{stage}_s": f"{value:.3f}" for stage, value in self.seconds.items()},
            "views_encoded": self.encoded,
            "device": device,
            "memory_mb": f"{_memory(device):.0f}",
            "last_error": self._error[1] if self._error else "",
            **facts,
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if recent else DiagnosticStatus.OK,
            name=name.lstrip("/"),
            message=self._error[1] if recent and self._error else state,
            hardware_id=device,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp.to_msg()
        return message


def _memory(device: str) -> float:
    """Memory in use, in MB: of the GPU, or the most that the process ever had."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
