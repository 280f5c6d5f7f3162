"""The demo's client, with the node as a process of its own."""

import csv

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from sap_ros.camera_files import read_camera
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
