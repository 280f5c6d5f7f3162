"""The page's back end for a live camera: it has no model and uses the node over ROS 2.

It forwards the node's topic ``overlay/compressed`` to the pages unchanged. It subscribes to the topic only
while a page is open, because the node draws the overlay only for subscribers.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point as PointMessage
from rcl_interfaces.srv import GetParameters
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger

from sap_ros.engine.axes import ImageAxes
from sap_ros.messages import nanoseconds
from sap_ros.msg import ObjectArray, Prompt
from sap_ros.srv import AddObject, RemoveObject
from sap_ros.web.access import make_access
from sap_ros.web.commands import Box, Command, Done, Point, Rename, Simple, Vector
from sap_ros.web.commands import RemoveObject as RemoveCommand
from sap_ros.web.server import serve
from sap_ros.web.viewers import Viewers, finite, vector

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8360

#: Time without diagnostics, in s, after which the node counts as not running; it publishes them every second.
NODE_SILENCE = 3.0
#: Time without an image, in s, after which pages show an alert.
CAMERA_SILENCE = 2.0

_WATCH = 0.25  # s, period of the checks for open pages and for a silent node or camera
_FIND, _ANSWER = 1.0, 8.0  # s, maximum wait until a service exists, and until it answers
_AXES = ("forward_column", "image_frame_convention")


class PageNode(Node):
    """The ROS side: subscribes to the node's topics and calls its services.

    Attributes:
        objects: the newest objects; None: none were received.
        frame_id: TF frame of the newest image.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sap_web", **kwargs)
        self.host = str(self.declare_parameter("host", DEFAULT_HOST).value)
        self.port = int(self.declare_parameter("port", DEFAULT_PORT).value)
        name = str(self.declare_parameter("node", "sap").value)
        self.target = self.resolve_service_name(name)  # the node's full name
        self._viewers: Viewers | None = None
        self._overlay: Any = None
        self._status: dict[str, str] = {}
        self._summary = self._topic = ""
        self._heard = -math.inf  # time of the node's last diagnostics
        self._was_there = False  # at the last check
        self._axes: ImageAxes | None = None
        self.objects: ObjectArray | None = None
        self.frame_id = ""
        self.add = self.create_client(AddObject, "add_object")
        self.remove = self.create_client(RemoveObject, "remove_object")
        self.reset = self.create_client(Trigger, "reset")
        self._parameters = self.create_client(GetParameters, f"{name}/get_parameters")

    def show(self, viewers: Viewers) -> None:
        """Starts to send images and state to the pages."""
        self._viewers = viewers
        self.create_subscription(ObjectArray, "objects", self._take_objects, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, 10)
        # A steady clock: simulated time may be paused.
        self.create_timer(_WATCH, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _take_image(self, message: CompressedImage) -> None:
        assert self._viewers is not None
        self.frame_id = message.header.frame_id
        stamp = str(nanoseconds(message.header.stamp))
        self._viewers.show("image", {"stamp": stamp}, bytes(message.data))

    def _take_objects(self, message: ObjectArray) -> None:
        self.objects = message
        self._tell()

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        name = f"{self.target.lstrip('/')}: segmentation"
        for status in message.status:
            if status.name != name:
                continue
            self._heard = time.monotonic()
            self._status = {pair.key: pair.value for pair in status.values}
            self._summary, self._topic = status.message, status.hardware_id
            if not self._active:
                self._axes = None  # it may get another configuration
            self._tell()

    def _watch(self) -> None:
        assert self._viewers is not None
        if self._viewers.count and self._overlay is None:
            newest = QoSProfile(depth=1)
            self._overlay = self.create_subscription(
                CompressedImage, "overlay/compressed", self._take_image, newest
            )
        elif not self._viewers.count and self._overlay is not None:
            self.destroy_subscription(self._overlay)
            self._overlay = None
        there = self._is_there
        if self._was_there and not there:  # another node may come with other parameters and objects
            self._axes = self.objects = None
        self._was_there = there
        self._tell()

    @property
    def _is_there(self) -> bool:
        return time.monotonic() - self._heard < NODE_SILENCE

    @property
    def _active(self) -> bool:
        return self._summary != "not active"

    def _alert(self) -> str:
        """A line for the user if node or camera are not running; otherwise empty."""
        if not self._is_there:
            return f"The node {self.target} is not running."
        if not self._active:
            return (
                f"The node {self.target} is not active: configure and activate it, as the launch file "
                "does."
            )
        if self._summary == "disabled":
            return f"The node {self.target} ignores images: it was disabled by its service enable."
        age = self._number("image_age_s")
        if age is None:
            return f"No image has been received on {self._topic} yet. Is the camera driver running?"
        if age > CAMERA_SILENCE:
            return f"No image has been received on {self._topic} for {age:.0f} s. Is the camera running?"
        return ""

    def _number(self, key: str) -> float | None:
        try:
            return finite(float(self._status[key]))
        except (KeyError, ValueError):
            return None

    def _tell(self) -> None:
        assert self._viewers is not None
        objects, there = self.objects, self._is_there
        names = {"rate": "rate_hz", "latency": "latency_s", "dropped": "dropped"}
        self._viewers.tell(
            {
                "mode": "live",
                "title": self.target,
                "alert": self._alert(),
                "objects": [self._row(o, objects.header.frame_id) for o in objects.objects]
                if objects
                else [],
                "live": {name: self._number(key) if there else None for name, key in names.items()},
            }
        )

    def _row(self, message: Any, frame_id: str) -> Mapping[str, Any]:
        direction = None
        if self._axes is not None and frame_id == self.frame_id:
            at = message.direction
            direction = vector(*self._axes.from_frame(np.array([at.x, at.y, at.z])))
        states = {message.PENDING: "PENDING", message.TRACKED: "TRACKED", message.LOST: "LOST"}
        return {
            "id": message.id,
            "label": message.label,
            "state": states.get(message.state, "REJECTED"),
            "direction": direction,
            "azimuth": finite(message.azimuth),
            "elevation": finite(message.elevation),
            "score": finite(message.score),
            "range": finite(message.range),
            "reason": message.reason,
        }

    # Called in the event loop

    async def axes(self) -> ImageAxes:
        """Orientation of the panorama in the TF frame of its images, from the node's parameters.

        Raises:
            ValueError: the parameters cannot be read.
        """
        if self._axes is None:
            answer = await call(self._parameters, GetParameters.Request(names=list(_AXES)))
            values = [parameter_value_to_python(value) for value in answer.values]
            if len(values) != len(_AXES) or None in values:
                raise ValueError(f"{self.target} has no parameters {' and '.join(_AXES)}")
            self._axes = ImageAxes(*values)
        return self._axes


class Live:
    """The page's back end, with a node that is spun in a separate thread."""

    def __init__(self, node: PageNode) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="sap_web ROS")

    async def start(self, viewers: Viewers) -> None:
        self._node.show(viewers)
        self._thread.start()

    async def stop(self) -> None:
        self._executor.shutdown()
        await asyncio.to_thread(self._thread.join)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    async def handle(self, command: Command) -> Done:
        node = self._node
        if isinstance(command, RemoveCommand):
            answer = await call(node.remove, RemoveObject.Request(object_id=command.object_id))
        elif isinstance(command, Rename):
            if not command.label:
                raise ValueError("the label is empty; a label can be replaced, but not removed")
            prompt = Prompt(object_id=command.object_id, label=command.label)
            answer = await call(node.add, AddObject.Request(prompt=prompt))
        elif isinstance(command, Simple):
            if command.name != "reset":
                raise ValueError(f"{command.name} needs panoramas in files; this is a live camera")
            answer = await call(node.reset, Trigger.Request())
        else:
            prompt = prompt_message(command, await node.axes(), node.frame_id)
            answer = await call(node.add, AddObject.Request(prompt=prompt))
        if not answer.success:
            raise ValueError(answer.message)
        return Done(answer.message, getattr(answer, "object_id", 0))


