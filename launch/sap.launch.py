"""Starts, configures and activates the node: `ros2 launch sap_ros sap.launch.py image:=/camera/image`."""

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

# Default of an argument that sets a parameter: the parameter then has its value from `params_file`.
_FROM_FILE = "<params_file>"

# Arguments that set the node's parameter of the same name, and the parameter's type.
_PARAMETERS: dict[str, type] = {
    "model": str,
    "device": str,
    "image_transport": str,
    "projection": str,
    "camera_file": str,
    "lens_topics": bool,
    "target_frame": str,
    "level_frame": str,
    "use_sim_time": bool,
}

# Arguments that remap the node's topic of the same name.
_TOPICS = ("image", "image_front", "image_back", "points", "depth")


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "namespace", default_value="sap", description="namespace of the node and its topics"
        ),
        DeclareLaunchArgument("image", default_value="/image", description="topic of the images"),
        DeclareLaunchArgument(
            "imu",
            default_value="imu/data",
            description="topic of the IMU with which views are laid out level, in the namespace",
        ),
        DeclareLaunchArgument(
            "points",
            default_value="points",
            description="topic of the point cloud that ranges are taken from, in the namespace",
        ),
        DeclareLaunchArgument(
            "depth",
            default_value="depth",
            description="topic of the depth panorama that ranges are taken from, in the namespace",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value=_FROM_FILE,
            choices=["raw", "compressed", "ffmpeg", _FROM_FILE],
            description="raw: the image topic itself; compressed: the image topic with /compressed "
            "appended; ffmpeg: with /ffmpeg; default: from params_file, else raw",
        ),
        DeclareLaunchArgument(
            "projection",
            default_value=_FROM_FILE,
            choices=["equirectangular", "dual_fisheye", _FROM_FILE],
            description="how an image shows the sphere; dual_fisheye needs camera_file; default: from "
            "params_file, else equirectangular",
        ),
        DeclareLaunchArgument(
            "camera_file",
            default_value=_FROM_FILE,
            description="camera file for dual_fisheye, or a preset: insta360, theta_s, side_by_side, "
            "stacked; default: from params_file, else empty",
        ),
        DeclareLaunchArgument(
            "lens_topics",
            default_value=_FROM_FILE,
            description="dual_fisheye: each lens has a topic, image_front and image_back; default: from params_file, "
            "else false",
        ),
        DeclareLaunchArgument(
            "image_front",
            default_value="/image_front",
            description="lens_topics: topic of the images of the camera file's first lens",
        ),
        DeclareLaunchArgument(
            "image_back",
            default_value="/image_back",
            description="lens_topics: topic of the images of the second lens",
        ),
        DeclareLaunchArgument(
            "target_frame",
            default_value=_FROM_FILE,
            description="TF frame of the bearings; empty: the image's frame; default: from params_file, "
            "else empty",
        ),
        DeclareLaunchArgument(
            "level_frame",
            default_value=_FROM_FILE,
            description="TF frame whose z axis is up, in which views are level; empty: by the IMU, if there is "
            "one; default: from params_file, else empty",
        ),
        DeclareLaunchArgument(
            "model",
            default_value=_FROM_FILE,
            description="model to load, `sap models` lists them; default: from params_file, else "
            "sap-nano",
        ),
        DeclareLaunchArgument(
            "device",
            default_value=_FROM_FILE,
            description="torch device: auto (CUDA if there is a GPU for it, else cpu), cpu, cuda, cuda:1; "
            "default: from params_file, else auto",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([FindPackageShare("sap_ros"), "config", "sap.yaml"]),
            description="parameter file of the node; an argument that is given overrides it",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="configure and activate the node at start; false: a lifecycle manager does",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value=_FROM_FILE,
            description="take the time from /clock; default: from params_file, else false",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            description="open rviz2 with the panorama as a flat image in the 3D view, to click on",
        ),
        DeclareLaunchArgument(
            "web", default_value="false", description="serve a web page to click on objects"
        ),
        DeclareLaunchArgument(
            "web_host",
            default_value="127.0.0.1",
            description="address that the page is served on; 0.0.0.0: other machines can open it, with "
            "a token",
        ),
        DeclareLaunchArgument(
            "web_port", default_value="8360", description="TCP port that the page is served on"
        ),
    ]
    # sap.rviz uses the topics under /sap; they are remapped to the node's namespace.
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
    # An OpaqueFunction, because only at run time it is known which arguments were given.
    return LaunchDescription([*arguments, OpaqueFunction(function=_start_node), rviz, web])


def _start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node with the parameters that were given as arguments, and the actions that activate it."""
    # The frame of the canvas, named as in the node; it is rviz2's fixed frame.
    namespace = context.launch_configurations["namespace"].strip("/") or "sap"
    context.launch_configurations["canvas_frame"] = f"{namespace}_canvas".replace("/", "_")
    given = {
        # Typed, because an empty string would otherwise be read as YAML's null.
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
        remappings=[
            *((name, LaunchConfiguration(name)) for name in _TOPICS),
            ("imu/data", LaunchConfiguration("imu")),
        ],
        output="screen",
    )

    def activate_if_configured(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if context.locals.event.goal_state != "inactive":
            return []  # the configuration failed; the node's log says why
        return [_change(node, Transition.TRANSITION_ACTIVATE)]

    autostart = IfCondition(LaunchConfiguration("autostart"))
    # Handles only the first configuration, successful or not: if a user configures the node later by hand, it
    # is not activated automatically.
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
