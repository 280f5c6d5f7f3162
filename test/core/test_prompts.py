"""prompts: what is taken, what is refused and how it is said."""

import numpy as np
import pytest

from sap_ros.core.prompts import Prompt, from_pixels

SIZE = (4096, 2048)
FORWARD = np.array([[1.0, 0, 0]])


def test_pixels_become_unit_directions():
    prompt = from_pixels(3, [(2048, 1024), (1024, 1024)], SIZE, [1, 0])
    np.testing.assert_allclose(prompt.directions, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    assert prompt.labels.tolist() == [1, 0]


def test_directions_of_any_length_are_taken():
    assert np.linalg.norm(Prompt(1, FORWARD * 7, np.array([1])).directions) == pytest.approx(1)


def test_the_anchor_is_the_first_positive_point():
    prompt = from_pixels(1, [(1024, 1024), (2048, 1024)], SIZE, [0, 1])
    np.testing.assert_allclose(prompt.anchor, [1, 0, 0], atol=1e-12)


def test_more_points_come_after_the_first():
    first, more = from_pixels(1, [(9, 9)], SIZE), from_pixels(1, [(99, 99)], SIZE)
    assert first.extended(more).labels.tolist() == [1, 1]
    np.testing.assert_array_equal(first.extended(more).directions[0], first.directions[0])


@pytest.mark.parametrize(
    ("pixels", "labels", "named"),
    [
        ([(float("nan"), 5)], None, "not finite: .nan"),
        ([(float("inf"), 5)], None, "not finite: .inf"),
        ([(5000, 20)], None, r"\(5000.0, 20.0\) lies outside the panorama of 4096x2048"),
        ([(20, -1)], None, "lies outside"),
        ([(20, 20)], [2], "label is 2"),
        ([(20, 20)], [-1], "label is -1"),
        ([(20, 20)], [0], "no positive point"),
        ([(20, 20)], [1, 1], r"labels \(2,\)"),
        ([], None, "shape"),
        ([(1, 2, 3)], None, r"\(1, 3\)"),
    ],
)
def test_bad_points_are_named(pixels, labels, named):
    with pytest.raises(ValueError, match=named):
        from_pixels(1, pixels, SIZE, labels)


@pytest.mark.parametrize("object_id", [0, -3, 255, 65535, 70000])
def test_ids_that_label_images_cannot_hold_are_refused(object_id):
    with pytest.raises(ValueError, match=str(object_id)):
        Prompt(object_id, FORWARD, np.array([1]))


def test_a_direction_needs_a_length():
    with pytest.raises(ValueError, match="no length"):
        Prompt(1, FORWARD * 0, np.array([1]))
