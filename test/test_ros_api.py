"""scripts/check_ros_api.py: calls that a distribution does not have are named."""

import importlib.util
import shutil
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("mypy")

_spec = importlib.util.spec_from_file_location(
    "check_ros_api", ROOT / "scripts" / "check_ros_api.py"
)
check_ros_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_ros_api)

LISTS = {path.stem: path for path in check_ros_api.LISTS.glob("*.txt")}

NEW_CALLS = """\
import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from sensor_msgs.msg import Image


class Mine(Node):
    def __init__(self) -> None:
        super().__init__("mine", enable_logger_service=True)
        self.wait_for_node("other", 1.0)
        self.create_timer(1.0, print, autostart=False)
        self.create_nothing()
        Image(colour="red").header.stamp.seconds
        PointStamped().point.w
        rclpy.spin_for_a_while(self)
"""


def test_calls_that_a_distribution_does_not_have_are_named(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(NEW_CALLS)
    found = {d: check_ros_api.check([source], [LISTS[d]]) for d in ("humble", "jazzy")}
    lines = {d: sorted({int(line.split(":")[1]) for line in found[d]}) for d in found}
    assert lines["humble"] == [3, 10, 11, 12, 13, 14, 15, 16]
    assert lines["jazzy"] == [13, 14, 15, 16]  # what no distribution has
    for name in ("event_handler", "enable_logger_service", "wait_for_node", "autostart"):
        assert any(name in line for line in found["humble"]), name
    for name in ("create_nothing", "colour", "seconds", '"w"', "spin_for_a_while"):
        assert all(any(name in line for line in found[d]) for d in found), name


def test_launch_files_are_checked(tmp_path):
    source = tmp_path / "mine.launch.py"
    text = (ROOT / "launch" / "sap.launch.py").read_text()
    assert check_ros_api.check([ROOT / "launch" / "sap.launch.py"], [LISTS["humble"]]) == []
    source.write_text(text.replace("value_type=kind", "value_type=kind, colour=1"))
    (line,) = check_ros_api.check([source], [LISTS["humble"]])
    assert "mine.launch.py" in line
    assert '"colour" for "ParameterValue"' in line


def test_everything_that_imports_ros_is_checked():
    checked = {str(path.relative_to(ROOT)) for path in check_ros_api.sources_of()}
    assert {
        "sap_ros/node/sap_node.py",
        "launch/replay.launch.py",
        "test/ros/conftest.py",
    } <= checked


def test_a_list_is_made_from_sources(tmp_path, monkeypatch):
    """From the installed rclpy: the calls of the code are in it, others are not."""
    packages = Path(sysconfig.get_paths()["purelib"])
    if not (packages / "rclpy").exists():
        pytest.skip("ROS 2 is not installed from wheels")
    sources = tmp_path / "sources"
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(packages / "rclpy", sources / "rclpy", ignore=ignore)
    for path in (packages.parents[2] / "share").glob("*_msgs"):
        shutil.copytree(path, sources / path.name)
    monkeypatch.setattr(check_ros_api, "LISTS", tmp_path)
    check_ros_api.make("installed", [sources])
    source = tmp_path / "mine.py"
    source.write_text(NEW_CALLS)
    ours = ROOT / "sap_ros" / "node" / "image_input.py"
    lines = check_ros_api.check([source, ours], [tmp_path / "installed.txt"])
    assert sorted({int(line.split(":")[1]) for line in lines}) == [13, 14, 15, 16]
