"""The benchmark, on a panorama of plain objects and the shipped model."""

import cv2
import numpy as np
import pytest

from sap_ros.core.model import load_model
from sap_ros.evaluation.benchmark import evaluate, means, read_scores
from sap_ros.evaluation.datasets import Sample, Truth


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "instances"):
        (tmp_path / name).mkdir()
    for k in range(2):
        image = np.full((256, 512, 3), 200, np.uint8) - rng.integers(0, 20, (256, 512, 1), np.uint8)
        labels = np.zeros((256, 512), np.uint16)
        for i, (u, v) in enumerate([(120, 120), (400, 140)], 1):
            cv2.circle(image, (u, v), 24, (30, 60, 220) if i == 1 else (40, 160, 40), -1)
            cv2.circle(labels, (u, v), 24, i, -1)
        cv2.imwrite(str(tmp_path / "images" / f"{k}.jpg"), image)
        cv2.imwrite(str(tmp_path / "instances" / f"{k}.png"), labels)
    truths = tuple(Truth(i, "medium", False, False, 0.25) for i in (1, 2))
    return [Sample(str(k), tmp_path, truths) for k in range(2)]


def test_objects_are_clicked_and_scored_and_a_killed_run_goes_on(samples, tmp_path):
    model, results = load_model("sap-nano"), tmp_path / "scores.jsonl"
    whole = evaluate(model, "nano", "direct", [1, 3], samples, results)
    assert len(whole) == 2 * 2 * 2
    assert means([s for s in whole if s.clicks == 1])["all"] > 0.5
    text = results.read_text()
    results.write_text(text[: text.rindex("{")])  # killed while the second panorama was written
    visited = []
    again = evaluate(model, "nano", "direct", [1, 3], samples, results, lambda: visited.append(1))
    assert len(again) == len(whole)
    assert len(visited) == 2

    def told(scores):
        return sorted((s.panorama, s.instance, s.clicks, s.iou) for s in scores)

    assert told(again) == told(whole) == told(read_scores(results))


def test_means_are_by_size_and_place(samples, tmp_path):
    scores = evaluate(
        load_model("sap-nano"), "nano", "direct", [1], samples, tmp_path / "scores.jsonl"
    )
    found = means(scores)
    assert found["medium"] == found["all"]
    assert found["small"] is None
    assert found["seam or pole"] is None
