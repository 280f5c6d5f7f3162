"""Each published layout, as a small tree with its names and formats."""

import csv

import cv2
import numpy as np
import pytest
from PIL import Image

from sap_ros.core import sphere
from sap_ros.evaluation.datasets import read_dataset, read_labels, read_sequences

PLACES = [sphere.angles_to_direction(a, 0.2) for a in (0.5, -1.5)]
COLOURS = {1: (128, 0, 0), 2: (0, 128, 0)}


def _picture(path, image, size=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize(size or image.shape[1::-1]).save(path)


def _colours(path, labels, size=None):
    painted = np.zeros((*labels.shape, 3), np.uint8)
    for i, colour in COLOURS.items():
        painted[labels == i] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(painted)
    image.resize(size or image.size, Image.Resampling.NEAREST).save(path)


def _plain(folder, image, labels):
    _picture(folder / "office.jpg", image)
    _picture(folder / "office_instances.png", labels)
    _picture(folder / "unlabelled.jpg", image)


def _own(folder, image, labels):
    _picture(folder / "images" / "a.jpg", image)
    _picture(folder / "instances" / "a.png", labels)


def _synth(folder, image, labels):
    _own(folder, image, labels)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "panorama",
                "id",
                "name",
                "size",
                "azimuth_deg",
                "elevation_deg",
                "solid_angle_sr",
                "seam",
                "pole",
            ]
        )
        writer.writerow(["a", 1, "", "medium", 0, 0, 0.2, 0, 0])
        writer.writerow(["a", 2, "", "medium", 0, 0, 0.2, 0, 0])


def _hunyuanworld(folder, image, labels):
    _picture(folder / "case7" / "panorama.png", image)
    _picture(folder / "case7" / "sky_image.png", image)
    _picture(folder / "case7" / "instances.png", labels)


def _pavs10k(folder, image, labels):
    for k in (0, 6):
        # Some of its videos cover the sphere in another ratio than 2:1.
        _picture(folder / "frame_key" / "_-72f3ayGhMEA_1" / f"{k:05d}.png", image, (512, 272))
        _colours(folder / "DATA" / "test" / "_-72f3ayGhMEA_1" / f"{k:05d}.png", labels, (512, 272))
    _picture(folder / "frame_key" / "_-72f3ayGhMEA_1" / "00001.png", image)


def _360vos(folder, image, labels):
    palette = [0, 0, 0, *COLOURS[1], *COLOURS[2]]
    for k in range(2):
        _picture(folder / "006" / "image" / f"{k:06d}.jpg", image)
        ids = Image.fromarray(labels.astype(np.uint8), "P")
        ids.putpalette(palette)
        (folder / "006" / "mask").mkdir(parents=True, exist_ok=True)
        ids.save(folder / "006" / "mask" / f"{k:06d}.png")


def _davis(folder, image, labels):
    for k in range(2):
        _picture(folder / "JPEGImages" / "walk" / f"{k:05d}.jpg", image)
        _picture(folder / "Annotations" / "walk" / f"{k:05d}.png", labels.astype(np.uint8))


