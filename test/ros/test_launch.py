"""The launch file, with the real launch and launch_ros; skipped by name where they are missing."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("launch.actions", reason="launch is not installed")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed")

import launch_ros.actions
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from sap_ros.msg import Object, ObjectArray

from launch import LaunchContext
from sap_ros.node.parameters import PARAMETERS

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "sap.launch.py"
REPLAY_FILE = LAUNCH_FILE.with_name("replay.launch.py")

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


@contextmanager
def _launched(*arguments, file=LAUNCH_FILE):
    """The launch file, run as `ros2 launch` runs it; and a node to talk to what it has started."""
    with tempfile.NamedTemporaryFile("a") as log:
        launch = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(file), *arguments],
            env=os.environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        rclpy.init()
        node = rclpy.create_node("watcher")
        node.log = Path(log.name)
        try:
            yield node
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
            launch.send_signal(signal.SIGINT)
            launch.wait(20)
            sys.stderr.write(node.log.read_text())


def _call(node, kind, name, request, seconds=30):
    """Calls a service. A question is asked again after 5 s, what changes the node is not.

    On a busy machine, Fast DDS drops an answer whose reader it has not discovered yet ("failed to send response").
    """
    client = node.create_client(kind, f"/front/sap/{name}")
    end, patience = time.monotonic() + seconds, 5 if name.startswith("get_") else seconds
    try:
        assert client.wait_for_service(seconds), f"no service {name}"
        while True:
            answer = client.call_async(request)
            rclpy.spin_until_future_complete(node, answer, timeout_sec=patience)
            if answer.done():
                return answer.result()
            assert time.monotonic() < end, f"no answer from {name}"
    finally:
        node.destroy_client(client)


def _state(node):
    return _call(node, GetState, "get_state", GetState.Request()).current_state.id


def _until_state(node, state):
    end = time.monotonic() + 60
    while (seen := _state(node)) != state:
        assert time.monotonic() < end, f"state {seen}, not {state}"
        time.sleep(0.2)


def _until_refused(node):
    """Waits until the node has refused to be configured, as the launch file asked it to be."""
    end = time.monotonic() + 60
    while "'sam9'" not in node.log.read_text():
        assert time.monotonic() < end, "the launch file did not try to configure the node"
        time.sleep(0.2)


def _change(node, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    assert _call(node, ChangeState, "change_state", request).success


def _parameters(node, *names):
    answer = _call(node, GetParameters, "get_parameters", GetParameters.Request(names=list(names)))
    return [parameter_value_to_python(value) for value in answer.values]


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
    topics = ("image:=/camera/image", "depth:=/camera/depth", "imu:=/imu/data")
    with _launched("namespace:=front", *topics, *arguments) as node:
        if "model:=sam9" in arguments:
            _until_refused(node)
        _until_state(node, state)
        time.sleep(2)
        assert _state(node) == state
        if state == State.PRIMARY_STATE_ACTIVE:
            for topic in ("/camera/image", "/camera/depth", "/imu/data"):
                assert node.count_subscribers(topic) == 1


_NAMES = (
    "model", "device", "image_transport", "target_frame", "use_sim_time", "max_objects", "projection",
    "camera_file", "lens_topics", "level_frame",
)  # fmt: skip


@pytest.fixture
def params_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    model: sam2.1-tiny\n    device: cuda:1\n"
        "    image_transport: compressed\n    target_frame: odom\n    use_sim_time: true\n"
        "    max_objects: 7\n    projection: dual_fisheye\n    camera_file: insta360\n    lens_topics: true\n"
        "    level_frame: map\n"
    )
    return path


def test_the_parameter_file_is_not_overridden_by_arguments_that_were_not_given(params_file):
    with _launched("namespace:=front", f"params_file:={params_file}", "autostart:=false") as node:
        values = _parameters(node, *_NAMES)
    assert values == [
        "sam2.1-tiny", "cuda:1", "compressed", "odom", True, 7, "dual_fisheye", "insta360", True,
        "map",
    ]  # fmt: skip


def test_arguments_that_were_given_override_the_parameter_file(params_file):
    given = (
        "device:=cpu", "image_transport:=raw", "target_frame:=", "use_sim_time:=false",
        "projection:=equirectangular", "camera_file:=", "lens_topics:=false", "level_frame:=",
    )  # fmt: skip
    with _launched(
        "namespace:=front", f"params_file:={params_file}", "autostart:=false", *given
    ) as node:
        values = _parameters(node, *_NAMES)
    assert values == ["sam2.1-tiny", "cpu", "raw", "", False, 7, "equirectangular", "", False, ""]


@pytest.mark.parametrize("first", ["configured", "refused"])
def test_a_node_that_is_configured_by_hand_is_not_activated_by_the_launch_file(first):
    """Autostart is for the first configuration, also when that one fails."""
    bad = [] if first == "configured" else ["model:=sam9"]
    with _launched("namespace:=front", *bad) as node:
        if first == "configured":
            _until_state(node, State.PRIMARY_STATE_ACTIVE)
            _change(node, Transition.TRANSITION_DEACTIVATE)
            _change(node, Transition.TRANSITION_CLEANUP)
        else:
            _until_refused(node)
            good = Parameter("model", value="sap-nano").to_parameter_msg()
            request = SetParameters.Request(parameters=[good])
            assert _call(node, SetParameters, "set_parameters", request).results[0].successful
        _change(node, Transition.TRANSITION_CONFIGURE)
        time.sleep(3)
        assert _state(node) == State.PRIMARY_STATE_INACTIVE


def test_the_web_page_is_served_beside_the_node():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with _launched("namespace:=front", "web:=true", f"web_port:={port}") as node:
        _until_state(node, State.PRIMARY_STATE_ACTIVE)
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/page/page.js") as answer:
                    assert answer.status == 200
                break
            except urllib.error.URLError:
                assert time.monotonic() < end, "the page is not served"
                time.sleep(0.2)


def test_each_lens_has_a_topic():
    arguments = ("projection:=dual_fisheye", "camera_file:=insta360", "lens_topics:=true")
    with _launched(
        "namespace:=front", *arguments, "image_front:=/a/image", "image_back:=/b/image"
    ) as node:
        _until_state(node, State.PRIMARY_STATE_ACTIVE)
        assert [node.count_subscribers(t) for t in ("/a/image", "/b/image", "/image")] == [1, 1, 0]


def _declared(file):
    description = PythonLaunchDescriptionSource(str(file)).get_launch_description(LaunchContext())
    return {argument.name: argument for argument in description.get_launch_arguments()}


def test_what_show_args_says_of_the_parameters_holds():
    """Their descriptions name the node's own defaults, which hold where nothing else is said."""
    shown = _declared(LAUNCH_FILE)
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    for name in ("model", "device", "image_transport", "projection"):
        assert f"default: from params_file, else {defaults[name]}" in shown[name].description
    assert defaults["target_frame"] == defaults["camera_file"] == defaults["level_frame"] == ""
    shipped = yaml.safe_load((LAUNCH_FILE.parents[1] / "config" / "sap.yaml").read_text())
    assert not set(shipped["/**"]["ros__parameters"]) & {"use_sim_time", *_NAMES}


