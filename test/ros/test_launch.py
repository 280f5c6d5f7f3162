"""The launch file, with the real launch and launch_ros; skipped by name where they are missing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("launch.actions", reason="launch is not installed")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed")

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "sap.launch.py"
REPLAY_FILE = LAUNCH_FILE.with_name("replay.launch.py")

_RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]),
    launch_arguments=[argument.split(':=') for argument in sys.argv[2:]])]))
sys.exit(service.run())
"""


def _state(node, namespace):
    client = node.create_client(GetState, f"/{namespace}/sap/get_state")
    if not client.wait_for_service(0.5):
        return None
    answer = client.call_async(GetState.Request())
    rclpy.spin_until_future_complete(node, answer, timeout_sec=5)
    return answer.result().current_state.id if answer.done() else None


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ([], State.PRIMARY_STATE_ACTIVE),
        (["autostart:=false"], State.PRIMARY_STATE_UNCONFIGURED),
        (["model:=sam9"], State.PRIMARY_STATE_UNCONFIGURED),
    ],
    ids=["brought up", "left alone", "a bad parameter"],
)
def test_the_launch_file_brings_the_node_up(arguments, state):
    arguments = ["namespace:=front", "image:=/camera/image", *arguments]
    launch = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(LAUNCH_FILE), *arguments], env=os.environ
    )
    rclpy.init()
    node = rclpy.create_node("watcher")
    try:
        end, seen = time.monotonic() + 60, None
        while time.monotonic() < end and seen != state:
            seen = _state(node, "front")
        assert seen == state
        time.sleep(2)
        assert _state(node, "front") == state
        if state == State.PRIMARY_STATE_ACTIVE:
            assert node.count_subscribers("/camera/image") == 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        launch.send_signal(signal.SIGINT)
        launch.wait(20)


def test_a_bag_is_played_once_the_node_is_active_and_all_ends_with_it(tmp_path):
    """With a `ros2` that writes down what it is asked, and whether the node is up."""
    said = tmp_path / "said.txt"
    ros2 = tmp_path / "ros2"
    ros2.write_text(
        f"#!{sys.executable}\n"
        "import sys, rclpy\n"
        "from lifecycle_msgs.srv import GetState\n"
        "rclpy.init()\n"
        "node = rclpy.create_node('ros2')\n"
        "client = node.create_client(GetState, '/sap/sap/get_state')\n"
        "client.wait_for_service(20)\n"
        "answer = client.call_async(GetState.Request())\n"
        "rclpy.spin_until_future_complete(node, answer, timeout_sec=20)\n"
        f"open({str(said)!r}, 'w').write("
        "' '.join([*sys.argv[1:], answer.result().current_state.label]))\n"
        "node.destroy_node()\n"
        "rclpy.shutdown()\n"
    )
    ros2.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    launch = subprocess.run(
        [sys.executable, "-c", _RUN, str(REPLAY_FILE), "bag:=drive.mcap", "rate:=0.5"],
        env=environment,
        timeout=90,
        check=False,
    )
    assert launch.returncode == 0
    assert said.read_text() == "bag play drive.mcap --clock --rate 0.5 active"
