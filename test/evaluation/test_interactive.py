"""Photographs, click after click: what is asked for, where clicks fall, what is reported."""

import json

import cv2
import numpy as np
import pytest

coco_mask = pytest.importorskip("pycocotools.mask")

from sap_ros.core.loading import load_model
from sap_ros.evaluation.interactive import (
    GOAL,
    MOST_CLICKS,
    Answer,
    evaluate_photographs,
    find_photographs,
    next_click,
    read_photograph,
    table_row,
)


@pytest.fixture
def folder(tmp_path):
    """Two photographs of two plain squares each; the second is of the split val."""
    for name in ("a_0", "a_1"):
        image, annotations = np.full((120, 200, 3), 90, np.uint8), []
        for left, colour in ((20, (30, 200, 60)), (120, (200, 60, 30))):
            mask = np.zeros((120, 200), np.uint8)
            mask[30:90, left : left + 60] = 1
            image[mask > 0] = colour
            code = coco_mask.encode(np.asfortranarray(mask))
            annotations.append({"segmentation": {**code, "counts": code["counts"].decode()}})
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), image)
        (tmp_path / f"{name}.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "index.csv").write_text("name,split\na_0,train\na_1,val\n")
    return tmp_path


def test_photographs_are_those_of_the_split(folder, tmp_path):
    assert [path.stem for path in find_photographs(folder, None, "val")] == ["a_1"]
    with pytest.raises(ValueError, match="of the split 'test'"):
        find_photographs(folder, None, "test")
    (folder / "index.csv").unlink()
    assert [path.stem for path in find_photographs(folder, None, "val")] == ["a_0", "a_1"]


def test_a_photograph_is_squeezed_with_its_masks(folder):
    image, masks = read_photograph(folder / "a_0.jpg", 64, most=8)
    assert image.shape == (64, 64, 3)
    assert masks.shape == (2, 64, 64)
    middle = [mask.nonzero()[1].mean() for mask in masks]
    assert middle == pytest.approx([50 / 200 * 64, 150 / 200 * 64], abs=1)
    assert len(read_photograph(folder / "a_0.jpg", 64, most=1)[1]) == 1


def test_a_click_is_where_the_error_is_deepest():
    true, found = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    true[5:20, 5:20] = True
    (u, v), label = next_click(true, found)
    assert (u, v, label) == (12.5, 12.5, 1)
    found[5:20, 5:15] = True  # 15 x 5 are missed
    (u, v), label = next_click(true, found)
    assert true[int(v), int(u)]
    assert not found[int(v), int(u)]
    assert label == 1
    found[25:40, 0:39] = True  # much more is too much
    (u, v), label = next_click(true, found)
    assert found[int(v), int(u)]
    assert not true[int(v), int(u)]
    assert label == 0
    assert next_click(true, true)[1] == 1


def test_clicks_to_the_goal_are_counted_and_a_miss_counts_as_the_most():
    soon, never = (
        Answer("a", (0.2, GOAL, 0.9, 0.9, 0.9), 0.4, 0.5),
        Answer("b", (0.1,) * 10, 0.1, 0.3),
    )
    assert (soon.clicks_to_goal, never.clicks_to_goal) == (2, MOST_CLICKS)
    assert soon.after(3) == 0.9
    row = table_row("both", [soon, never])
    assert row["1 click"] == pytest.approx(0.15)
    assert row["best of 3"] == pytest.approx(0.25)
    assert row["NoC 0.85"] == pytest.approx(6)
    assert row["missed"] == pytest.approx(0.5)


@pytest.mark.parametrize("mask_before", [True, False])
def test_objects_are_asked_for_and_corrections_see_the_mask_before(
    folder, monkeypatch, mask_before
):
    model = load_model("sap-nano", backend="torch")  # whose heads are watched
    given = []
    heads = model.sam._forward_sam_heads

    def seen(*args, **kwargs):
        given.append((kwargs["point_inputs"]["point_labels"].shape[1], kwargs["mask_inputs"]))
        return heads(*args, **kwargs)

    monkeypatch.setattr(model.sam, "_forward_sam_heads", seen)
    answers = evaluate_photographs(model, find_photographs(folder, None, "val"), 8, mask_before)
    assert len(answers) == 2
    for answer in answers:
        assert answer.best >= answer.iou[0] > 0.5
        assert answer.box > 0.5
        assert 5 <= len(answer.iou) <= MOST_CLICKS
    clicks = given[1:]  # the box came first
    assert [count for count, _ in clicks] == list(range(1, len(clicks) + 1))
    assert clicks[0][1] is None
    assert all((mask is not None) == mask_before for _, mask in clicks[1:])
