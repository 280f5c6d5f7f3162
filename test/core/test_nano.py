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


def test_of_two_candidates_with_one_prediction_the_stable_one_is_taken(sam):
    vague, sharp = torch.full((64, 64), -0.5), torch.full((64, 64), -8.0)
    vague[20:40, 20:40], sharp[20:40, 20:40] = 0.5, 8.0
    masks = torch.stack([vague, sharp])[None]
    expected = sam.expected_ious(masks, torch.tensor([[0.7, 0.7]]))
    assert expected[0].tolist() == pytest.approx([2 * 0.7 / 3, (2 * 0.7 + 1) / 3])
    empty = sam.expected_ious(torch.full((1, 1, 64, 64), -1024.0), torch.tensor([[0.6]]))
    assert empty.item() == pytest.approx(0.4)


def test_a_mask_over_all_of_a_large_view_is_stable_in_float16(sam):
    whole = torch.full((1, 1, 256, 256), 8.0, dtype=torch.float16)
    expected = sam.expected_ious(whole, torch.tensor([[0.7]], dtype=torch.float16))
    assert expected.dtype == torch.float16
    assert expected.item() == pytest.approx((2 * 0.7 + 1) / 3, abs=1e-3)


def test_training_sees_the_predicted_ious_themselves(sam):
    decoder = sam.sam_mask_decoder
    embeddings = {
        "image_embeddings": torch.randn(1, 256, 8, 8),
        "image_pe": sam.sam_prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": torch.randn(1, 2, 256),
        "dense_prompt_embeddings": torch.randn(1, 256, 8, 8),
        "multimask_output": True,
        "repeat_image": False,
        "high_res_features": [torch.randn(1, 32, 32, 32), torch.randn(1, 64, 16, 16)],
    }
    with torch.no_grad():
        _, predicted, *_ = decoder.train()(**embeddings)
        masks, averaged, *_ = decoder.eval()(**embeddings)
    assert torch.equal(averaged, sam.expected_ious(masks, predicted))
    assert not torch.equal(averaged, predicted)
