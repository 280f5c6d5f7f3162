"""overlay: the pictures for people."""

import numpy as np

from sap_ros.core.instances import Instances, measure
from sap_ros.core.overlay import colour, contact_sheet, draw_overlay, tint
from sap_ros.core.prompts import from_pixels


def test_masks_are_tinted_and_the_rest_is_left_alone(panorama):
    labels = np.zeros((256, 512), np.uint8)
    labels[40:90, 500:] = labels[40:90, :12] = 4
    painted = tint(panorama, labels)
    np.testing.assert_array_equal(painted[200:], panorama[200:])
    inside = (60, 505)
    expected = 0.5 * panorama[inside] + 0.5 * np.array(colour(4))
    np.testing.assert_allclose(painted[inside], expected, atol=1)


def test_prompts_and_bearings_are_drawn_everywhere(panorama):
    labels = np.zeros((256, 512), np.uint8)
    labels[:6, :] = 1  # on the pole
    labels[120:130, :4] = 2  # on the seam
    instances = Instances(labels, tuple(measure(labels == i, i, 0.5) for i in (1, 2, 3)))
    prompts = [from_pixels(2, [(0, 125), (511.9, 255.9)], (512, 256), [1, 0])]
    painted = draw_overlay(panorama, instances, prompts)
    assert painted.shape == panorama.shape
    assert (painted[110:124] != tint(panorama, labels)[110:124]).any()


def test_neighbouring_ids_have_different_colours():
    assert len({colour(i) for i in range(1, 40)}) == 39


def test_a_contact_sheet_holds_all_views(panorama):
    view, labels = panorama[:64, :64], np.ones((64, 64), np.uint16)
    sheet = contact_sheet([(view, labels, f"view {i}") for i in range(7)], columns=3, side=32)
    assert sheet.shape == (96, 96, 3)
    assert (sheet[64:, 32:] == 32).all()  # two places are left empty
