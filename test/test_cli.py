"""cli: the command as a person types it."""

import csv
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from inspect import signature

import cv2
import numpy as np
import pytest
import torch
import typer
from PIL import Image

from sap_ros.camera_files import read_camera, write_camera
from sap_ros.cli import app
from sap_ros.cli.shared import parse_points
from sap_ros.core import sphere
from sap_ros.core.checkpoints import MODELS, build_architecture
from sap_ros.core.instances import Instances, measure
from sap_ros.core.loading import load_model
from sap_ros.files import read_panorama
from sap_ros.report import advice
from sap_ros.synthesis.fisheyes import fisheyes_of

FLOOR = 210  # its first row


def sap(*arguments, **kwargs):
    command = [sys.executable, "-m", "sap_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, **kwargs)


@pytest.fixture(scope="module")
def room():
    """A grey room (256, 512, 3) with a blue floor, a red disk ahead and a blue one to the right; and
    the disks' ids."""
    v, u = np.mgrid[:256, :512] + 0.5
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), (512, 256))
    image, labels = np.full((256, 512, 3), 190, np.uint8), np.zeros((256, 512), np.uint8)
    image[FLOOR:] = (90, 90, 180)
    for i, azimuth, colour in ((1, 0.0, (220, 60, 30)), (3, -np.pi / 2, (40, 60, 200))):
        disk = rays @ sphere.angles_to_direction(azimuth, 0.0) > np.cos(0.25)
        image[disk], labels[disk] = colour, i
    return image, labels


@pytest.fixture(scope="module")
def picture(tmp_path_factory, room):
    path = tmp_path_factory.mktemp("pictures") / "room.png"
    Image.fromarray(room[0]).save(path)
    return path


