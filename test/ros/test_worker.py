"""worker: the thread that drives the engine; no ROS is needed for it."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip("rclpy")  # the package of the node needs it elsewhere

from sap_ros.core.session import PanoramaSession
from sap_ros.engine.engine import Engine
from sap_ros.engine.events import Cloud, Image, PromptGiven, Remove, Reset, Settings
from sap_ros.node.worker import Worker

SECOND = 10**9


def _image(panorama, seconds):
    return Image((512, 256), lambda: panorama, seconds * SECOND, "camera")


def _click(u, v, **fields):
    return PromptGiven(points=np.array([[u, v, 0.0]]), **fields)


def _until(ready, seconds=30.0):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def start(random_model):
    workers = []

    def make(wanted=lambda engine: True, strategy="direct"):
        heard = {"answers": [], "problems": [], "labels": []}

        def make_engine(interrupted):
            session = PanoramaSession(random_model, strategy)
            return Engine(session, Settings(), interrupted=interrupted)

        worker = Worker(
            make_engine,
            heard["answers"].append,
            heard["problems"].append,
            heard["labels"].append,
            wanted,
        )
        workers.append(worker)
        return worker, heard

    yield make
    for worker in workers:
        worker.stop()


def test_labels_are_told_whenever_they_change(start, panorama):
    worker, heard = start()
    worker.put(_image(panorama, 1))
    worker.put(_click(300, 120, label="door"))
    _until(lambda: heard["labels"] == [{1: "door"}])
    worker.put(_click(100, 60))
    _until(lambda: heard["labels"][-1] == {1: "door", 2: ""})
    worker.put(Remove(1))
    _until(lambda: heard["labels"][-1] == {2: ""})
    worker.put(_click(900, 5))  # rejected: no label
    worker.put(Reset())
    _until(lambda: heard["labels"][-1] == {})
    assert len(heard["labels"]) == 4


def test_prompts_are_accepted_while_nobody_listens(start, panorama):
    worker, heard = start(wanted=lambda engine: False)
    accepted: Future[int] = Future()
    worker.put(_image(panorama, 1))
    worker.put(_click(300, 120, accepted=accepted))
    assert accepted.result(30) == 1
    assert not heard["answers"]


def test_what_is_queued_is_bounded(start, panorama):
    hold = threading.Event()
    worker, _ = start(wanted=lambda engine: hold.wait(30) and False)
    worker.put(_image(panorama, 1))
    time.sleep(0.1)  # it is held up, as by a long piece of work
    for k in range(1000):
        worker.put(Cloud(lambda: np.zeros((0, 3)), k, "lidar"))
        worker.put(_image(panorama, 2 + k))
    prompts = [Future() for _ in range(300)]
    for future in prompts:
        worker.put(_click(5, 5, accepted=future))
    assert len(worker._events) <= 256 + 256 + 6
    assert "queued" in str(prompts[0].exception(0))
    assert worker.dropped >= 990
    hold.set()


def test_a_stop_answers_whoever_waits(start):
    worker, _ = start()
    accepted, done = Future(), Future()
    worker.put(_click(300, 120, accepted=accepted))  # there is no image
    worker.stop()
    worker.put(Reset(done))
    for future in (accepted, done):
        assert "deactivated" in str(future.exception(5))


def test_a_failure_ends_neither_the_thread_nor_the_others_events(start, panorama):
    worker, heard = start()

    def broken():
        raise MemoryError("no room")

    worker.put(Image((512, 256), broken, SECOND, "camera"))
    _until(lambda: heard["problems"])
    worker.put(_image(panorama, 2))
    worker.put(_click(300, 120))
    _until(lambda: heard["answers"] and heard["answers"][-1].objects)


def test_a_reset_stops_work_at_the_next_view(start, panorama):
    worker, heard = start(strategy="scan")
    done: Future[int] = Future()
    worker.put(_image(panorama, 1))
    for i in range(8):
        worker.put(_click(30 + 50 * i, 120))
    worker.put(Reset(done))
    assert done.result(30) in range(9)
    _until(lambda: heard["answers"] and heard["answers"][-1].changed)
    assert not any(o.object_id for o in heard["answers"][-1].objects)
    assert heard["answers"][-1].encoded < 24 * 8
