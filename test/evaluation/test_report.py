"""The report: one file that needs no other, with the table and pictures."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from sap_ros.evaluation.benchmark import Method, Record, Score, evaluate
from sap_ros.evaluation.report import _MISSED, _RIGHT, name_of, write_report, write_results
from sap_ros.evaluation.summary import summarize


def test_the_report_has_everything_in_it(random_model, samples, tmp_path):
    masks, records = tmp_path / "masks", []
    for method in (Method("random", "direct"), Method("random", "direct", fusion="max")):
        records += evaluate(random_model, method, [1], samples, tmp_path / "s.jsonl", masks)
    rows = summarize(records)
    path = tmp_path / "report.html"
    write_report(path, "disks", rows, records, {s.name: s for s in samples}, masks)
    text = path.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert text.count("data:image/jpeg") == 2 * 4  # four objects, each method
    assert text.count("data:image/png") == 2
    # Each picture shows the object in its middle: the disk's colour, half tinted as found or missed.
    disks_are, tints = {"1": (40, 160, 40), "2": (40, 60, 200)}, (_RIGHT, _MISSED)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)\".*?object (\d)", text, re.DOTALL)
    assert sorted(i for _, i in pictures) == ["1", "1", "1", "1", "2", "2", "2", "2"]
    for data, i in pictures:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        middle = picture[picture.shape[0] // 2, picture.shape[1] // 2, ::-1].astype(int)
        expected = [(np.array(disks_are[i]) + tint) / 2 for tint in tints]
        assert min(np.abs(middle - colour).max() for colour in expected) < 8
    assert f"{rows[0].iou:.3f}" in text
    assert "random + direct, fusion max" in text
    write_results(tmp_path / "results.json", "disks", rows)
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["rows"][1]["method"]["fusion"] == "max"
    assert told["rows"][0]["objects"] == 4


def test_without_the_panoramas_it_says_so(tmp_path):
    score = Score(1, 1, "small", False, False, 0.5, 0.5, 0.5)
    record = Record(Method("a"), "p", 24, 1.0, None, (score,))
    path = tmp_path / "report.html"
    write_report(path, "elsewhere", summarize([record]), [record], {}, tmp_path)
    assert "there are no pictures" in path.read_text()


def test_a_row_is_named_by_what_differs():
    assert name_of(Method("nano")) == "nano + scan"
    assert (
        name_of(Method("nano", overlap=0.0, prompt="box")) == "nano + scan, prompt box, overlap 0.0"
    )
