"""Stop for what was clicked: its points go to the collision monitor.

    ros2 launch sap_ros nav2_stop.launch.py image:=/camera/image_raw

Nav2's collision monitor is started beside the node and has to be activated by the robot's lifecycle
manager (`node_names: [collision_monitor]`). It passes `cmd_vel_smoothed` on as `cmd_vel`, and stops the
robot while one of the objects is within the zone.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("sap_ros")
    return LaunchDescription(
        [
            # Declared before the argument of the same name in sap.launch.py, so that this default applies.
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "nav2_stop.yaml"]),
                description="parameters of both nodes",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "sap.launch.py"])
                )
            ),
            Node(
                package="nav2_collision_monitor",
                executable="collision_monitor",
                name="collision_monitor",
                parameters=[LaunchConfiguration("params_file")],
                output="screen",
            ),
        ]
    )
