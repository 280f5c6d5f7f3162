"""An example: a detector starts objects by name, and the node follows them.

    ros2 launch sap_ros detections.launch.py

A traced drive stands for the camera, its true boxes for the detector. On a robot, start sap.launch.py and
remap the detector's topic (vision_msgs/Detection2DArray) to the node's `prompt/detections`.
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
            DeclareLaunchArgument(
                "namespace", default_value="sap", description="namespace of the nodes and topics"
            ),
            Node(
                package="sap_ros",
                executable="sap_drive",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "sap.launch.py"])
                ),
                launch_arguments={
                    "image": "image",
                    "params_file": PathJoinSubstitution([share, "config", "detections.yaml"]),
                }.items(),
            ),
        ]
    )
