"""Starts the node and brings it up: `ros2 launch sap_ros sap.launch.py image:=/camera/image`."""

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "namespace", default_value="sap", description="namespace of the node and its topics"
        ),
        DeclareLaunchArgument(
            "image", default_value="/image", description="topic of the equirectangular images"
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="raw",
            choices=["raw", "compressed"],
            description="raw: the image topic itself; compressed: the one with /compressed behind it",
        ),
        DeclareLaunchArgument(
            "target_frame",
            default_value="",
            description="TF frame of the bearings; empty: the image's",
        ),
        DeclareLaunchArgument(
            "model", default_value="sap-nano", description="model to load; `sap models` lists them"
        ),
        DeclareLaunchArgument(
            "device", default_value="cpu", description="torch device: cpu, cuda, cuda:1"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([FindPackageShare("sap_ros"), "config", "sap.yaml"]),
            description="parameter file of the node",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="configure and activate the node; false leaves that to a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", description="take the time from /clock"
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            description="open rviz2 with the panorama laid out, to click on",
        ),
    ]
    node = LifecycleNode(
        package="sap_ros",
        executable="sap_node",
        name="sap",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                name: LaunchConfiguration(name)
                for name in ("model", "device", "image_transport", "use_sim_time")
            },
            # Typed, or an empty one would be read as YAML's null.
            {"target_frame": ParameterValue(LaunchConfiguration("target_frame"), value_type=str)},
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", [LaunchConfiguration("image"), "/compressed"]),
        ],
        output="screen",
    )
    # The configuration says /sap; in another namespace, its topics are those.
    shown = ("canvas", "overlay", "markers", "prompt/position")
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("-d", PathJoinSubstitution([FindPackageShare("sap_ros"), "config", "sap.rviz"])),
            *("-f", [LaunchConfiguration("namespace"), "_canvas"]),
        ],
        remappings=[(f"/sap/{name}", name) for name in shown],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    wanted = IfCondition(LaunchConfiguration("autostart"))
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[_change(node, Transition.TRANSITION_ACTIVATE)],
        ),
        condition=wanted,
    )
    configure = EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(node),
            transition_id=Transition.TRANSITION_CONFIGURE,
        ),
        condition=wanted,
    )
    # The handler first: a quick node must not be through configuring before it is there.
    return LaunchDescription([*arguments, activate, node, configure, rviz])


def _change(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    )
