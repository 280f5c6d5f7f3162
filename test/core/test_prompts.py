"""prompts: what is taken, what is refused and how it is said."""

import numpy as np
import pytest

from sap_ros.core import sphere
from sap_ros.core.prompts import Prompt, box_angles, box_outline, from_pixels

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
        ([(20, 20)], [1, 1], r"labels \(2,\)"),
        ([], None, "no positive point"),
        ([(1, 2, 3)], None, r"\(1, 3\)"),
    ],
)
def test_bad_points_are_named(pixels, labels, named):
    with pytest.raises(ValueError, match=named):
        from_pixels(1, pixels, SIZE, labels)


def test_points_off_an_object_alone_are_a_correction_and_no_beginning():
    off = from_pixels(1, [(20, 20)], SIZE, [0])
    assert not off.complete
    with pytest.raises(ValueError, match="object 1 has no positive point"):
        _ = off.anchor
    both = from_pixels(1, [(99, 99)], SIZE).extended(off)
    assert both.complete
    assert both.labels.tolist() == [1, 0]


@pytest.mark.parametrize("object_id", [0, -3, 255, 65535, 70000])
def test_ids_that_label_images_cannot_hold_are_refused(object_id):
    with pytest.raises(ValueError, match=str(object_id)):
        Prompt(object_id, FORWARD, np.array([1]))


def test_a_direction_needs_a_length():
    with pytest.raises(ValueError, match="no length"):
        Prompt(1, FORWARD * 0, np.array([1]))


def test_a_box_may_lie_across_the_seam():
    _, width, top, bottom = box_angles(from_pixels(1, [], SIZE, box=(3900, 900, 100, 1100)).box)
    assert width == pytest.approx((4096 - 3900 + 100) / 4096 * 2 * np.pi, abs=1e-4)
    assert top > 0 > bottom
    anchor = from_pixels(1, [], SIZE, box=(3900, 900, 100, 1100)).anchor
    np.testing.assert_allclose(sphere.direction_to_pixel(anchor, SIZE), [4048, 1000], atol=1)


def test_the_outline_of_a_box_lies_on_its_border():
    box = from_pixels(1, [], SIZE, box=(100, 300, 700, 900)).box
    pixels = sphere.direction_to_pixel(box_outline(box), SIZE)
    on_side = np.isclose(pixels[:, 0, None], [100, 700], atol=0.1).any(1)
    on_top = np.isclose(pixels[:, 1, None], [300, 900], atol=0.1).any(1)
    assert (on_side | on_top).all()
    np.testing.assert_allclose(pixels.min(0), [100, 300], atol=0.1)
    np.testing.assert_allclose(pixels.max(0), [700, 900], atol=0.1)


def test_a_mask_is_pointed_at_in_its_middle():
    mask = np.zeros((256, 512), np.uint8)
    mask[100:110, :5] = mask[100:110, -5:] = 7  # across the seam
    u, v = sphere.direction_to_pixel(Prompt(1, mask=mask).anchor, (512, 256))
    assert min(u, 512 - u) < 0.1
    assert v == pytest.approx(105, abs=0.1)


@pytest.mark.parametrize(
    ("box", "named"),
    [
        ((10, 20, 30), "3 values"),
        ((10, 50, 30, 20), "top is 50 and its bottom 20"),
        ((10, 20, 5000, 30), "lies outside"),
        ((10, float("nan"), 30, 40), "not finite"),
    ],
)
def test_bad_boxes_are_named(box, named):
    with pytest.raises(ValueError, match=named):
        from_pixels(1, [], SIZE, box=box)


@pytest.mark.parametrize(
    ("mask", "named"),
    [(np.zeros((256, 512)), "empty"), (np.ones((256, 256)), r"\(256, 256\)")],
)
def test_bad_masks_are_named(mask, named):
    with pytest.raises(ValueError, match=named):
        Prompt(1, mask=mask)


def test_too_many_points_are_refused():
    with pytest.raises(ValueError, match="10000 points; at most 100"):
        from_pixels(1, np.ones((10_000, 2)), SIZE)


@pytest.mark.parametrize("rows", [(120, 136), (0, 256), (100, 101)])
def test_a_mask_that_goes_all_round_has_an_anchor_on_it(rows):
    mask = np.zeros((256, 512), bool)
    mask[rows[0] : rows[1]] = True
    prompt = Prompt(1, mask=mask)
    u, v = sphere.direction_to_pixel(prompt.anchor, (512, 256)).astype(int)
    assert mask[v, u]
    assert prompt.anchor[0] > 0.8  # about straight ahead
