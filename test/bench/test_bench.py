"""bench: goals, the stopwatch, the scenes, and the quick benchmarks themselves."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from sap_ros.bench.backends import backends
from sap_ros.bench.fleet import fleet
from sap_ros.bench.rendering import rendering
from sap_ros.bench.result import Goal, Timing, stopwatch, timed
from sap_ros.bench.scenes import clicks_on, labelled
from sap_ros.bench.sessions import reprompt
from sap_ros.bench.video import decoding
from sap_ros.cli import app


def test_a_goal_says_whether_it_is_met():
    assert Goal("time", 1.0, 1.15).met
    assert not Goal("time", 1.2, 1.15).met
    assert Goal("times faster", 30, 20, at_least=True).met
    assert Goal("times faster", None, 20, at_least=True).met is None
    assert "MISSED: time 1.2, goal <= 1.15" in str(Goal("time", 1.2, 1.15))


def test_a_stopwatch_counts_a_call_within_a_call_once(monkeypatch):
    class Thing:
        clock = 0.0

        def outer(self):
            self.clock += 1
            self.inner()

        def inner(self):
            self.clock += 10

    thing = Thing()
    monkeypatch.setattr(time, "perf_counter", lambda: thing.clock)
    with stopwatch(thing, ("outer", "inner")) as spent:
        thing.outer()
        thing.clock += 100
        thing.inner()
    assert spent[0] == 21
    assert "outer" not in vars(thing)
    assert timed(thing.inner, 3, warm=0) == Timing(10, 10, 10)


def test_a_stopwatch_counts_calls_at_the_same_time_once(monkeypatch):
    class Thing:
        clock = 0.0

        def work(self):
            meeting.wait(60)
            if meeting.wait(60) == 0:  # one of the two
                self.clock += 10
            meeting.wait(60)

    meeting, thing = threading.Barrier(2), Thing()
    monkeypatch.setattr(time, "perf_counter", lambda: thing.clock)
    with stopwatch(thing, ("work",)) as spent, ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(thing.work) for _ in range(2)]:
            done.result()
    assert spent[0] == 10


def test_scenes_have_clicks_on_all_of_their_objects():
    made = labelled(1, (512, 256), shapes=4)
    ids = np.unique(made.labels[made.labels > 0])
    assert len(ids) >= 7
    for i, (u, v) in zip(ids, clicks_on(made.labels, ids.tolist()), strict=True):
        assert made.labels[int(v), int(u)] == i


def test_rendering_keeps_a_table_a_row():
    result = rendering(repeats=1)
    share = next(goal for goal in result.goals if "memory" in goal.what)
    assert share.value == pytest.approx(1 / 8)
    assert all(value > 0 for value in result.figures.values())


def test_a_second_prompt_is_timed_against_the_first():
    from sap_ros.core.loading import load_model

    result = reprompt(load_model(image_size=64), repeats=1)
    assert set(result.figures) == {"auto", "scan"}
    assert all(seconds > 0 for taken in result.figures.values() for seconds in taken)


def test_all_codecs_are_decoded():
    pytest.importorskip("av", reason="PyAV is not installed")
    result = decoding(repeats=1, images=6, size=(256, 128))
    assert set(result.figures) == {"h264", "hevc", "av1"}
    assert all(rate > 0 for rates in result.figures.values() for rate in rates)


def test_both_backends_are_timed_by_turns():
    result = backends("sap-nano", "cpu", repeats=1, images=2)
    one, other = result.figures["torch"], result.figures["onnxruntime"]
    assert one.keys() == other.keys()
    for whole, network in [*one.values(), *other.values()]:
        assert 0 < network <= whole
    assert result.figures["least_iou"] >= 0.999


def test_workers_are_measured_with_and_without_work():
    result = fleet(pictures=2, passed=20, many=2000)
    assert all(rate > 0 for rate in result.figures["rates"])
    assert all(0 < seconds < 1 for seconds in result.figures["seconds_an_item"].values())
    assert set(result.figures["listed"]) == {"1000", "2000"}
    assert all(0 < held["first"] < 60 for held in result.figures["listed"].values())


def test_the_command_writes_its_figures_and_says_what_is_missing(tmp_path):
    done = CliRunner().invoke(app, ["bench", "reprompt", "--out", str(tmp_path)])
    assert done.exit_code in (0, 1)
    written = json.loads((tmp_path / "reprompt.json").read_text())
    (goal,) = written["goals"]
    assert (done.exit_code == 0) == goal["met"]
    assert done.output.strip().splitlines()[-1].startswith("all goals" if goal["met"] else "missed")
    assert (tmp_path / "bench.png").stat().st_size > 1000
    assert written["machine"]["torch"] == torch.__version__
    assert "cores" in written["machine"]["cpu"]
    with pytest.raises(ValueError, match="no benchmark 'speed'"):
        CliRunner().invoke(app, ["bench", "speed"], catch_exceptions=False)


def test_what_cannot_be_run_is_skipped_by_name_and_not_missed(tmp_path, monkeypatch):
    command = import_module("sap_ros.cli.bench")
    monkeypatch.setattr(command, "_NAMES", ("latency",))
    monkeypatch.setattr(command, "_NEEDED", {"latency": ("rclpy_that_is_not_here",)})
    done = CliRunner().invoke(app, ["bench", "all", "--out", str(tmp_path)])
    lines = " ".join(done.output.split())
    assert "torch: " in lines
    assert "latency: skipped: the Python package rclpy_that_is_not_here is missing" in lines
    assert lines.endswith(
        "all: all goals are met that were measured. Not measured: latency: skipped"
    )
    assert done.exit_code == 0
    with pytest.raises(ValueError, match="`latency` cannot be run here: the Python package rclpy_"):
        CliRunner().invoke(app, ["bench", "latency"], catch_exceptions=False)
    missed = [{"what": "time", "met": False}]
    (tmp_path / "render.json").write_text(json.dumps({"goals": missed}))
    names = ("render", "latency")
    assert command._conclude(Console(), tmp_path, names, "", {"latency": "no ROS"}) == 1
    assert command._conclude(Console(), tmp_path, names[1:], "") == 1  # it ended without a result


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured_for_one(tmp_path):
    with pytest.raises(ValueError, match="device 'cuda' cannot be used here") as caught:
        CliRunner().invoke(
            app,
            ["bench", "all", "--device", "cuda", "--out", str(tmp_path / "out")],
            catch_exceptions=False,
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
