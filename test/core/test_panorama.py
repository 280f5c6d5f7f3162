"""panorama: what is accepted as one."""

import numpy as np
import pytest

from sap_ros.core.panorama import check_panorama


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((256, 500, 3), np.uint8), "500x256"),
        (np.zeros((1, 1, 3), np.uint8), "1x1"),
        (np.zeros((128, 256, 3), np.uint8), "512x256 to 8192x4096"),
        (np.zeros((256, 512), np.uint8), r"\(256, 512\)"),
        (np.zeros((256, 512, 3), np.float32), "float32"),
    ],
)
def test_what_is_no_panorama_is_named(image, named):
    with pytest.raises(ValueError, match=named):
        check_panorama(image)
