"""Measures workers: what several give, what passing an item to one costs, and memory over many items.

``python -m sap_ros.bench.fleet alone|listed ...`` are its processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sap_ros.bench.result import Goal, Result
from sap_ros.jobs.local import InProcess, Processes
from sap_ros.jobs.run import Item, Job, Pool, run

_SIZE = (1024, 512)  # of the panoramas
_FEW, _MANY = 1_000, 100_000
_WARM = 2  # items a worker that are not timed


def fleet(pictures: int = 40, passed: int = 1000, many: int = _MANY) -> Result:
    """sap-nano with one thread a process: panoramas with one click each.

    Args:
        pictures: panoramas that are timed, per process.
        passed: items without work, for the cost of passing one.
        many: the larger number of items.
    """
    alone = _process("alone", pictures)["rate"]
    one, two = (
        _rate(Processes(count, threads=1), make_worker, pictures * count, count) for count in (1, 2)
    )
    nothing = {"processes": 1 / _rate(Processes(1, threads=1), _make_idle, passed, 1)}
    if find_spec("ray") is not None:
        from sap_ros.jobs.cluster import RayPool

        nothing["Ray"] = 1 / _rate(RayPool("local", 1), _make_idle, passed, 1)
    listed = {count: _process("listed", count) for count in (_FEW, many)}
    growth = listed[many]["mb"] - listed[_FEW]["mb"]
    rows = [
        ["one process, without workers", f"{alone:.2f} items/s"],
        ["one worker", f"{one:.2f} items/s"],
        ["two workers", f"{two:.2f} items/s"],
        *([f"passing an item, {name}", f"{1000 * s:.2f} ms"] for name, s in nothing.items()),
        *(
            [
                f"{count} items of a csv",
                f"first after {held['first']:.3f} s, memory + {held['mb']:.1f} MB",
            ]
            for count, held in listed.items()
        ),
    ]
    goals = [
        Goal("two workers, relative to one process", two / alone, 1.7, at_least=True),
        Goal("passing an item to a worker of Ray, s", nothing.get("Ray"), 0.01),
        Goal(f"s to the first of {many} items", listed[many]["first"], 3.0),
        Goal(f"MB for {many} items, beyond those for {_FEW}", growth, 20.0),
    ]
    figures = {
        "rates": [alone, one, two],
        "seconds_an_item": nothing,
        "listed": {str(count): held for count, held in listed.items()},
    }
    return Result(
        "fleet",
        f"workers of one thread each, {_SIZE[0]}x{_SIZE[1]}, one click, sap-nano; {os.cpu_count()} cores",
        ["", ""],
        rows,
        goals,
        figures,
    )


def make_worker() -> Callable[[Any], None]:
    """A worker that segments a panorama."""
    from sap_ros.bench.scenes import clicks_on, labelled
    from sap_ros.core.loading import load_model
    from sap_ros.core.prompts import from_pixels
    from sap_ros.core.session import PanoramaSession

    session = PanoramaSession(load_model())
    scene = labelled(1, _SIZE, 4)
    prompt = from_pixels(1, clicks_on(scene.labels, [1]), _SIZE)

    def work(_: Any) -> None:
        session.reset()
        session.set_image(scene.image)
        session.add_prompt(prompt)
        session.segment()

    return work


def _make_idle() -> Callable[[Any], None]:
    return _idle


def _idle(_: Any) -> None:
    pass


def _rate(
    pool: Pool, worker: Callable[[], Callable[[Any], None]], count: int, workers: int
) -> float:
    """Items per second, after the workers have started."""
    times: list[float] = []
    warm = _WARM * workers
    items = (Item(str(k), k) for k in range(count + warm))
    summary = run(
        Job(worker, finished=lambda item, result: times.append(time.perf_counter())), items, pool
    )
    if summary.failed:
        raise RuntimeError(f"items failed: {summary.failed}")
    return count / (times[-1] - times[warm - 1])


def _process(kind: str, count: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", __name__, kind, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{kind}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _alone(count: int) -> dict[str, float]:
    work = make_worker()
    for _ in range(_WARM):
        work(None)
    began = time.perf_counter()
    for _ in range(count):
        work(None)
    return {"rate": count / (time.perf_counter() - began)}


def _listed(count: int) -> dict[str, float]:
    """Seconds to the first item of a csv, and the growth of memory over all of them, in MB."""
    from sap_ros.prompt_files import read_prompts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.csv"
        with path.open("w") as file:
            file.write("picture,u,v\n")
            file.writelines(f"street/{k:08d}.jpg,512,256\n" for k in range(count))
        first: list[float] = []
        before = most = _held()
        began = time.perf_counter()

        def finished(item: Item, result: object) -> None:
            nonlocal most
            if not first:
                first.append(time.perf_counter() - began)
            if item.name.endswith("99.jpg"):
                most = max(most, _held())

        items = (Item(given.picture, given) for given in read_prompts(path))
        run(Job(_make_idle, finished=finished), items, InProcess())
    return {"first": first[0], "mb": most - before}


def _held() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    measure = {"alone": _alone, "listed": _listed}[sys.argv[1]]
    sys.stdout.write(json.dumps(measure(int(sys.argv[2]))) + "\n")