def test_replay_has_all_arguments_and_takes_the_time_of_the_bag():
    shown = _declared(REPLAY_FILE)
    assert set(shown) == {"bag", "rate", *_declared(LAUNCH_FILE)}
    (default,) = shown["use_sim_time"].default_value
    assert default.perform(LaunchContext()) == "true"


def test_a_bag_is_played_once_the_node_is_active_and_all_ends_with_it(tmp_path):
    """With a `ros2` that writes down what it is asked, and whether the node is up."""
    said = tmp_path / "said.txt"
    ros2 = tmp_path / "ros2"
    ros2.write_text(
        f"#!{sys.executable}\n"
        "import sys, rclpy\n"
        "from lifecycle_msgs.srv import GetState\n"
        "rclpy.init(args=[])\n"
        "node = rclpy.create_node('ros2')\n"
        "client = node.create_client(GetState, '/sap/sap/get_state')\n"
        "client.wait_for_service(20)\n"
        "answer = client.call_async(GetState.Request())\n"
        "rclpy.spin_until_future_complete(node, answer, timeout_sec=20)\n"
        f"open({str(said)!r}, 'w').write("
        "' '.join([*sys.argv[1:], answer.result().current_state.label]))\n"
        "node.destroy_node()\n"
        "rclpy.shutdown()\n"
    )
    ros2.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    launch = subprocess.run(
        [sys.executable, "-c", _RUN, str(REPLAY_FILE), "bag:=drive.mcap", "rate:=0.5"],
        env=environment,
        timeout=90,
        check=False,
    )
    assert launch.returncode == 0
    assert said.read_text() == "bag play drive.mcap --clock --rate 0.5 active"


def test_a_detector_starts_objects_by_name():
    """The example of a detector: the traced drive's boxes; its parameters name three classes."""
    pytest.importorskip("vision_msgs.msg")
    with _launched("namespace:=front", file=LAUNCH_FILE.with_name("detections.launch.py")) as node:
        heard = []
        node.create_subscription(ObjectArray, "/front/objects", heard.append, 10)
        end = time.monotonic() + 60
        tracked = set()
        while tracked != {"red", "green", "blue"}:
            assert time.monotonic() < end, f"tracked: {tracked}"
            rclpy.spin_once(node, timeout_sec=0.2)
            if heard:
                found = heard[-1].objects
                tracked = {o.label for o in found if o.state == Object.TRACKED}
        assert len(heard[-1].objects) == 3


def test_the_costmap_example_brings_the_node_up():
    with _launched(
        "namespace:=front", file=LAUNCH_FILE.with_name("nav2_costmap.launch.py")
    ) as node:
        _until_state(node, State.PRIMARY_STATE_ACTIVE)
        assert _parameters(node, "ground_frame", "fixed_frame") == ["base_footprint", "odom"]


@pytest.mark.parametrize(
    ("name", "package"), [("follow", "opennav_following"), ("stop", "nav2_collision_monitor")]
)
def test_the_nav2_examples_start_nav2s_own_servers(name, package):
    """Nav2 is not installed: what is to be started is read from the description."""
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE.with_name(f"nav2_{name}.launch.py")))
    context = LaunchContext()
    described = source.get_launch_description(context).entities
    (server,) = [entity for entity in described if isinstance(entity, launch_ros.actions.Node)]
    assert server.node_package == package
    shown = _declared(LAUNCH_FILE.with_name(f"nav2_{name}.launch.py"))
    assert set(shown) == set(_declared(LAUNCH_FILE))