def prompt_message(command: Point | Box, axes: ImageAxes, frame_id: str) -> Prompt:
    """Converts a click to the node's message: directions in the image's frame, with the image's stamp."""
    prompt = Prompt(object_id=command.object_id, space=Prompt.DIRECTIONS)
    prompt.header.frame_id = frame_id
    prompt.header.stamp = Time(nanoseconds=command.stamp).to_msg()
    if isinstance(command, Point):
        prompt.points = _places([command.direction], axes)
        prompt.labels = [int(command.positive)]
    else:
        prompt.box = _places(command.corners, axes)
    return prompt


def _places(directions: Sequence[Vector], axes: ImageAxes) -> list[PointMessage]:
    in_frame = axes.to_frame(np.array(directions))
    return [PointMessage(x=float(x), y=float(y), z=float(z)) for x, y, z in in_frame]


async def call(client: Any, request: Any) -> Any:
    """Calls a service; returns its answer.

    Raises:
        ValueError: the service does not exist, or did not answer in time.
    """
    end = time.monotonic() + _FIND
    while not client.service_is_ready():
        if time.monotonic() > end:
            raise ValueError(f"there is no service {client.srv_name}; is the node running?")
        await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    pending = client.call_async(request)
    pending.add_done_callback(lambda _: loop.call_soon_threadsafe(answered.set))
    try:
        await asyncio.wait_for(answered.wait(), _ANSWER)
    except asyncio.TimeoutError:
        client.remove_pending_request(pending)
        raise ValueError(f"{client.srv_name} did not answer within {_ANSWER:g} s") from None
    return pending.result()


def main() -> None:
    """Serves the page until SIGINT or SIGTERM."""
    # The event loop handles signals.
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = PageNode()
    try:
        asyncio.run(serve(Live(node), make_access(node.host, node.port)))
    except (OSError, ValueError) as error:
        raise SystemExit(f"sap_web: {error}") from None
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
