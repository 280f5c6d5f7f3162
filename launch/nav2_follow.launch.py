"""Follow a clicked person: the node's `pose` is what FollowObject takes.

    ros2 launch sap_ros nav2_follow.launch.py image:=/camera/image_raw

Nav2's following server is started beside the node and has to be activated by the robot's lifecycle
manager (`node_names: [following_server]`). Then, once something was clicked:

    ros2 action send_goal /follow_object nav2_msgs/action/FollowObject "{pose_topic: /sap/pose}"
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
                default_value=PathJoinSubstitution([share, "config", "nav2_follow.yaml"]),
                description="parameters of both nodes",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "sap.launch.py"])
                )
            ),
            Node(
                package="opennav_following",
                executable="opennav_following",
                name="following_server",
                parameters=[LaunchConfiguration("params_file")],
                output="screen",
            ),
        ]
    )
