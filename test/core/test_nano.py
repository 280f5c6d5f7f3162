"""sap-nano's prompt map: clicks, boxes, and the mask that they correct."""

import pytest
import torch

from sap_ros.core.checkpoints import build_architecture


@pytest.fixture(scope="module")
def sam():
    return build_architecture("sap-nano", 128)


def prompt_map(sam, points, labels, mask=None):
    coords = torch.tensor([points], dtype=torch.float32)
    return sam.prompt_map(coords, torch.tensor([labels], dtype=torch.int32), mask)[0, 0]


def test_clicks_are_disks_of_their_sign_and_padding_is_nothing(sam):
    drawn = prompt_map(sam, [[34.0, 66.0], [98.0, 66.0], [2.0, 2.0]], [1, 0, -1])
    assert drawn.shape == (32, 32)
    assert drawn[16, 8] == pytest.approx(sam.CLICK, rel=0.1)
    assert drawn[16, 24] == pytest.approx(-sam.CLICK, rel=0.1)
    assert drawn[0, 0].abs() < 1e-3


def test_a_box_is_filled(sam):
    drawn = prompt_map(sam, [[32.0, 32.0], [96.0, 64.0]], [2, 3])
    assert (drawn[9:15, 9:23] == sam.BOX).all()
    assert (drawn[18:] == 0).all()


def test_a_click_stands_out_from_the_surest_mask_that_it_corrects(sam):
    wrong = torch.full((1, 1, 32, 32), 32.0)
    drawn = prompt_map(sam, [[66.0, 66.0]], [0], wrong)
    assert drawn[16, 16] < -0.8 * sam.CLICK  # negative, though the mask there is sure of the object
    assert drawn[2, 2] == pytest.approx(sam.MASK, rel=0.01)
    also = prompt_map(sam, [[66.0, 66.0]], [1], wrong)
    assert also[16, 16] > 1.5 * also[2, 2]  # positive, on the mask: still more than the mask


def test_no_mask_before_is_a_mask_of_zeros(sam):
    click = [[66.0, 66.0]], [1]
    assert torch.equal(prompt_map(sam, *click), prompt_map(sam, *click, torch.zeros(1, 1, 32, 32)))
