"""jobs: items over workers in this process, in others, and on a Ray cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sap_ros.cli.segment_folder import SegmentSettings, segment_items
from sap_ros.jobs.local import InProcess, Processes
from sap_ros.jobs.run import Item, Job, run

# Other processes import the workers by this name; `test` is the name of a standard package.
sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (sys.path[0], os.environ.get("PYTHONPATH")))
)
from square_workers import make_nothing, make_once, make_writer


def ray_pool(count=2):
    """Workers on a cluster that all tests share: it takes seconds to start."""
    ray = pytest.importorskip("ray")
    from sap_ros.jobs.cluster import RayPool

    if not ray.is_initialized():
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error"
        )
    return RayPool("local", count)


@pytest.fixture(scope="module", autouse=True)
def _no_cluster_is_left():
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


POOLS = {
    "in process": InProcess,
    "processes": partial(Processes, 2),
    "ray": ray_pool,
}
pools = pytest.mark.parametrize("make_pool", POOLS.values(), ids=POOLS)
others = pytest.mark.parametrize(
    "make_pool", [POOLS["processes"], POOLS["ray"]], ids=["processes", "ray"]
)


def items(count, **special):
    """Numbers; ``special`` says by number (``_3="dies"``) what is to happen to it."""
    return [Item(str(k), (k, special.get(f"_{k}", ""))) for k in range(count)]


def job(folder, finished=lambda item, result: None, wait=0.0):
    return Job(
        partial(make_writer, folder, wait),
        lambda item: (folder / f"{item.name}.txt").exists(),
        finished,
    )


@pools
def test_each_item_is_done_once_and_again_only_if_it_is_missing(make_pool, tmp_path):
    results = {}
    summary = run(
        job(tmp_path, lambda item, result: results.update({item.name: result})),
        items(6),
        make_pool(),
    )
    assert (summary.done, summary.kept, summary.failed) == (6, 0, {})
    assert results == {str(k): k**2 for k in range(6)}
    (tmp_path / "4.txt").unlink()
    again = run(job(tmp_path), items(6), make_pool())
    assert (again.done, again.kept) == (1, 5)


@pools
def test_an_item_that_fails_is_named_and_the_others_are_done(make_pool, tmp_path):
    seen = []
    summary = run(
        job(tmp_path),
        items(5, _1="raises", _3="bad"),
        make_pool(),
        lambda so_far: seen.append(so_far.done + len(so_far.failed)),
    )
    assert summary.done == 3
    assert summary.failed == {
        "1": "RuntimeError('1 is odd')",
        "3": "the number is 3; it must be even",
    }
    assert seen == [1, 2, 3, 4, 5]


@pools
def test_a_full_disk_ends_the_run_and_says_so(make_pool, tmp_path):
    with pytest.raises(OSError, match=r"the disk is full; .* the same command again"):
        run(job(tmp_path), items(50, _1="full"), make_pool())
    assert len(list(tmp_path.glob("*.txt"))) < 10


@pools
def test_a_worker_that_cannot_be_made_ends_the_run_with_its_reason(make_pool):
    with pytest.raises(ValueError, match="the model 'x' is unknown"):
        run(Job(make_nothing), items(3), make_pool())


@pools
def test_without_items_no_worker_is_made(make_pool):
    assert run(Job(make_nothing), [], make_pool()).done == 0


@others
def test_an_item_whose_worker_dies_is_given_to_another_one(make_pool, tmp_path):
    summary = run(job(tmp_path), items(6, _2="dies once", _4="dies"), make_pool())
    assert summary.done == 5
    assert list(summary.failed) == ["4"]
    assert "its worker" in summary.failed["4"]
    assert (tmp_path / "2.txt").read_text() == "4"


def test_processes_that_die_while_they_start_end_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"die while they start \(SIGKILL\)"):
        run(Job(partial(make_once, tmp_path)), items(3, _0="dies"), Processes(1))


def test_items_that_cannot_be_listed_leave_no_traceback_of_a_worker(tmp_path, capfd):
    def some():
        yield from items(2)
        raise ValueError("line 3 of the file")

    with pytest.raises(ValueError, match="line 3"):
        run(job(tmp_path, wait=0.5), some(), Processes(2))
    assert "Traceback" not in capfd.readouterr().err


def test_how_a_process_died_is_said(tmp_path):
    summary = run(job(tmp_path), items(2, _1="dies"), Processes(1))
    assert summary.failed == {"1": "its worker process died (SIGKILL)"}


@others
def test_the_workers_work_at_the_same_time(make_pool, tmp_path):
    run(job(tmp_path, wait=0.3), items(16), make_pool())
    assert len(list(tmp_path.glob("worker_*"))) == 2


def test_items_are_taken_as_workers_become_free(tmp_path):
    """A hundred thousand items are not listed, nor kept."""
    ahead, done = 0, 0

    def numbers():
        nonlocal ahead
        for k in range(20_000):
            ahead = max(ahead, k - done)
            yield Item(str(k), k)

    def finished(item, result):
        nonlocal done
        done += 1

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    summary = run(Job(lambda: lambda work: work, finished=finished), numbers(), InProcess())
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary.done == 20_000
    assert ahead <= 1
    assert peak - before < 500_000
    assert after - before < 100_000


def test_a_bad_number_of_jobs_is_named():
    with pytest.raises(ValueError, match="jobs is 0; it must be at least 1"):
        Processes(0)


def test_an_interrupt_leaves_no_process_behind(tmp_path):
    program = (
        "import signal; from pathlib import Path; from functools import partial\n"
        # A shell without job control (`make test > log &` in a script) has its background jobs, and all that
        # they start, ignore SIGINT; Python leaves it so.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sap_ros.jobs.local import Processes; from sap_ros.jobs.run import Item, Job, run\n"
        "from square_workers import make_writer\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "if __name__ == '__main__':\n"
        "    run(Job(partial(make_writer, folder, 0.2)), [Item(str(k), (k, '')) for k in range(500)], Processes(2))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("*.txt"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    workers = [int(path.name.split("_")[1]) for path in tmp_path.glob("worker_*")]
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


_COUNTS = """
import sys, time
from pathlib import Path
from sap_ros.jobs.local import InProcess
from sap_ros.jobs.run import Item, Job, run
folder, kind = Path(sys.argv[1]), sys.argv[2]

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

