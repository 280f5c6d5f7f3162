"""Starts the node and brings it up: `ros2 launch sap_ros sap.launch.py image:=/camera/image`."""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

# The value of an argument that was not given: the parameter then has its value from `params_file`.
_FROM_FILE = "<params_file>"

# Arguments that set the node's parameter of the same name, and the parameter's type.
_PARAMETERS: dict[str, type] = {
    "model": str,
    "device": str,
    "image_transport": str,
    "target_frame": str,
    "use_sim_time": bool,
}


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
            default_value=_FROM_FILE,
            choices=["raw", "compressed", _FROM_FILE],
            description="raw: the image topic itself; compressed: the image topic with /compressed "
            "appended; raw when params_file does not say",
        ),
        DeclareLaunchArgument(
            "target_frame",
            default_value=_FROM_FILE,
            description="TF frame of the bearings; empty, or when params_file does not say: the "
            "image's own",
        ),
        DeclareLaunchArgument(
            "model",
            default_value=_FROM_FILE,
            description="model to load, `sap models` lists them; sap-nano when params_file does "
            "not say",
        ),
        DeclareLaunchArgument(
            "device",
            default_value=_FROM_FILE,
            description="torch device: cpu, cuda, cuda:1; cpu when params_file does not say",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([FindPackageShare("sap_ros"), "config", "sap.yaml"]),
            description="parameter file of the node; an argument that is given overrides it",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="configure and activate the node at start; false leaves that to a lifecycle "
            "manager",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value=_FROM_FILE,
            description="take the time from /clock; false when params_file does not say",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            description="open rviz2 with the panorama as a flat image in the 3D view, to click on",
        ),
        DeclareLaunchArgument(
            "web", default_value="false", description="serve a web page to click in"
        ),
        DeclareLaunchArgument(
            "web_host",
            default_value="127.0.0.1",
            description="address that the page is served on; 0.0.0.0: for other machines too, with a "
            "token",
        ),
        DeclareLaunchArgument(
            "web_port", default_value="8360", description="TCP port that the page is served on"
        ),
    ]
    # The configuration names topics under /sap; in another namespace they are remapped to it.
    shown = ("canvas", "overlay", "markers", "prompt/position")
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("-d", PathJoinSubstitution([FindPackageShare("sap_ros"), "config", "sap.rviz"])),
            *("-f", LaunchConfiguration("canvas_frame")),
        ],
        remappings=[(f"/sap/{name}", name) for name in shown],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    web = Node(
        package="sap_ros",
        executable="sap_web",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                "host": ParameterValue(LaunchConfiguration("web_host"), value_type=str),
                "port": ParameterValue(LaunchConfiguration("web_port"), value_type=int),
            }
        ],
        output="screen",
        condition=IfCondition(LaunchConfiguration("web")),
    )
    # Which arguments were given is known only when the launch runs.
    return LaunchDescription([*arguments, OpaqueFunction(function=_start_node), rviz, web])


def _start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node with the parameters that were given as arguments, and what brings it up."""
    # As the node names the frame, in which rviz2 shows the canvas.
    namespace = context.launch_configurations["namespace"].strip("/") or "sap"
    context.launch_configurations["canvas_frame"] = f"{namespace}_canvas".replace("/", "_")
    given = {
        # With their types: an empty string would else be read as YAML's null.
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in _PARAMETERS.items()
        if context.launch_configurations[name] != _FROM_FILE
    }
    node = LifecycleNode(
        package="sap_ros",
        executable="sap_node",
        name="sap",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), *([given] if given else [])],
        remappings=[("image", LaunchConfiguration("image"))],
        output="screen",
    )

    def activate_if_configured(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if context.locals.event.goal_state != "inactive":
            return []  # it could not be configured; its log says why
        return [_change(node, Transition.TRANSITION_ACTIVATE)]

    autostart = IfCondition(LaunchConfiguration("autostart"))
    # Handles the end of the first configuration, successful or not, and no later one: a user who
    # configures the node by hand wants it configured, and no more.
    configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            entities=[OpaqueFunction(function=activate_if_configured)],
            handle_once=True,
        ),
        condition=autostart,
    )
    configure = _change(node, Transition.TRANSITION_CONFIGURE, autostart)
    # The handler is registered first, so that it cannot miss the transition.
    return [configured, node, configure]


def _change(
    node: LifecycleNode, transition: int, condition: IfCondition | None = None
) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition),
        condition=condition,
    )
