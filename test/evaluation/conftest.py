"""Labelled panoramas of plain disks, on a wall of noise."""

import cv2
import numpy as np
import pytest

from sap_ros.core import sphere
from sap_ros.evaluation.datasets import Sample


@pytest.fixture(scope="session")
def rays():
    """The direction of each pixel of a panorama, (256, 512, 3)."""
    v, u = np.mgrid[:256, :512] + 0.5
    return sphere.pixel_to_direction(np.stack([u, v], -1), (512, 256))


@pytest.fixture(scope="session")
def disks(rays):
    """Makes a panorama (256, 512, 3) RGB with a disk at each direction, and their ids (256, 512)."""

    def make(middles, radius=0.25, seed=0):
        rng = np.random.default_rng(seed)
        image = np.full((256, 512, 3), 200, np.uint8) - rng.integers(0, 20, (256, 512, 1), np.uint8)
        labels = np.zeros((256, 512), np.uint16)
        colours = [(220, 60, 30), (40, 160, 40), (40, 60, 200)]
        for i, middle in enumerate(middles, 1):
            mask = rays @ middle > np.cos(radius)
            image[mask], labels[mask] = colours[i % 3], i
        return image, labels

    return make


@pytest.fixture
def samples(tmp_path, disks):
    """Two panoramas with two disks each, one of them across the seam."""
    (tmp_path / "set").mkdir()
    places = [sphere.angles_to_direction(a, 0.1) for a in (1.0, np.pi)]
    found = []
    for k in range(2):
        image, labels = disks(places, seed=k)
        picture, ids = (tmp_path / "set" / f"{k}{end}" for end in (".png", "_instances.png"))
        cv2.imwrite(str(picture), image[..., ::-1])
        cv2.imwrite(str(ids), labels)
        found.append(Sample(str(k), picture, ids))
    return found
