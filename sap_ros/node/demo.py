"""The demo: starts the node as a process of its own, and talks to it over DDS as a driver would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from geometry_msgs.msg import PointStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from sensor_msgs.msg import Image

from sap_ros.core.instances import Instances, State, measure
from sap_ros.core.overlay import contact_sheet, draw_overlay
from sap_ros.core.projection import ViewRenderer
from sap_ros.core.prompts import from_pixels
from sap_ros.core.trajectory import Trajectory
from sap_ros.files import read_panorama, write_image
from sap_ros.msg import ObjectArray
from sap_ros.report import print_objects, write_objects

SHIPPED = Path(__file__).parents[1] / "data" / "demo"

_NAMESPACE = "/sap"
_START_UP, _ANSWER = 120.0, 900.0  # seconds


def run_demo(
    panorama: Path | None, points: list[str], out: Path, model: str, device: str, strategy: str
) -> None:
    """Segments a panorama with the node, over DDS, and writes pictures of it.

    Args:
        panorama: a panorama file; None takes the shipped one, and compares with its true masks.
        points: ``U,V`` in pixels, an object each; empty takes the shipped clicks.
        out: folder to write to.
        model, device, strategy: the node's parameters.

    Raises:
        ValueError: the panorama or a point cannot be used.
        OSError: the node does not start or does not answer.
    """
    truth: np.ndarray | None = None
    names: dict[int, str] = {}
    if panorama is None:
        image = read_panorama(SHIPPED / "panorama.jpg")
        truth = cv2.imread(str(SHIPPED / "instances.png"), cv2.IMREAD_UNCHANGED)
        objects = json.loads((SHIPPED / "objects.json").read_text())
        names = {thing["id"]: thing["name"] for thing in objects}
        clicks = [tuple(thing["click"]) for thing in objects]
    else:
        image = read_panorama(panorama)
        if not points:
            raise ValueError("a panorama of your own needs a point: POINT=u,v (or --point U,V)")
        clicks = []
    clicks = [_pixel(text) for text in points] or clicks
    if points:
        truth = None
    size = image.shape[1], image.shape[0]
    prompts = [from_pixels(i, [click], size) for i, click in enumerate(clicks, 1)]
    began = time.monotonic()
    with _node(model, device, strategy), _client() as client:
        print(
            f"The node is up after {time.monotonic() - began:.1f} s; publishing {size[0]}x{size[1]}"
        )
        asked = time.monotonic()
        masks, found = client.ask(image, clicks)
        print(f"Masks and bearings came after {time.monotonic() - asked:.1f} s")
    instances = _instances(masks, found)
    out.mkdir(parents=True, exist_ok=True)
    write_image(out / "masks.png", instances.labels)
    write_image(out / "overlay.jpg", draw_overlay(image, instances, prompts))
    write_image(out / "views.jpg", _views(image, instances.labels))
    write_objects(out / "objects.json", instances)
    iou = None
    if truth is not None:
        iou = {i: (names[i], _iou(instances.labels == i, truth == i)) for i in names}
    print_objects(instances, iou)
    print(f"Written to {out}/: masks.png, overlay.jpg, views.jpg, objects.json")


def _pixel(text: str) -> tuple[float, float]:
    try:
        u, v = (float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no point; it must read U,V") from None
    return u, v


@contextmanager
def _node(model: str, device: str, strategy: str) -> Iterator[None]:
    """The node's process, from the installed package, ended when done."""
    executable = Path(get_package_prefix("sap_ros")) / "lib" / "sap_ros" / "sap_node"
    # Best effort loses pieces of 25 MB messages where the system's socket buffers are small.
    reliable = f"qos_overrides.{_NAMESPACE}/image.subscription.reliability:=reliable"
    parameters = [f"model:={model}", f"device:={device}", f"strategy:={strategy}", reliable]
    command = [str(executable), "--ros-args", "-r", f"__ns:={_NAMESPACE}"]
    for parameter in parameters:
        command += ["-p", parameter]
    if shutil.which("python3") is None:
        raise OSError("python3 is not on the PATH; activate the environment first")
    # Discovery stays on this machine, whatever the network, unless the user set it otherwise.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    process = subprocess.Popen(command)
    try:
        yield
        if process.poll() is not None:
            raise OSError(f"the node ended with exit code {process.returncode}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _client() -> Iterator[_Client]:
    rclpy.init()
    client = _Client()
    try:
        client.bring_up()
        yield client
    finally:
        client.destroy_node()
        rclpy.try_shutdown()


class _Client(Node):
    """A camera driver, a person who clicks, and whoever uses the masks."""

    def __init__(self) -> None:
        super().__init__("sap_demo", namespace=_NAMESPACE)
        self._image = self.create_publisher(Image, "image", 1)
        self._click = self.create_publisher(PointStamped, "prompt/point", 10)
        self._masks: dict[tuple[int, int], Image] = {}
        self._found: ObjectArray | None = None
        self.create_subscription(Image, "masks", self._take_masks, 1)
        self.create_subscription(ObjectArray, "objects", self._take_objects, 10)

    def _take_masks(self, message: Image) -> None:
        self._masks[message.header.stamp.sec, message.header.stamp.nanosec] = message

    def _take_objects(self, message: ObjectArray) -> None:
        self._found = message

    def bring_up(self) -> None:
        """Configures and activates the node, as the launch file does."""
        service = self.create_client(ChangeState, "sap/change_state")
        if not service.wait_for_service(_START_UP):
            raise OSError(f"the node did not come up within {_START_UP:.0f} s")
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            answer = service.call_async(request)
            rclpy.spin_until_future_complete(self, answer, timeout_sec=_START_UP)
            if not answer.done() or not answer.result().success:
                raise OSError("the node could not be started; its log above says why")

    def ask(
        self, image: np.ndarray, clicks: list[tuple[float, float]]
    ) -> tuple[Image, ObjectArray]:
        """Publishes the panorama and the clicks; what comes back when all objects are looked for."""
        message = Image(encoding="rgb8", height=image.shape[0], width=image.shape[1])
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = "camera_link"
        message.step = 3 * image.shape[1]
        message.data.frombytes(image.tobytes())
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._wait(self._subscribed, _START_UP, "subscribe")
        for u, v in clicks:
            click = PointStamped(header=message.header)
            click.point.x, click.point.y = u, v
            self._click.publish(click)
        sent = -3.0

        def answered() -> bool:
            nonlocal sent
            # The input is best effort: a panorama that was lost is sent again. The node takes a
            # stamp once only.
            if time.monotonic() - sent > 3.0:
                sent = time.monotonic()
                self._image.publish(message)
            return (
                self._found is not None
                and stamp in self._masks
                and len(self._found.objects) == len(clicks)
            )

        self._wait(answered, _ANSWER, "answer")
        assert self._found is not None
        return self._masks[stamp], self._found

    def _subscribed(self) -> bool:
        publishers = (self._image, self._click)
        return all(publisher.get_subscription_count() > 0 for publisher in publishers)

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise OSError(f"the node did not {what} within {seconds:.0f} s")
            if not rclpy.ok():
                raise KeyboardInterrupt  # rclpy has taken the signal
            rclpy.spin_once(self, timeout_sec=0.1)


def _instances(masks: Image, found: ObjectArray) -> Instances:
    """The messages as the core's types; extents are measured on the masks."""
    labels = np.frombuffer(masks.data, np.uint8).reshape(masks.height, masks.step)
    objects = []
    for thing in found.objects:
        at = thing.direction
        objects.append(
            replace(
                measure(labels == thing.id, thing.id, thing.score),
                state=State(thing.state),
                direction=np.array([at.x, at.y, at.z]),
                azimuth=thing.azimuth,
                elevation=thing.elevation,
            )
        )
    return Instances(labels, tuple(objects))


def _views(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The views of the scan with the published masks on them."""
    trajectory, side = Trajectory(), 256
    of_image = ViewRenderer(image, side, trajectory.fov)
    of_labels = ViewRenderer(labels, side, trajectory.fov, labels=True)
    return contact_sheet(
        [
            (of_image.render(view), of_labels.render(view), f"view {i}")
            for i, view in enumerate(trajectory.views)
        ]
    )


def _iou(found: np.ndarray, true: np.ndarray) -> float:
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 0.0
