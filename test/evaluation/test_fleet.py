"""Many replayed bags: what is kept of each while it is replayed, and their report."""

import csv
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sap_ros.core.instances import State
from sap_ros.evaluation.fleet import write_fleet_report
from sap_ros.evaluation.replay_files import ReplayFiles

pytest.importorskip("jinja2", reason="jinja2 is not installed")


def answer(stamp, **states):
    """An answer of a grey panorama with objects ``_1=(state, score)``."""
    objects = [
        SimpleNamespace(
            object_id=int(name[1:]),
            direction=np.array([1.0, 0.0, 0.0]),
            state=state,
            score=score,
            solid_angle=0.1,
            azimuth=0.0,
            elevation=0.0,
        )
        for name, (state, score) in states.items()
    ]
    picture = SimpleNamespace(
        size=(64, 32), panorama=lambda: np.full((32, 64, 3), stamp % 256, np.uint8)
    )
    labels = np.zeros((32, 64), np.uint8)
    return SimpleNamespace(
        stamp=stamp, picture=picture, instances=SimpleNamespace(objects=objects, labels=labels)
    )


def score(iou):
    return (iou, iou, iou, iou)


def test_losses_are_counted_and_the_worst_image_of_each_object_is_kept(tmp_path):
    tracked, lost, pending = State.TRACKED, State.LOST, State.PENDING
    with ReplayFiles(tmp_path, 4.0) as files:
        for k, (one, two, iou) in enumerate(
            [
                ((pending, 0.0), (tracked, 0.9), None),
                ((tracked, 0.9), (tracked, 0.8), 0.9),
                ((lost, 0.0), (tracked, 0.4), 1.0),  # rightly lost: it is hidden
                ((lost, 0.0), (tracked, 0.6), 0.2),
                ((tracked, 0.9), (lost, 0.0), 0.5),
            ]
        ):
            scores = {1: None if iou is None else score(iou), 2: None}
            files.write(k * 10**9, answer(40 * k, _1=one, _2=two), scores, 0.1)
    assert (files.lost, files.regained) == (2, 1)
    first, second = files.moments
    assert (first.object_id, first.image, first.what) == (1, 3, "IoU 0.20")
    assert first.badness == pytest.approx(0.8)
    assert (second.object_id, second.image, second.what) == (2, 4, "lost")
    shown = cv2.imread(str(tmp_path / second.picture))
    assert shown.shape == (320, 640, 3)
    assert abs(float(np.median(shown)) - 160) < 5
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert len(rows) == 10


def summary(rate, lost=0, iou=None, moments=()):
    values = {
        "images": 20, "objects": 2, "recorded_rate_hz": 4.0, "seconds_per_image": 1 / rate,
        "dropped_if_live": 0, "latency_if_live_s": 0.1, "lost": lost, "regained": 0,
    }  # fmt: skip
    if iou is not None:
        values |= {"J": iou, "F": iou}
    return {**values, "notes": [], "moments": list(moments)}


def test_the_report_shows_the_slowest_bags_first_and_the_worst_moments(tmp_path):
    moment = {
        "object_id": 3,
        "stamp": 5,
        "image": 7,
        "what": "IoU 0.10",
        "picture": "moments/3.jpg",
    }
    bags = {"fast": summary(20), "slow": summary(2, lost=3, iou=0.7)}
    for name, badness in (("fast", 0.2), ("slow", 0.9)):
        (tmp_path / name / "moments").mkdir(parents=True)
        (tmp_path / name / "moments" / "3.jpg").write_bytes(b"jpeg of " + name.encode())
        bags[name]["moments"] = [{**moment, "badness": badness}]
    bags["slow"]["notes"] = ["2 images could not be used"]
    write_fleet_report(tmp_path / "report.html", tmp_path, bags, {"gone <b>": "no such file"})
    page = (tmp_path / "report.html").read_text()
    assert page.index("<td>slow</td>") < page.index("<td>fast</td>")
    assert page.index("slow, image 7, object 3: IoU 0.10") < page.index("fast, image 7")
    assert "40 images of 2 bags; objects lost: 3" in page
    assert "mean IoU 0.700 (bags with true masks: 1)" in page
    assert "gone &lt;b&gt;: no such file" in page
    assert "slow: 2 images could not be used" in page
    assert page.count("data:image/png;base64") == 1
    assert page.count("data:image/jpeg;base64") == 2


def test_a_report_of_nothing_but_failures_is_written(tmp_path):
    write_fleet_report(tmp_path / "report.html", tmp_path, {}, {"gone": "no such file"})
    assert "gone: no such file" in (tmp_path / "report.html").read_text()
