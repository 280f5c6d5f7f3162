"""`sap segment FOLDER --prompts FILE`: files of prompts, workers, failures, and going on."""

import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from sap_ros.camera_files import read_camera, write_camera
from sap_ros.prompt_files import count_pictures, read_prompts
from sap_ros.synthesis.fisheyes import fisheyes_of


def sap(*arguments):
    command = [sys.executable, "-m", "sap_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder of its own; each with a disk ahead."""
    folder = tmp_path / "pictures"
    (folder / "night").mkdir(parents=True)
    image = np.full((256, 512, 3), 200, np.uint8)
    cv2.circle(image, (256, 128), 30, (220, 60, 30), -1)
    for name in ("a.png", "b.jpg", "night/c.png"):
        Image.fromarray(image).save(folder / name)
    return folder


def masks(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_a_csv_and_a_jsonl_say_the_same(tmp_path):
    (tmp_path / "p.csv").write_text(
        "picture,id,u,v,label,left,top,right,bottom,mask\n"
        "a.png,1,256,128,,,,,,\n"
        "a.png,1,10,10,0,,,,,\n"
        "a.png,7,,,,20,30,40,50,\n"
        "b.jpg,,,,,,,,,b_mask.png\n"
    )
    (tmp_path / "p.jsonl").write_text(
        json.dumps(
            {
                "picture": "a.png",
                "objects": [
                    {"id": 1, "points": [[256, 128], [10, 10, 0]]},
                    {"id": 7, "box": [20, 30, 40, 50]},
                ],
            }
        )
        + "\n\n"
        + json.dumps({"picture": "b.jpg", "objects": [{"mask": "b_mask.png"}]})
        + "\n"
    )
    from_csv, from_jsonl = (list(read_prompts(tmp_path / f"p.{end}")) for end in ("csv", "jsonl"))
    assert from_csv == from_jsonl
    assert [count_pictures(tmp_path / f"p.{end}") for end in ("csv", "jsonl")] == [2, 2]
    first, second = from_csv
    assert first.objects[1]["points"] == [(256.0, 128.0, 1), (10.0, 10.0, 0)]
    assert first.objects[7]["box"] == [20.0, 30.0, 40.0, 50.0]
    assert (second.picture, second.objects[1]["mask"]) == ("b.jpg", "b_mask.png")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("p.csv", "file,u,v\na,1,2\n", "has the columns"),
        ("p.csv", "picture,u,v\na.png,1,2\na.png,x,2\n", "line 3"),
        ("p.csv", "picture,u,v\na.png,,\n", "this one has 0 of them"),
        ("p.csv", "picture,u,v,mask\na.png,1,2,m.png\n", "this one has 2 of them"),
        ("p.csv", "picture,u,v\na,1,2\nb,1,2\na,3,4\n", "must follow one another"),
        ("p.csv", "picture,u,v\n/data/a.png,1,2\n", "relative to the folder"),
        ("p.csv", "picture,u,v\n../a.png,1,2\n", "relative to the folder"),
        (
            "p.jsonl",
            '{"picture": "a.png", "objects": [{"points": [[1, 2]]}, {"points": [[3, 4]]}]}\n',
            "two objects with the id 1",
        ),
        ("p.jsonl", '{"picture": "a.png"}\n', "line 1"),
        ("p.jsonl", '{"picture": "a.png", "objects": [{"box": [1]}]}\n', "must have 4"),
        ("p.txt", "", "must be a .csv or a .jsonl"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, text, named):
    (tmp_path / name).write_text(text)
    count_pictures(
        tmp_path / name
    )  # of as many as there may be; that it is invalid is said by the other
    with pytest.raises(ValueError, match=named):
        list(read_prompts(tmp_path / name))


def test_a_file_of_prompts_is_read_as_it_is_needed(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    rows = [{"picture": name, "objects": [{"points": [[1, 1]]}]} for name in names]
    (tmp_path / "p.jsonl").write_text("\n".join([*map(json.dumps, rows), "not json\n"]))
    prompts = read_prompts(tmp_path / "p.jsonl")
    assert [next(prompts).picture for _ in range(3)] == names
    with pytest.raises(ValueError, match="line 4"):
        next(prompts)


def test_a_folder_of_fisheye_pictures(pictures, tmp_path):
    camera = read_camera("insta360").of_picture((640, 320))
    write_camera(tmp_path / "camera.yaml", replace(camera, panorama_width=512))
    panorama = cv2.imread(str(pictures / "a.png"))
    cv2.imwrite(str(pictures / "a.png"), fisheyes_of(panorama, camera))
    (tmp_path / "p.csv").write_text("picture,u,v\na.png,256,128\n")
    given = ("--projection", "dual_fisheye", "--camera", tmp_path / "camera.yaml")
    where = ("--prompts", tmp_path / "p.csv", "--out", tmp_path / "out")
    done = sap("segment", pictures, *where, *given)
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "a.png.png"), -1) > 0
    true = cv2.circle(np.zeros((256, 512), np.uint8), (256, 128), 30, 1, -1) > 0
    assert (mask & true).sum() / (mask | true).sum() > 0.9
    wrong = sap("segment", pictures, *where, "--projection", "dual_fisheye", "--camera", "none")
    assert wrong.returncode == 2
    assert "no camera file none" in wrong.stderr


def test_pictures_are_segmented_by_two_workers_as_by_one(pictures, tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text(
        "picture,id,u,v\na.png,1,256,128\ngone.png,1,9,9\nb.jpg,2,256,128\nnight/c.png,3,256,128\n"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    done = sap("segment", pictures, "--prompts", prompts, "--out", one)
    assert done.returncode == 1
    assert "failed: gone.png: " in done.stderr
    assert "1 failed, 3 are done" in done.stderr
    assert list(masks(one)) == ["masks/a.png.png", "masks/b.jpg.png", "masks/night/c.png.png"]
    labels = cv2.imread(str(one / "masks" / "night" / "c.png.png"), cv2.IMREAD_UNCHANGED)
    assert labels[128, 256] == 3
    assert json.loads((one / "objects" / "b.jpg.json").read_text())[0]["id"] == 2
    assert sap("segment", pictures, "--prompts", prompts, "--out", two, "--jobs", 2).returncode == 1
    assert masks(two) == masks(one)
    # The same command does what is missing, and nothing else.
    (two / "objects" / "b.jpg.json").unlink()
    before = (two / "masks" / "a.png.png").stat().st_mtime_ns
    Image.open(pictures / "a.png").save(pictures / "gone.png")
    again = sap("segment", pictures, "--prompts", prompts, "--out", two)
    assert again.returncode == 0, again.stderr
    assert "2 segmented, 2 were there" in again.stdout
    assert (two / "masks" / "a.png.png").stat().st_mtime_ns == before
    assert (two / "objects" / "b.jpg.json").exists()


def test_other_prompts_or_settings_are_not_ignored(pictures, tmp_path):
    prompts, out = tmp_path / "prompts.csv", tmp_path / "out"
    command = "segment", pictures, "--prompts", prompts, "--out", out
    prompts.write_text("picture,u,v\na.png,256,128\nb.jpg,256,128\n")
    assert "2 segmented, 0 were there" in sap(*command).stdout
    before = masks(out)
    prompts.write_text("picture,u,v\na.png,256,128\nb.jpg,20,30\n")
    assert "1 segmented, 1 were there" in sap(*command).stdout
    assert masks(out)["masks/a.png.png"] == before["masks/a.png.png"]
    assert masks(out)["masks/b.jpg.png"] != before["masks/b.jpg.png"]
    with (out / "done.jsonl").open("a") as record:
        record.write('["a.png", "12')  # killed while it was written
    assert "0 segmented, 2 were there" in sap(*command).stdout
    assert "2 segmented, 0 were there" in sap(*command, "--strategy", "gimbal").stdout


def test_what_is_missing_is_said(pictures, tmp_path):
    done = sap("segment", pictures / "a.png")
    assert (done.returncode, "give --point" in done.stderr) == (2, True)
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("picture,u,v\na.png,256,128\n")
    wrong = sap(
        "segment", pictures, "--prompts", prompts, "--model", "sam9", "--out", tmp_path / "o"
    )
    assert (wrong.returncode, "sam9" in wrong.stderr) == (2, True)
    assert wrong.stderr.count("\n") == 1
