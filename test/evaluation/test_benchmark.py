"""The benchmark, on panoramas of plain disks and the shipped model."""

import numpy as np
import pytest

from sap_ros.core.loading import load_model
from sap_ros.core.scan import Scan
from sap_ros.evaluation.benchmark import Method, evaluate, mask_path, read_records
from sap_ros.evaluation.summary import interval, summarize

DIRECT = Method("nano", "direct")


@pytest.fixture(scope="module")
def model():
    return load_model("sap-nano")


def told(records):
    return sorted((r.panorama, s.instance, s.clicks, s.iou) for r in records for s in r.scores)


def test_objects_are_clicked_and_scored_and_a_killed_run_goes_on(model, samples, tmp_path):
    results = tmp_path / "scores.jsonl"
    whole = evaluate(model, DIRECT, [1, 3], samples, results)
    assert len(told(whole)) == 2 * 2 * 2
    first, third = summarize(whole)
    assert (first.clicks, third.clicks) == (1, 3)
    assert first.iou > 0.5
    assert first.interval[0] <= first.iou <= first.interval[1]
    assert first.views == 1
    assert first.seconds > 0
    text = results.read_text()
    results.write_text(text[: text.rindex("{")])  # killed while the second panorama was written
    visited = []
    again = evaluate(model, DIRECT, [1, 3], samples, results, progress=lambda: visited.append(1))
    assert len(visited) == 2
    assert told(again) == told(whole) == told(read_records([results, results]))


def test_a_row_counts_only_panoramas_that_were_given_so_many_clicks(model, samples, tmp_path):
    results = tmp_path / "scores.jsonl"
    evaluate(model, DIRECT, [1], samples, results)
    evaluate(model, DIRECT, [1, 3], samples[:1], results)
    first, third = summarize(read_records([results]))
    assert (first.clicks, first.panoramas) == (1, 2)
    assert (third.clicks, third.panoramas) == (3, 1)


def test_a_method_is_evaluated_as_it_says(model, samples, tmp_path):
    results = tmp_path / "scores.jsonl"
    scan = evaluate(model, Method("nano", overlap=0.0), [1], samples[:1], results)
    assert scan[0].views == len(Scan(overlap=0.0)) == 12
    box = evaluate(model, Method("nano", prompt="box"), [1], samples[:1], results)
    assert {s.clicks for s in box[0].scores} == {0}
    mask = evaluate(model, Method("nano", prompt="mask"), [1], samples[:1], results)
    assert min(s.iou for s in mask[0].scores) > 0.8
    assert len(read_records([results])) == 3


def test_masks_are_kept_and_places_are_told(model, samples, tmp_path):
    masks = tmp_path / "masks"
    (record,) = evaluate(model, DIRECT, [1], samples[:1], tmp_path / "scores.jsonl", masks)
    assert mask_path(masks, DIRECT, "0", 1, 1).exists()
    assert [s.seam for s in record.scores] == [False, True]
    (row,) = summarize([record])
    assert row.small is None
    assert row.medium == row.iou
    assert row.seam_or_pole == record.scores[1].iou


def test_an_interval_draws_panoramas_and_not_objects():
    alike = interval([[0.2] * 50, [0.8] * 50])
    assert alike == pytest.approx((0.2, 0.8))
    many = interval([[v] for v in np.linspace(0, 1, 400)])
    assert 0.44 < many[0] < 0.5 < many[1] < 0.56
