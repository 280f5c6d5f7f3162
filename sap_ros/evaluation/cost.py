"""Measures time and peak memory of a block of code."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """The measured cost; set at the end of the block.

    Attributes:
        seconds: wall time.
        peak_mb: peak memory in MB: of the device, or, on a CPU, of the whole process; None if the system
            does not report it.
    """

    seconds: float = 0.0
    peak_mb: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measures the time and peak memory of its block."""
    cost = Cost()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # Linux: resets the peak of resident memory
    began = time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - began
    if device.type == "cuda":
        cost.peak_mb = torch.cuda.max_memory_allocated(device) / 1e6
    elif _CLEAR.exists():
        kibibytes = re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text())
        cost.peak_mb = int(kibibytes[1]) * 1024 / 1e6 if kibibytes else None
