"""What the launch files have in common: the node's own launch file, included by those of the examples."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription, LaunchDescriptionEntity


def sap_node() -> IncludeLaunchDescription:
    """sap.launch.py: all its arguments are also arguments of the file that includes it, passed on unchanged.

    An argument that is declared before with another default has that one.
    """
    path = PathJoinSubstitution([FindPackageShare("sap_ros"), "launch", "sap.launch.py"])
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(path))


def nav2_example(
    config: str, server: str = "", executable: str = "", name: str = ""
) -> LaunchDescription:
    """The node and a server of Nav2 with a parameter file of this package; the robot's manager activates the latter.

    Args:
        config: name of the parameter file, the default of ``params_file``.
        server: the server's package; empty: none is started.
        executable: its executable.
        name: name of its node.
    """
    entities: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([FindPackageShare("sap_ros"), "config", config]),
            description="parameters of the node and of Nav2's part in this example",
        ),
        sap_node(),
    ]
    if server:
        parameters = [LaunchConfiguration("params_file")]
        entities.append(
            Node(
                package=server,
                executable=executable,
                name=name,
                parameters=parameters,
                output="screen",
            )
        )
    return LaunchDescription(entities)
