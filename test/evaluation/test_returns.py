"""returns: what is mistaken, and how soon what was hidden is found again."""

import numpy as np
import pytest

from sap_ros.evaluation.returns import Sight, sight, visible, waits, wrong_takes

RIGHT, LOST, HIDDEN = Sight(1, 1, 0.9, 0), Sight(1, 0, 0, 0), Sight(0, 0, 0, 0)
TWIN, WALL = Sight(1, 1, 0.2, 0.8), Sight(1, 1, 0.05, 0)
TWIN_WHILE_HIDDEN = Sight(0, 1, 0, 0.9)


def test_a_sight_compares_an_answer_with_the_truth_by_solid_angle():
    labels = np.zeros((64, 128), np.int32)
    labels[30:34, 10:20], labels[30:34, 20:30], labels[2:4, 0:50] = 1, 2, 3
    answer = np.zeros(labels.shape, bool)
    answer[30:34, 12:22], answer[2:4, 0:6] = True, True
    seen = sight(answer, labels, 1)
    cell = (2 * np.pi / 128) * (np.pi / 64)
    assert seen.true == pytest.approx(40 * cell, rel=0.02)
    assert seen.shared == pytest.approx(32 * cell, rel=0.02)
    # By pixels, 3 would have more of it than 2; near the pole a pixel is small.
    assert seen.other == pytest.approx(8 * cell, rel=0.02)
    assert seen.right
    assert not seen.wrong
    assert sight(answer, labels, 9).shared == 0


def test_what_is_right_and_what_is_wrong():
    assert [each.right for each in (RIGHT, LOST, HIDDEN, TWIN, WALL)] == [True] + [False] * 4
    assert [each.wrong for each in (RIGHT, LOST, HIDDEN)] == [False] * 3
    assert [each.wrong for each in (TWIN, WALL, TWIN_WHILE_HIDDEN)] == [True] * 3
    part = Sight(1, 0.3, 0.3, 0)  # too small to be right, but on the object
    assert not part.right
    assert not part.wrong


def test_a_wrong_take_is_counted_once_however_long_it_lasts():
    assert wrong_takes([RIGHT, TWIN, TWIN, WALL, RIGHT, LOST, TWIN_WHILE_HIDDEN]) == 2
    assert wrong_takes([TWIN, TWIN]) == 1
    assert wrong_takes([RIGHT, LOST, HIDDEN]) == 0
    assert wrong_takes([]) == 0


def test_an_object_is_visible_from_a_quarter_of_its_usual_size_on():
    true = [4, 4, 4, 0.9, 0, 1.1, 4]
    assert visible([Sight(each, 0, 0, 0) for each in true]).tolist() == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip
    assert not visible([HIDDEN, HIDDEN]).any()


def test_waits_are_counted_from_when_it_is_visible_again():
    again = [RIGHT, HIDDEN, HIDDEN, LOST, LOST, RIGHT, RIGHT, RIGHT]
    assert waits(again, rate=4.0) == [0.5]
    assert waits(again, rate=2.0) == [1.0]
    assert waits([RIGHT, HIDDEN, RIGHT, RIGHT, RIGHT], rate=2.0) == [0.0]
    # Never: it is on the twin until the object is hidden again.
    assert waits([RIGHT, HIDDEN, TWIN, TWIN, TWIN, HIDDEN], rate=2.0) == [None]
    # In view for no longer than a second: not counted, found or not.
    assert waits([RIGHT, HIDDEN, LOST, LOST, HIDDEN, RIGHT, RIGHT, HIDDEN], rate=2.0) == []
    # What was not seen before does not come back.
    assert waits([HIDDEN, RIGHT, RIGHT, RIGHT, RIGHT], rate=2.0) == []