@pytest.fixture(scope="module")
def segmented(picture, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    done = sap("segment", picture, "--point", "256,128", "--point", "384,128:3", "--out", out)
    assert done.returncode == 0, done.stderr
    return done, out


def test_segment_writes_all_files(segmented, room):
    _, out = segmented
    assert sorted(p.name for p in out.iterdir()) == [
        "masks.png",
        "objects.json",
        "overlay.jpg",
        "views.jpg",
    ]
    with Image.open(out / "masks.png") as masks:
        labels = np.array(masks)
    assert labels.shape == (256, 512)
    assert labels.dtype == np.uint8
    objects = json.loads((out / "objects.json").read_text())
    assert [(thing["id"], thing["state"]) for thing in objects] == [(1, "TRACKED"), (3, "TRACKED")]
    assert set(np.unique(labels)) == {0, 1, 3}
    image, true = room
    for i in (1, 3):
        assert ((labels == i) & (true == i)).sum() > 0.8 * ((labels == i) | (true == i)).sum()
    assert objects[1]["azimuth_deg"] == pytest.approx(-90, abs=2)
    overlay = read_panorama(out / "overlay.jpg").astype(int)
    floor = np.s_[FLOOR + 8 :]  # where nothing is drawn
    assert np.abs(overlay[floor] - image[floor]).mean() < 5
    with Image.open(out / "views.jpg") as sheet:
        assert sheet.width % 256 == sheet.height % 256 == 0
        assert np.array(sheet).std() > 10


def test_segment_takes_a_picture_with_two_fisheyes(room, tmp_path):
    camera = read_camera("insta360").of_picture((640, 320))
    picture, file = tmp_path / "fisheyes.png", tmp_path / "camera.yaml"
    Image.fromarray(fisheyes_of(room[0], camera)).save(picture)
    write_camera(file, replace(camera, panorama_width=512))
    options = ("--projection", "dual_fisheye", "--camera", file, "--out", tmp_path)
    done = sap("segment", picture, "--point", "256,128", "--point", "384,128:3", *options)
    assert done.returncode == 0, done.stderr
    masks = cv2.imread(str(tmp_path / "masks.png"), -1)
    for i in (1, 3):  # the right one lies on the border between the lenses
        found, true = masks == i, room[1] == i
        assert (found & true).sum() / (found | true).sum() > 0.9
    assert cv2.imread(str(tmp_path / "overlay.jpg")).shape == (256, 512, 3)


def test_segment_prints_a_table(segmented):
    assert "azimuth" in segmented[0].stdout
    assert "sr" in segmented[0].stdout
    assert "uncertain" not in segmented[0].stdout


def test_what_is_uncertain_or_not_found_is_said():
    sure, unsure, lost = np.zeros((8, 16), bool), np.zeros((8, 16), bool), np.zeros((8, 16), bool)
    sure[:2], unsure[6:] = True, True
    found = tuple(
        measure(mask, i, score)
        for i, (mask, score) in enumerate([(sure, 0.9), (unsure, 0.3), (lost, 0.0)], 1)
    )
    lines = advice(Instances(np.zeros((8, 16), np.uint8), found))
    assert len(lines) == 2
    assert "Object 2 is uncertain (score 0.30)" in lines[0]
    assert "--point U,V:2:-" in lines[0]
    assert "Object 3 is not found" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["none.jpg", "--point", "1,1"], "none.jpg is no file"),
        (["HUGE", "--point", "1,1"], "huge.png is 32768x16384; 8192x4096 is the largest"),
        (["PICTURE", "--point", "900,10"], "(900.0, 10.0) lies outside the panorama of 512x256"),
        (["PICTURE", "--point", "9"], "'9' is no point"),
        (["PICTURE", "--point", "9,9:0"], "object id is 0"),
        (["PICTURE", "--point", "9,9:-"], "no positive point"),
        (["PICTURE", "--point", "9,9", "--model", "sam9"], "no model is named 'sam9'"),
        (["PICTURE", "--point", "9,9", "--strategy", "spiral"], "'spiral'"),
        (["PICTURE", "--point", "9,9", "--device", "toaster"], "'toaster'"),
        (["PICTURE", "--point", "9,9", "--checkpoint", "none.pt"], "none.pt is no file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(picture, tmp_path, arguments, named):
    files = {"PICTURE": picture, "HUGE": picture.with_name("huge.png")}
    if "HUGE" in arguments:
        Image.new("1", (32768, 16384)).save(files["HUGE"])
    arguments = [files.get(a, a) for a in arguments]
    done = sap("segment", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sap: ")
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_needs_neither_torch_nor_ros():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sap_ros.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not {"torch", "cv2", "rclpy", "numpy"} & imported
    assert "segment" in done.stdout


def test_the_core_and_the_command_need_no_ros(tmp_path):
    """Everything but the node imports where ROS is not to be had."""
    code = (
        "import sys\n"
        "class NoRos:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('rclpy', 'sensor_msgs', 'geometry_msgs'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoRos())\n"
        "import sap_ros.cli, sap_ros.core.session, sap_ros.core.overlay, sap_ros.report\n"
        "import sap_ros.synthesis.composite, sap_ros.training.train\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_the_demo_says_what_it_needs(tmp_path):
    """Without the built messages it is one line."""
    code = (
        "import sys; sys.modules['rclpy'] = None\n"
        "sys.argv = ['sap', 'demo']\n"
        "from sap_ros.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "make demo" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_device_is_auto_by_default():
    def defaults(group, name):
        for child, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from defaults(command, f"{name} {child}")
            yield from (
                (f"{name} {child}", parameter.default)
                for parameter in command.params
                if parameter.name == "device"
            )

    found = dict(defaults(typer.main.get_command(app), "sap"))
    assert {"sap segment", "sap demo", "sap eval video", "sap bench", "sap web"} <= set(found)
    assert set(found.values()) == {"auto"}
    (parameter,) = (p for p in signature(load_model).parameters.values() if p.name == "device")
    assert parameter.default == "auto"


def test_models_lists_the_models():
    done = sap("models")
    assert done.returncode == 0
    rows = {
        line.split()[0]: " ".join(line.split()[1:])
        for line in done.stdout.splitlines()[1 : 1 + len(MODELS)]
    }
    assert list(rows) == list(MODELS)
    assert rows["sap-nano"] == "320 22 its card - - shipped"
    assert rows["sap-micro"] == "256 22 its card - - shipped"
    assert rows["efficienttam-s"] == "1024 136 Apache-2.0 85.0 arXiv 2411.18933 online"
    assert rows["edgetam"] == "1024 56 Apache-2.0 150.9 EdgeTAM README online"


def test_models_are_measured_on_each_backend():
    done = sap("models", "sap-nano", "--measure", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("cpu: ") for line in lines)
    rows = [line.split() for line in lines if line.startswith("sap-nano ")]
    assert [row[:6] for row in rows] == [
        ["sap-nano", "320", "22", "own", backend, "cpu"] for backend in ("torch", "onnxruntime")
    ]
    assert all(float(ms) > 0 and float(rate) > 0 for *_, ms, rate in rows)


def test_other_architectures_segment_from_a_file_and_are_exported(picture, tmp_path):
    sam = build_architecture("efficienttam-ti-512", 64)
    torch.nn.init.constant_(sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 3.0)
    torch.save({"model": sam.state_dict()}, tmp_path / "random.pt")
    named = ["--model", "efficienttam-ti-512", "--checkpoint", "random.pt", "--view-size", 64]
    done = sap("segment", picture, "--point", "256,128", *named, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "masks.png").exists()
    done = sap("export", *named, "--out", "graphs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout
    assert (tmp_path / "graphs" / "manifest.json").exists()


def test_points_are_gathered_by_object():
    first, second = parse_points(["10,20", "30.5,40:2", "11,21:1:-", "12,22:-"], (512, 256))
    assert (first.object_id, first.labels.tolist()) == (1, [1, 0, 0])
    assert (second.object_id, second.labels.tolist()) == (2, [1])


def test_composites_are_made_and_evaluated(tmp_path, panorama):
    """The whole way, as one types it."""
    coco_mask = pytest.importorskip("pycocotools.mask")
    photographs, backgrounds = tmp_path / "photographs", tmp_path / "backgrounds"
    for folder in (photographs, backgrounds):
        folder.mkdir()
    image = np.full((120, 160, 3), 90, np.uint8)
    image[30:80, 40:100] = (20, 40, 220)
    cv2.imwrite(str(photographs / "sa_1.jpg"), image)
    mask = np.zeros((120, 160), np.uint8, order="F")
    mask[30:80, 40:100] = 1
    code = coco_mask.encode(mask)
    code["counts"] = code["counts"].decode()
    (photographs / "sa_1.json").write_text(json.dumps({"annotations": [{"segmentation": code}]}))
    cv2.imwrite(str(backgrounds / "room.png"), panorama)
    out, scored = tmp_path / "set", tmp_path / "scored"
    made = sap(
        "synth", "composite", "--backgrounds", backgrounds, "--photographs", photographs,
        "--out", out, "--count", 2, "--width", 512,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert len(list((out / "images").glob("*.jpg"))) == 2
    for jobs in (2, 1):  # the second run has nothing left to do
        done = sap("eval", out, "--strategy", "direct", "--jobs", jobs, "--out", scored)
        assert done.returncode == 0, done.stderr
        assert "of 2 panoramas" in done.stdout
    assert (scored / "report.html").exists()
    assert len((scored / "scores.jsonl").read_text().split()) > 2


def test_a_video_is_made_recorded_replayed_and_evaluated(tmp_path):
    pytest.importorskip("rosbags")
    out = tmp_path / "drive"
    made = sap("synth", "moving", "--out", out, "--count", 1, "--width", 512, "--frames", 3)
    assert made.returncode == 0, made.stderr
    pictures, truth = out / "JPEGImages" / "00000000", out / "Annotations" / "00000000"
    bag = sap("bag", pictures, "--out", tmp_path / "bag", "--rate", 4, "--truth", truth)
    assert "3 images" in bag.stdout, bag.stderr
    labels = cv2.imread(str(truth / "00000.png"), -1)
    biggest = np.bincount(labels[labels > 0]).argmax()
    v, u = (int(np.median(part)) for part in np.nonzero(labels == biggest))
    played = sap(
        "replay", tmp_path / "bag", "--point", f"{u},{v}:{biggest}", "--truth", "/truth",
        "--out", tmp_path / "replay",
    )  # fmt: skip
    assert played.returncode == 0, played.stderr
    assert "J&F" in played.stdout
    again = sap("replay", tmp_path / "bag", "--point", "9,9", "--out", tmp_path / "replay")
    assert again.returncode == 2
    assert "exists" in again.stderr
    shutil.copytree(tmp_path / "bag", tmp_path / "other_bag")
    bags = tmp_path / "bag", tmp_path / "other_bag", tmp_path / "no_bag"
    point = ("--point", f"{u},{v}:{biggest}", "--truth", "/truth", "--out", tmp_path / "several")
    several = sap("replay", *bags, *point, "--jobs", 2)
    assert several.returncode == 1
    assert "failed: no_bag: " in several.stderr
    for name in ("bag", "other_bag"):
        folder = tmp_path / "several" / name
        assert (folder / "bag" / "bag.mcap").read_bytes() == (
            tmp_path / "replay" / "bag" / "bag.mcap"
        ).read_bytes()
    rows = list(csv.DictReader((tmp_path / "several" / "summary.csv").read_text().splitlines()))
    assert [(row["bag"], row["images"]) for row in rows] == [("bag", "3"), ("other_bag", "3")]
    twice = sap("replay", bags[0], bags[0], *point)
    assert "several bags are called bag" in twice.stderr
    none = sap("replay", tmp_path / "bag", "--out", tmp_path / "other")
    assert "nothing to look for" in none.stderr
    done = sap("eval", "video", out, "--prompt", "clicks", "--out", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    assert "sphere J" in done.stdout


@pytest.mark.slow
def test_ablations_have_a_row_each(tmp_path, panorama):
    Image.fromarray(panorama).save(tmp_path / "a.png")
    ids = np.zeros((256, 512), np.uint8)
    ids[100:140, 200:260] = 1
    Image.fromarray(ids).save(tmp_path / "a_instances.png")
    done = sap("eval", "ablations", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert len(rows) == 7
    assert {row["views"] for row in rows} == {1, 12, 24}


def test_web_serves_a_panorama_until_it_is_interrupted(picture):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "sap_ros.cli", "web", str(picture), "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline().strip() or process.stdout.readline().strip()
        assert said == f"Open http://127.0.0.1:{port}/"
        with urllib.request.urlopen(f"{said.split()[1]}page/page.js") as answer:
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        taken = sap("web", picture, "--port", port)
        assert (taken.returncode, "address already in use" in taken.stderr) == (2, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_web_says_what_cannot_be_shown(tmp_path):
    done = sap("web", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds no panorama" in done.stderr