LAYOUTS = {
    "sap": _synth, "plain": _plain, "hunyuanworld": _hunyuanworld, "pavs10k": _pavs10k,
    "360vos": _360vos, "davis": _davis,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_known_and_read(layout, tmp_path, disks):
    image, labels = disks(PLACES)
    LAYOUTS[layout](tmp_path, image, labels)
    samples = read_dataset(tmp_path)
    assert len(samples) == (2 if layout in ("pavs10k", "360vos", "davis") else 1)
    assert len({sample.name for sample in samples}) == len(samples)
    sample = samples[0]
    assert sample.image().shape == image.shape
    for i in (1, 2):  # JPEG and resizing change noise and borders, not the colours within
        found, true = (np.median(x[labels == i], axis=0) for x in (sample.image(), image))
        np.testing.assert_allclose(found, true, atol=8)
    assert [t.instance_id for t in sample.instances] == [1, 2]
    for i in (1, 2):
        found, true = sample.labels() == i, labels == i
        assert (found & true).sum() / (found | true).sum() > 0.95
    assert read_dataset(tmp_path, layout)[0] == sample
    other = "plain" if layout != "plain" else "davis"
    if not (layout == "sap" and other == "plain"):
        with pytest.raises(ValueError, match=f"is not laid out as {other}"):
            read_dataset(tmp_path, other)


def test_a_folder_with_images_and_instances_needs_no_index(tmp_path, disks):
    _own(tmp_path, *disks(PLACES))
    (sample,) = read_dataset(tmp_path)
    assert [t.size for t in sample.instances] == ["medium", "medium"]


def test_sequences_keep_their_frames_in_order(tmp_path, disks):
    _davis(tmp_path, *disks(PLACES))
    (video,) = read_sequences(tmp_path)
    assert [frame.name for frame in video.frames] == ["walk-00000", "walk-00001"]
    (tmp_path / "stills").mkdir()
    _plain(tmp_path / "stills", *disks(PLACES))
    with pytest.raises(ValueError, match="not videos"):
        read_sequences(tmp_path / "stills")


def test_what_is_missing_is_said_with_where_it_is_obtained(tmp_path):
    with pytest.raises(ValueError, match=r"none of the layouts.*github.com/PanoAsh/PAV-SOD"):
        read_dataset(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must be one of sap"):
        read_dataset(tmp_path, "coco")
    (tmp_path / "case1").mkdir()
    cv2.imwrite(str(tmp_path / "case1" / "panorama.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="none are published"):
        read_dataset(tmp_path)


def test_any_colour_is_an_instance_and_always_the_same(tmp_path):
    image = np.zeros((8, 16, 3), np.uint8)
    image[0, :4], image[1, :4], image[2, :4] = (216, 0, 0), (128, 0, 128), (10, 200, 30)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(image[::-1])).save(tmp_path / "b.png")
    first, second = read_labels(tmp_path / "a.png"), read_labels(tmp_path / "b.png")
    assert (first[::-1] == second).all()
    assert len(np.unique(first)) == 4
    assert first[1, 0] == 5  # the palette's fifth colour
    assert first[0, 0] > 255
    assert first[2, 0] > 255
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"c\.png cannot be read"):
        read_labels(tmp_path / "c.png")


def test_similar_colours_are_different_instances(tmp_path):
    """Also through the panorama's own size, and colours that are numbers of an id of 16 bits."""
    colours = [(10, 20, 30), (12, 20, 30), (10, 21, 30), (10, 20, 31), (0, 0, 9), (0, 1, 0)]
    image = np.zeros((256, 512, 3), np.uint8)
    for i, colour in enumerate(colours):
        image[10 * i : 10 * i + 10] = colour
    Image.fromarray(image).resize((1024, 512), Image.Resampling.NEAREST).save(tmp_path / "a.jpg")
    Image.fromarray(image).save(tmp_path / "a_instances.png")
    ids = read_labels(tmp_path / "a_instances.png")[5 : 10 * len(colours) : 10, 0]
    assert len(set(ids.tolist())) == len(colours)
    (sample,) = read_dataset(tmp_path)
    assert set(np.unique(sample.labels())) == {0, *ids.tolist()}
    assert [truth.instance_id for truth in sample.instances] == sorted(ids.tolist())


def test_pictures_that_are_too_large_are_not_decoded(tmp_path):
    Image.new("L", (20000, 10000)).save(tmp_path / "a.png")
    Image.new("L", (64, 32)).save(tmp_path / "a_instances.png")
    (sample,) = read_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png is 20000x10000"):
        sample.image()
    with pytest.raises(ValueError, match=r"a\.png is 20000x10000"):
        read_labels(tmp_path / "a.png")
