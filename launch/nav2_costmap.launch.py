"""Keep what was clicked in the costmap: its points go to an obstacle layer.

    ros2 launch sap_ros nav2_costmap.launch.py image:=/camera/image_raw

The costmap is that of the robot's own Nav2: merge the layers of config/nav2_costmap.yaml into its
parameters.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("sap_ros")
    return LaunchDescription(
        [
            # Declared before the argument of the same name in sap.launch.py, so that this default applies.
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "nav2_costmap.yaml"]),
                description="parameters of the node and of a local costmap",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "sap.launch.py"])
                )
            ),
        ]
    )
