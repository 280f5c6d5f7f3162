"""The demo's client, with the node as a process of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from sap_ros.camera_files import read_camera
from sap_ros.demo import client as demo_client
from sap_ros.demo.client import running_node
from sap_ros.demo.live import show_live
from sap_ros.demo.still import load_still


@pytest.mark.parametrize(("preset", "codec"), [("stacked", ""), ("insta360", "h264")])
def test_the_live_part_with_the_pictures_of_two_lenses(tmp_path, preset, codec):
    if codec:
        pytest.importorskip("av", reason="PyAV is not installed")
    camera = read_camera(preset)
    _need_the_build()
    sent = "compressed" if codec else "raw"
    with running_node("sap-nano", "cpu", "auto", "auto", sent, preset, codec) as client:
        show_live(client, tmp_path, size=(640, 320), frames=8, rate=2.0, camera=camera)
    rows = list(csv.DictReader((tmp_path / "live.csv").read_text().splitlines()))
    found = [float(row["iou"]) for row in rows if float(row["time"]) == 0]
    assert len(found) == 3
    assert sum(found) / len(found) > 0.6
    sent = cv2.imread(str(tmp_path / "fisheyes.jpg"))
    width, height = camera.picture_size
    assert sent.shape[1] / sent.shape[0] == pytest.approx(width / height, rel=0.01)
    assert sent[:4, :4].max() < 30  # outside of the lenses' circles
    assert sent.max() > 100


def _need_the_build():
    try:
        get_package_prefix("sap_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not built: make build")


def test_the_live_part_follows_objects_that_are_in_truth_there(tmp_path, capsys):
    _need_the_build()
    with running_node("sap-nano", "cpu", "scan", "auto") as client:
        answers = show_live(client, tmp_path, size=(512, 256), frames=8, rate=2.0)
    assert answers[0].index == 0
    assert answers[-1].index == 7  # the newest is always answered
    rows = list(csv.DictReader((tmp_path / "live.csv").read_text().splitlines()))
    # How long they are held depends on the speed of the machine; that they are found does not.
    found = [float(row["iou"]) for row in rows if float(row["time"]) == 0]
    assert len(found) == 3
    assert sum(found) / len(found) > 0.6
    assert (tmp_path / "live.jpg").stat().st_size > 10_000
    assert "Views encoded" in capsys.readouterr().out


@pytest.mark.parametrize("point", ["12", "a,b", "9999,5", "nan,4"])
def test_a_bad_point_is_said_before_a_node_is_started(point):
    with pytest.raises(ValueError, match=r"point|number|panorama"):
        load_still(None, [point])


_NODE = "import rclpy; rclpy.init(); node = rclpy.create_node('sharing'); print('up', flush=True); input()"


def _shared_memory_of_a_node() -> int:
    """The largest piece of shared memory, in bytes, of a process with a node, in this process's environment."""
    node = subprocess.Popen([sys.executable, "-c", _NODE], stdin=-1, stdout=-1, text=True)
    try:
        assert node.stdout.readline() == "up\n"
        maps = Path(f"/proc/{node.pid}/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "/dev/shm/" in line]
        return max((int(end, 16) - int(start, 16) for start, end in spans), default=0)
    finally:
        node.communicate("\n", timeout=20)


@pytest.fixture
def no_profile(monkeypatch):
    for name in demo_client._PROFILES:
        monkeypatch.setenv(name, "")  # so that it is restored, whatever the test does
        monkeypatch.delenv(name)


def test_two_raw_4k_panoramas_fit_into_the_shared_memory_of_a_node(no_profile):
    _need_the_build()
    without = _shared_memory_of_a_node()
    if not without:
        pytest.skip("this middleware has no shared memory of its own")
    demo_client.share_memory()
    if "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        pytest.skip("there is little shared memory here")
    assert _shared_memory_of_a_node() > 2 * 3 * 4096 * 2048 > without


@pytest.mark.parametrize("name", demo_client._PROFILES)
def test_a_profile_of_the_user_is_kept(no_profile, monkeypatch, name):
    monkeypatch.setenv(name, "theirs.xml")
    demo_client.share_memory()
    assert [os.environ.get(each) for each in demo_client._PROFILES] == [
        "theirs.xml" if each == name else None for each in demo_client._PROFILES
    ]
