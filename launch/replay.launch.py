"""Plays a bag to the node: `ros2 launch sap_ros replay.launch.py bag:=drive image:=/camera/image`.

The bag starts when the node is active, and publishes its time on /clock. The launch ends with the bag.
"""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from launch import LaunchDescription
from sap_ros.launch_parts import sap_node


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("bag", description="bag to play: its folder or .mcap file"),
        DeclareLaunchArgument(
            "rate", default_value="1.0", description="playback speed, relative to the recording"
        ),
        # Declared before the argument of the same name in sap.launch.py, so that this default applies.
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="true",
            description="take the time from /clock, which the bag publishes; overrides params_file",
        ),
    ]
    play = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", LaunchConfiguration("bag"), "--clock"),
            *("--rate", LaunchConfiguration("rate")),
        ],
        output="screen",
    )
    # Needs no matcher, since only one lifecycle node is launched. Handled once, so that the bag does not start
    # again when the node is activated again.
    active = RegisterEventHandler(
        OnStateTransition(goal_state="active", entities=[play], handle_once=True)
    )
    ended = RegisterEventHandler(
        OnProcessExit(target_action=play, on_exit=[EmitEvent(event=Shutdown(reason="bag ended"))])
    )
    return LaunchDescription([*arguments, active, ended, sap_node()])
