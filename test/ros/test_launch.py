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
