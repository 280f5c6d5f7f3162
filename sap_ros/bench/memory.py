"""Peak memory of a 4K panorama with one object; each case runs in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sap_ros.bench.result import Goal, Result

# Makes glibc return freed memory at once, so that the peak does not include it.
_EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}

_NATIVE = "SAM 2's encoder alone on 4096x2048"  # without decoder, memory, and full-size masks

# The kind of each case, and the side of its views or the width of the panorama.
_CASES = {
    "one view at a time, 1024 px (auto)": ("session", 1024),
    "one view at a time, 768 px (auto)": ("session", 768),
    "all 24 views resident, 1024 px": ("resident", 1024),
    _NATIVE: ("native", 4096),
}


def memory() -> Result:
    """SAM 2.1 tiny with random weights: peak memory on top of the loaded model."""
    found = {name: _in_a_process(*case) for name, case in _CASES.items()}
    if found[_NATIVE] is None and (half := _in_a_process("native", 2048)) is not None:
        # The encoder's activations are proportional to the number of pixels.
        found[_NATIVE] = {"mb": 4 * half["mb"], "how": "computed: 4 times that on 2048x1024"}
    native = found[_NATIVE]
    rows, shares = [], {}
    for name, case in found.items():
        if case is None:
            rows.append([name, "does not fit here", "-", "-"])
            continue
        share = case["mb"] / native["mb"] if native else None
        shares[name] = share
        rows.append(
            [
                name,
                f"{case['mb']:.0f} MB",
                "-" if share is None else f"{100 * share:.1f} %",
                case["how"],
            ]
        )
    goals = [
        Goal(
            f"{size} px views, relative to native",
            shares.get(f"one view at a time, {size} px (auto)"),
            limit,
        )
        for size, limit in ((1024, 0.15), (768, 0.10))
    ]
    return Result(
        "memory",
        "peak memory on top of the loaded model, 4096x2048, one object, SAM 2.1 tiny with random weights",
        ["", "peak", "relative to native", ""],
        rows,
        goals,
        found,
    )


def _in_a_process(kind: str, size: int) -> dict[str, Any] | None:
    """Peak memory of a case; None if it does not fit into memory.

    Raises:
        RuntimeError: it failed for another reason.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, kind, str(size)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _EXACT,
    )
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    if done.returncode < 0 or "can't allocate memory" in done.stderr:  # killed by the system
        return None
    raise RuntimeError(f"{kind} {size}: {done.stderr.strip().splitlines()[-1]}")


def _held() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def _measure(kind: str, size: int) -> dict[str, object]:
    import numpy as np
    import torch

    from sap_ros.bench.scenes import DEMO, random_model
    from sap_ros.core.graphs import normalize
    from sap_ros.core.prompts import Prompt
    from sap_ros.core.session import PanoramaSession
    from sap_ros.evaluation.cost import measured
    from sap_ros.evaluation.datasets import read_labels
    from sap_ros.files import read_panorama

    side, image = None if kind == "native" else size, read_panorama(DEMO)
    model = random_model("sam2.1-tiny", side)
    box = read_labels(DEMO.with_name("instances.png")) == 3
    with torch.inference_mode():  # the libraries' one-time initialisation is not counted
        model.sam.image_encoder(torch.zeros(1, 3, 256, 256))
    before = _held()
    with measured(model.device) as cost:
        if kind == "native":
            step = image.shape[1] // size
            with torch.inference_mode():
                pixels = torch.from_numpy(image[::step, ::step].copy())
                model.sam.image_encoder(normalize(pixels[None]))
        else:
            session = PanoramaSession(model, "auto")
            session.set_image(image)
            # A mask prompt: with random weights a click gives an arbitrary mask and number of views.
            session.add_prompt(Prompt(1, mask=box))
            session.segment()
    assert cost.peak_mb is not None, "this system does not report a process's peak memory"
    peak = cost.peak_mb - before
    how = f"measured, {cost.seconds:.0f} s"
    if kind == "resident":
        features = model.encode(np.zeros((size, size, 3), np.uint8))
        peak += (24 - session.encoded) * sum(m.nbytes for m in features.maps) / 1e6
        how = "one measured, the others' features computed"
    return {"mb": peak, "how": how}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))) + "\n")
