"""The machine that figures are measured on: what a reader of them has to know."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, str]:
    """Processor, operating system and versions; with a GPU, its name, memory, driver and CUDA as well."""
    found = {
        "cpu": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "onnxruntime": _version("onnxruntime", "onnxruntime-gpu"),
        "sap_ros": _version("sap_ros"),
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor}",
            "driver": _driver(),
            "cuda": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
            "bf16": "yes" if torch.cuda.is_bf16_supported() else "no",
        }
    return found


def _processor() -> str:
    """The CPU's model name."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(*packages: str) -> str:
    """The version of the first of these packages that is installed."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"


def _driver() -> str:
    """The NVIDIA driver's version; torch does not know it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown (nvidia-smi does not say)"
    return done.stdout.split()[0] if done.stdout.strip() else "unknown (nvidia-smi does not say)"