if kind == "dataset":
    from sap_ros.evaluation.datasets import read_dataset as read
    path = folder
else:
    from sap_ros.cli.segment_folder import SegmentSettings, segment_items as read, segment_job
    path = folder / f"prompts.{kind}"
    settings = SegmentSettings("", None, "", "", "", "", None, 0)
before, began = held(), time.perf_counter()
items = iter(read(path))
next(items)
first, done, most = time.perf_counter() - began, [], before
if kind == "dataset":
    count = 1 + sum(1 for _ in items)
else:
    def finished(item, result):
        global most
        job.finished(item, result)
        done.append(1)
        if len(done) % 1000 == 0:
            most = max(most, held())
    with segment_job(folder, path, folder / "out", settings) as job:
        summary = run(Job(lambda: lambda work: None, job.is_done, finished), read(path), InProcess())
    assert len(done) == (50_000 if "again" in sys.argv else 100_000)
    count = summary.done + summary.kept
print(count, first, max(most, held()) - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "megabytes"), [("csv", 30), ("jsonl", 30), ("csv again", 30), ("dataset", 250)]
)
def test_a_hundred_thousand_pictures_start_within_seconds(tmp_path, kind, megabytes):
    """And memory stays flat: the names of the pictures are held, 0.1 kB each, and of a data set its index."""
    count = 100_000
    kind, _, again = kind.partition(" ")
    if kind == "dataset":
        for name in ("images", "instances"):
            (tmp_path / name).mkdir()
        for k in range(count):
            (tmp_path / "images" / f"{k:06d}.jpg").touch()
            (tmp_path / "instances" / f"{k:06d}.png").touch()
    with (tmp_path / f"prompts.{kind}").open("w") as file:
        if kind == "csv":
            file.write("picture,u,v\n")
        for k in range(count):
            text = (
                f"{k:06d}.jpg,1,2"
                if kind == "csv"
                else (f'{{"picture": "{k:06d}.jpg", "objects": [{{"points": [[1, 2]]}}]}}')
            )
            file.write(text + "\n")
    if again:  # half of them are done
        item = next(segment_items(tmp_path / f"prompts.{kind}"))
        key = SegmentSettings("", None, "", "", "", "", None, 0).of(item.work.objects)
        (tmp_path / "out" / "objects").mkdir(parents=True)
        with (tmp_path / "out" / "done.jsonl").open("w") as record:
            for k in range(0, count, 2):
                (tmp_path / "out" / "objects" / f"{k:06d}.jpg.json").touch()
                record.write(json.dumps([f"{k:06d}.jpg", key]) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", _COUNTS, str(tmp_path), kind, again],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, first, held = map(float, done.stdout.split())
    assert found == count
    assert first < 30  # on a busy machine
    assert held < megabytes


# A cluster of two nodes


@contextmanager
def two_nodes():
    """A Ray cluster of two nodes on this machine, with one CPU each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        yield cluster, other
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_is_lost_loses_nothing(tmp_path):
    from sap_ros.jobs.cluster import RayPool

    sys.modules["ray"].shutdown() if "ray" in sys.modules else None
    with two_nodes() as (cluster, other):

        def lose():
            while len(list(tmp_path.glob("*.txt"))) < 4:
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)

        losing = threading.Thread(target=lose)
        losing.start()
        summary = run(job(tmp_path, wait=0.3), items(20), RayPool(cluster.address))
        losing.join()
    assert (summary.done, summary.failed) == (20, {})
    assert len(list(tmp_path.glob("worker_*"))) >= 2


def sap(*arguments):
    command = [sys.executable, "-m", "sap_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_twenty_bags_over_two_nodes_are_those_of_one_process(tmp_path):
    """One of the nodes is killed half-way."""
    pytest.importorskip("rosbags")
    scenes, bags = tmp_path / "scenes", []
    made = sap("synth", "moving", "--out", scenes, "--count", 20, "--width", 512, "--frames", 2)
    assert made.returncode == 0, made.stderr
    for pictures in sorted((scenes / "JPEGImages").iterdir()):
        bags.append(tmp_path / "bags" / pictures.name)
        bag = sap("bag", pictures, "--out", bags[-1], "--rate", 4)
        assert bag.returncode == 0, bag.stderr
    point = ("--point", "256,150")
    one, many = tmp_path / "one", tmp_path / "many"
    done = sap("replay", *bags, *point, "--out", one)
    assert done.returncode == 0, done.stderr

    def finished():
        return [path for path in many.glob("[!.]*") if path.is_dir()]

    sys.modules["ray"].shutdown() if "ray" in sys.modules else None
    with two_nodes() as (cluster, other):

        def lose():
            while len(finished()) < 8:
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)

        losing = threading.Thread(target=lose)
        losing.start()
        done = sap("replay", *bags, *point, "--out", many, "--ray", cluster.address, "--jobs", 0)
        losing.join()
    assert done.returncode == 0, done.stderr
    for bag in bags:
        (expected,), (found,) = (
            list((folder / bag.name / "bag").glob("*.mcap")) for folder in (one, many)
        )
        assert found.read_bytes() == expected.read_bytes()
