"""composite: objects pasted on the sphere, with exact masks."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.instances import measure

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

from sap_ros.files import read_panorama
from sap_ros.synthesis.composite import CutOuts, Patch, composite_writer, paste

DISK = np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 64
COLOUR = (220, 150, 100)
PATCH = Patch(np.full((128, 128, 3), COLOUR, np.uint8), DISK.astype(np.float32))


@given(
    st.floats(-np.pi, np.pi),
    st.floats(-np.pi / 2, np.pi / 2),
    st.floats(0.1, 1.2),
    st.floats(-3, 3),
)
@settings(max_examples=30)
def test_a_pasted_disk_is_a_cap_of_the_asked_size_anywhere(azimuth, elevation, half, roll):
    panorama, instances = np.zeros((512, 1024, 3), np.uint8), np.zeros((512, 1024), np.uint16)
    centre = sphere.angles_to_direction(azimuth, elevation)
    paste(panorama, instances, PATCH, centre, half, roll, 5)
    found = measure(instances == 5, 5, 1.0)
    assert np.degrees(sphere.angle_between(found.direction, centre)) < 0.5
    assert found.solid_angle == pytest.approx(2 * np.pi * (1 - np.cos(half)), rel=0.05)
    inside = cv2.erode((instances == 5).astype(np.uint8), np.ones((9, 9))) > 0
    assert (panorama[instances == 5] > 45).all()  # at its rim half of it, over black
    np.testing.assert_allclose(np.median(panorama[inside], axis=0), COLOUR, atol=2)
    assert not panorama[
        cv2.dilate((instances == 5).astype(np.uint8), np.ones((9, 9))) == 0
    ].any() or (
        found.azimuth_width > 6  # round a pole or across the seam the dilation does not follow
        or abs(found.azimuth) + found.azimuth_width / 2 > 3.1
    )


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"sa_{i}.jpg"), rng.integers(0, 256, (120, 160, 3), np.uint8))
        mask = np.zeros((120, 160), np.uint8, order="F")
        mask[20:80, 30:90] = 1
        code = coco_mask.encode(mask)
        code["counts"] = code["counts"].decode()
        annotations = {"annotations": [{"segmentation": code}] if i else []}
        (tmp_path / f"sa_{i}.json").write_text(json.dumps(annotations))
    return sorted(tmp_path.glob("*.jpg"))


def test_a_killed_run_is_continued_with_the_same_result(photographs, tmp_path, panorama):
    background = tmp_path / "room.png"
    cv2.imwrite(str(background), panorama)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = ([background], CutOuts(photographs), (512, 256))
    for folder, seeds in ((whole, (0, 1, 2, 3)), (parts, (2, 3)), (parts, (0, 1, 3))):
        write = composite_writer(folder, *arguments)
        for seed in seeds:
            write(seed)
    names = [f"{i:08d}" for i in range(4)]
    for name in names:
        for kind, suffix in (("images", "jpg"), ("instances", "png")):
            a, b = (folder / kind / f"{name}.{suffix}" for folder in (whole, parts))
            assert a.read_bytes() == b.read_bytes()
    ids = cv2.imread(str(whole / "instances" / "00000000.png"), cv2.IMREAD_UNCHANGED)
    assert ids.dtype == np.uint16
    assert ids.max() >= 1


def test_soft_composites_have_softer_rims_and_shadows_that_are_no_objects(
    photographs, panorama, tmp_path
):
    from sap_ros.synthesis import composite

    background = tmp_path / "room.png"
    cv2.imwrite(str(background), np.full_like(panorama, 180))
    cut_outs = CutOuts(photographs)
    changed = {False: 0, True: 0}
    for seed in range(6):
        for soft in changed:
            rng = np.random.default_rng(seed)
            image, ids = composite.compose(rng, [background], cut_outs, (512, 256), soft=soft)
            beyond = cv2.dilate((ids > 0).astype(np.uint8), np.ones((7, 7))) == 0
            beyond[:, :8] = beyond[:, -8:] = False  # dilation does not follow across the seam
            beyond[:40] = beyond[-40:] = False  # nor is it wide enough near a pole
            changed[soft] += int((image[beyond] < 170).any(-1).sum())
            assert ids.max() >= 1
    assert changed[False] == 0
    assert changed[True] > 500


def test_photographs_of_several_folders_are_those_of_their_splits(photographs, tmp_path):
    from sap_ros.synthesis.composite import find_photographs

    index = tmp_path / "index.csv"
    index.write_text("name,split\nsa_0,train\nsa_1,val\nsa_2,train\n")
    assert [p.stem for p in find_photographs([tmp_path], [index], "train")] == ["sa_0", "sa_2"]
    assert len(find_photographs([tmp_path, tmp_path])) == 6
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no"):
        find_photographs([tmp_path, tmp_path / "empty"])


def test_photographs_whose_source_is_left_out_are_not_cut_out(photographs, tmp_path):
    from sap_ros.synthesis.composite import find_photographs

    index = tmp_path / "index.csv"
    index.write_text(
        "name,split,source\nsa_0,train,bsds:1\nsa_1,train,coco:7:license4\n"
        "sa_2,train,coco:8:license2\n"
    )
    kept = find_photographs([tmp_path], [index], "train", "bsds|license[123]$")
    assert [path.stem for path in kept] == ["sa_1"]
    assert len(find_photographs([tmp_path], [index], "train")) == 3


def test_colours_of_backgrounds_and_photographs_keep_their_channels(photographs, tmp_path):
    """A red object on a blue wall, whatever else is done to their colours."""
    for path in photographs:
        cv2.imwrite(str(path), np.full((120, 160, 3), (30, 30, 220), np.uint8))
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((256, 512, 3), (200, 60, 60), np.uint8))
    out = tmp_path / "out"
    write = composite_writer(out, [tmp_path / "wall.png"], CutOuts(photographs), (512, 256))
    for seed in range(2):
        write(seed)
    for path in sorted((out / "images").iterdir()):
        image = read_panorama(path)
        ids = cv2.imread(str(out / "instances" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        inside = cv2.erode((ids > 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert inside.any()
        red, _, blue = np.median(image[inside], axis=0)
        assert red > blue + 40
        red, _, blue = np.median(image[ids == 0], axis=0)
        assert blue > red + 40


def test_a_background_keeps_its_own_resolution(photographs, tmp_path):
    stripes = np.zeros((2048, 4096, 3), np.uint8)
    stripes[:, ::2] = 200
    cv2.imwrite(str(tmp_path / "stripes.png"), stripes)
    out = tmp_path / "out"
    composite_writer(out, [tmp_path / "stripes.png"], CutOuts(photographs), (4096, 2048))(0)
    image = read_panorama(out / "images" / "00000000.jpg").astype(int)
    ids = cv2.imread(str(out / "instances" / "00000000.png"), cv2.IMREAD_UNCHANGED)
    steps = np.abs(np.diff(image[..., 0], axis=1))[(ids == 0)[:, 1:] & (ids == 0)[:, :-1]]
    assert np.median(steps) > 100
