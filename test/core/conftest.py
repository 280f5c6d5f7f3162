"""A network with random weights."""

import pytest
import torch


def _randomised(sam):
    """A network with random weights, each of which has a part in its answers; objects are in every view."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sam.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=random)
            elif value.is_floating_point() and "gaussian_matrix" not in name:
                value += 0.02 * torch.randn(value.shape, generator=random)
            if name.endswith("gamma"):  # the memory encoder's layer scale is 1e-6 otherwise
                value.uniform_(0.5, 1.5, generator=random)
            if name.startswith("memory_attention") and name.endswith(
                ("q_proj.weight", "k_proj.weight")
            ):
                value *= 4  # or all that is remembered would be attended to alike
        sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
    return sam.eval()


@pytest.fixture(scope="session")
def randomised():
    return _randomised
