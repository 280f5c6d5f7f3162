"""Labelling a folder: clicks, undo, what is saved, and that `sap eval` and training read it."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sap_ros.core import sphere
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.datasets import read_dataset
from sap_ros.evaluation.metrics import iou
from sap_ros.training.config import Source
from sap_ros.training.sources import open_source
from sap_ros.web.folder import PanoramaFolder

from .conftest import DISKS, SIZE, ray

CONFIG = Path(__file__).parents[2] / "config" / "training" / "nano_sap.yaml"

RED, GREEN, BLUE = (ray(*DISKS[name]) for name in ("red", "green", "blue"))


def quiet(done, count, object_id):
    pass


def click(labelling, direction, positive=True, object_id=0):
    return labelling.point(direction, positive, object_id, quiet)


def mask(labelling, object_id):
    return labelling.found()[0] == object_id


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_click_gives_the_mask_of_the_session(label, pictures, nano, room):
    labelling = label(pictures)
    assert click(labelling, RED) == 1
    session = PanoramaSession(nano)
    session.set_image(labelling.image)
    u, v = sphere.direction_to_pixel(RED, SIZE)
    session.add_prompt(from_pixels(1, [(u, v)], SIZE))
    np.testing.assert_array_equal(labelling.found()[0], session.segment().labels)
    assert iou(mask(labelling, 1), room[1]["red"]) > 0.8


def test_every_change_can_be_undone(label, pictures):
    labelling = label(pictures)
    click(labelling, RED)
    one = labelling.found()[0]
    click(labelling, ray(40, -10), positive=False, object_id=1)
    corrected = labelling.found()[0]
    click(labelling, GREEN)
    labelling.rename(2, "ball")
    labelling.remove(1)
    assert list(labelling.objects) == [2]
    labelling.reset()
    assert not labelling.found()[0].any()
    labelling.undo(quiet)
    labelling.undo(quiet)  # of the removal
    assert labelling.objects[2].label == "ball"
    labelling.undo(quiet)
    assert labelling.objects[2].label == ""
    labelling.undo(quiet)
    np.testing.assert_array_equal(labelling.found()[0], corrected)
    labelling.undo(quiet)
    np.testing.assert_array_equal(labelling.found()[0], one)
    labelling.undo(quiet)
    assert not labelling.objects
    assert not labelling.can_undo
    assert not labelling.changed
    with pytest.raises(ValueError, match="nothing to undo"):
        labelling.undo(quiet)


def test_a_prompt_that_fails_changes_nothing(label, pictures, monkeypatch):
    labelling = label(pictures)
    click(labelling, RED)
    before = labelling.found()[0]
    with pytest.raises(ValueError, match="no positive point"):
        click(labelling, GREEN, positive=False)

    def out_of_memory(*args):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("sap_ros.core.model.Model.encode", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            click(labelling, BLUE)
    assert list(labelling.objects) == [1]
    np.testing.assert_array_equal(labelling.found()[0], before)
    assert click(labelling, GREEN) == 2


@pytest.mark.parametrize("change", ["correction", "undo"])
def test_an_object_outlives_a_change_that_is_interrupted(label, pictures, change):
    labelling = label(pictures)
    click(labelling, RED)
    click(labelling, ray(40, -10), positive=False, object_id=1)
    before = labelling.found()[0]

    def ended(done, count, object_id):
        raise KeyError("the server ends")

    work = {
        "undo": lambda: labelling.undo(ended),
        "correction": lambda: labelling.point(ray(30, 20), False, 1, ended),
    }
    with pytest.raises(KeyError, match="the server ends"):
        work[change]()
    assert (before == 1).any()
    np.testing.assert_array_equal(labelling.found()[0], before)


def test_a_box_across_the_seam(label, pictures, room):
    labelling = label(pictures)
    corners = np.stack([ray(180 + 13, 5 + 13), ray(180 - 13, 5 - 13)])
    assert labelling.box(corners, 0, quiet) == 1
    assert iou(mask(labelling, 1), room[1]["green"]) > 0.7


def test_what_is_saved_is_a_data_set_and_is_gone_on_with(label, pictures):
    labelling = label(pictures)
    click(labelling, RED)
    click(labelling, GREEN)
    labelling.rename(1, "red ball")
    saved = labelling.found()[0]
    assert labelling.changed
    labelling.step(1)  # saves
    assert labelling.index == 1
    assert not labelling.objects
    click(labelling, GREEN)
    labelling.save()
    written = {f"{place}/{name}.{end}" for name in "ab" for place, end in
               (("images", "jpg"), ("instances", "png"), ("labels", "json"))}  # fmt: skip
    assert files(pictures) == written | {"index.csv", "manifest.json", "a.png", "b.jpg", "c.jpg"}
    # A JPEG is copied, not encoded again.
    assert (pictures / "images" / "b.jpg").read_bytes() == (pictures / "b.jpg").read_bytes()

    resumed = label(pictures)
    assert resumed.index == 2
    resumed.step(-1)
    resumed.step(-1)
    assert resumed.index == 0
    np.testing.assert_array_equal(resumed.found()[0], saved)
    assert {i: o.label for i, o in resumed.objects.items()} == {1: "red ball", 2: ""}
    with pytest.raises(ValueError, match="first panorama"):
        resumed.step(-1)
    # A saved object can be corrected, and the others stay as they were saved.
    click(resumed, RED, object_id=1)
    np.testing.assert_array_equal(mask(resumed, 2), saved == 2)
    resumed.remove(2)
    resumed.save()
    rows = json.loads((pictures / "labels" / "a.json").read_text())
    assert [(row["id"], row["name"]) for row in rows] == [(1, "red ball")]


def test_evaluation_and_training_read_what_is_saved(label, pictures):
    labelling = label(pictures)
    for _ in range(2):
        click(labelling, RED)
        click(labelling, GREEN)
        labelling.step(1)
    samples = read_dataset(pictures)
    assert [sample.name for sample in samples] == ["a", "b"]
    for sample in samples:
        assert sample.image().shape == (SIZE[1], SIZE[0], 3)
        assert set(np.unique(sample.labels())) == {0, 1, 2}
        assert [truth.seam for truth in sample.instances] == [False, True]
    source = open_source(Source(path=str(pictures), kind="panoramas"))
    window = source.window(128, 4, 2, np.random.default_rng(0))
    assert window.masks.any()


@pytest.mark.slow
def test_the_commands_take_a_labelled_folder_as_it_is(label, pictures, tmp_path):
    labelling = label(pictures)
    for _ in range(2):
        click(labelling, RED)
        click(labelling, GREEN)
        labelling.step(1)

    def sap(*arguments):
        command = [sys.executable, "-m", "sap_ros.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sap("eval", pictures, "--strategy", "direct", "--out", tmp_path / "eval")
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert "direct" in json.dumps(results)
    recipe = yaml.safe_load(CONFIG.read_text())
    recipe["sources"] = {"labelled": {"kind": "panoramas", "path": str(pictures)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    start = ["init=own", "init_memory=", "validation="]
    small = ["iterations=2", "size=64", "views=3", "window=3", "workers=0"]
    sap("train", "--config", tmp_path / "recipe.yaml", "--out", tmp_path / "run", *start, *small)
    assert (tmp_path / "run" / "weights.safetensors").stat().st_size > 1_000_000


def test_nothing_is_half_written_when_writing_fails(label, pictures, monkeypatch):
    labelling = label(pictures)
    click(labelling, RED)
    labelling.save()
    before = {name: (pictures / name).read_bytes() for name in files(pictures)}
    click(labelling, GREEN)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            labelling.save()
    assert {name: (pictures / name).read_bytes() for name in files(pictures)} == before
    assert labelling.changed
    labelling.save()
    assert not labelling.changed


def test_a_data_set_is_corrected_where_it_is(label, pictures, tmp_path):
    labelling = label(pictures, tmp_path / "out")
    click(labelling, RED)
    labelling.save()
    (tmp_path / "out" / "manifest.json").write_text('{"count": 40}')
    again = label(tmp_path / "out")
    assert [file.name for file in again.folder.files] == ["a.jpg"]
    again.rename(1, "ball")
    again.save()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {"count": 40}
    assert json.loads((tmp_path / "out" / "labels" / "a.json").read_text())[0]["name"] == "ball"


def test_files_that_cannot_be_used_are_passed_over_by_name(label, pictures):
    cut = (pictures / "b.jpg").read_bytes()[:3000]
    (pictures / "b.jpg").write_bytes(cut)
    Image.new("RGB", (100, 100)).save(pictures / "square.png")
    (pictures / "notes.txt").write_text("no picture")
    labelling = label(pictures)
    assert [file.name for file in labelling.folder.files] == ["a.png", "b.jpg", "c.jpg"]
    assert "b.jpg" in labelling.step(1)
    assert labelling.index == 2
    with pytest.raises(ValueError, match="last panorama"):
        labelling.step(1)


def test_folders_that_cannot_be_labelled(tmp_path, pictures):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no panorama"):
        PanoramaFolder(tmp_path / "empty")
    (tmp_path / "empty" / "broken.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as an image"):
        PanoramaFolder(tmp_path / "empty")
    with pytest.raises(ValueError, match="no file or folder"):
        PanoramaFolder(tmp_path / "none.jpg")
    Image.open(pictures / "b.jpg").save(pictures / "a.jpeg")
    with pytest.raises(ValueError, match="both be labelled as a"):
        PanoramaFolder(pictures)


def test_labels_of_another_size_are_not_taken(label, pictures):
    labelling = label(pictures)
    click(labelling, RED)
    labelling.save()
    Image.fromarray(np.zeros((256, 512), np.uint16)).save(pictures / "instances" / "a.png")
    with pytest.raises(ValueError, match="512x256"):
        PanoramaFolder(pictures).labels(0, SIZE)
