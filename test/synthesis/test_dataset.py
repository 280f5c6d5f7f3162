"""The format of labelled panoramas: written safely, described rightly, read back."""

import cv2
import numpy as np
import pytest

from sap_ros.camera_files import read_camera
from sap_ros.evaluation.datasets import read_dataset
from sap_ros.synthesis.dataset import COLUMNS, DatasetWriter, describe, write_index


@pytest.fixture
def labels():
    made = np.zeros((256, 512), np.uint16)
    made[100:140, 500:] = made[100:140, :20] = 3  # across the seam
    made[:6] = 700  # over the pole
    made[150:153, 200:203] = 9
    return made


def test_instances_are_described(labels):
    rows = {row["id"]: row for row in describe("a", labels, {3: "ball"})}
    assert (rows[3]["name"], rows[3]["seam"], rows[3]["pole"]) == ("ball", 1, 0)
    assert abs(rows[3]["azimuth_deg"]) == pytest.approx(177, abs=2)
    assert rows[700]["pole"] == 1
    assert rows[9]["size"] == "small"
    assert rows[9]["solid_angle_sr"] == pytest.approx(9 * (2 * np.pi / 512) ** 2, rel=0.1)


def test_what_was_written_is_read_back(labels, panorama, tmp_path):
    writer = DatasetWriter(tmp_path, {"kind": "test"})
    for name in ("b", "a"):
        writer.write(name, panorama, labels)
    (tmp_path / "images" / "b.jpg").unlink()  # killed before the image
    assert write_index(tmp_path) == 3
    assert (tmp_path / "index.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    (sample,) = read_dataset(tmp_path)
    assert sample.name == "a"
    assert np.abs(sample.image().astype(int) - panorama[..., ::-1]).mean() < 3  # written as BGR
    np.testing.assert_array_equal(sample.labels(), labels)
    assert {t.instance_id for t in sample.instances} == {3, 9, 700}


def test_a_folder_is_made_by_one_setting(tmp_path):
    DatasetWriter(tmp_path, {"kind": "test", "size": [512, 256]})
    DatasetWriter(tmp_path, {"kind": "test", "size": [512, 256]})
    with pytest.raises(ValueError, match="other settings"):
        DatasetWriter(tmp_path, {"kind": "test", "size": [1024, 512]})


def test_fisheye_pictures_lie_beside_the_panoramas_with_their_camera(labels, panorama, tmp_path):
    camera = read_camera("insta360").of_picture((256, 128))
    writer = DatasetWriter(tmp_path, {"kind": "test"}, camera)
    picture = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    writer.write("a", panorama, labels, fisheyes=picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "fisheyes" / "a.png")), picture)
    assert read_camera(tmp_path / "camera.yaml").picture_size == (256, 128)
    with pytest.raises(ValueError, match="other settings"):
        DatasetWriter(tmp_path, {"kind": "test"}, read_camera("theta_s").of_picture((256, 128)))


def test_another_folder_is_no_dataset(tmp_path):
    with pytest.raises(ValueError, match=r"index\.csv"):
        list(read_dataset(tmp_path))
