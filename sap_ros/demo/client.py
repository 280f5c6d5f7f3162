"""Starts the node as a separate process, and a client that sends it images and clicks over DDS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from sap_ros.allocation import reuse_freed_memory
from sap_ros.core.instances import Instances, State, measure
from sap_ros.msg import ObjectArray
from sap_ros.video_encoder import VideoEncoder

_NAMESPACE, _FRAME = "/sap", "camera_link"
_START_UP, _ANSWER = 120.0, 900.0  # seconds

# Of Fast DDS: up to Jazzy, and from Kilted on.
_PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
_SHARED = Path("/dev/shm")
_LEAST_SHARED = 256 << 20  # bytes: four processes

Click = tuple[float, float]
Stamp = tuple[int, int]  # seconds and nanoseconds
Transport = Literal["raw", "compressed"]

_IMAGE_TOPICS = {"raw": "image", "compressed": "image/compressed"}


@dataclass(frozen=True)
class Answer:
    """What the node published for an image.

    Attributes:
        index: index of the image, in the order of publishing.
        instances: its masks and objects.
        latency: from publishing the image to receiving the result, in s.
    """

    index: int
    instances: Instances
    latency: float


@contextmanager
def running_node(
    model: str,
    device: str,
    strategy: str,
    backend: str,
    transport: Transport = "raw",
    camera_file: str = "",
    codec: str = "",
) -> Iterator[Client]:
    """Starts the installed node as a separate process and activates it; ends it when done.

    Args:
        model, device, strategy, backend: parameters of the node.
        transport: how images are sent to it; ``compressed`` means JPEG.
        camera_file: the pictures are those of two fisheye lenses, described by this file or preset.
        codec: the images are sent as a video, as ``compressed``; empty: not.

    Raises:
        OSError: the node does not start, or has died.
    """
    executable = Path(get_package_prefix("sap_ros")) / "lib" / "sap_ros" / "sap_node"
    # With best effort, 25 MB messages lose fragments if the system's socket buffers are small.
    topic = f"{_NAMESPACE}/{_IMAGE_TOPICS[transport]}"
    reliable = f"qos_overrides.{topic}.subscription.reliability:=reliable"
    command = [str(executable), "--ros-args", "-r", f"__ns:={_NAMESPACE}"]
    values = {"model": model, "device": device, "strategy": strategy, "backend": backend}
    values["image_transport"] = transport
    if camera_file:
        values |= {"projection": "dual_fisheye", "camera_file": camera_file}
    for parameter in (*(f"{name}:={value}" for name, value in values.items()), reliable):
        command += ["-p", parameter]
    if shutil.which("python3") is None:
        raise OSError("python3 is not on the PATH; activate the environment first")
    # Discovery stays on this machine, whatever the network, unless the user set it otherwise. Humble knows only
    # the second variable, which later distributions warn of.
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    share_memory()
    process = subprocess.Popen(command)
    try:
        with client_of(process.pid, transport, codec) as client:
            client.bring_up()
            yield client
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


def share_memory() -> None:
    """Fast DDS, in this process and those that it starts, passes large images through shared memory.

    Before rclpy is initialised. Not where the user has chosen a profile, or where there is little shared memory.
    """
    if any(name in os.environ for name in _PROFILES):
        return
    if not _SHARED.exists() or shutil.disk_usage(_SHARED).free < _LEAST_SHARED:
        return
    profile = Path(get_package_share_directory("sap_ros")) / "config" / "fastdds.xml"
    os.environ.update(dict.fromkeys(_PROFILES, str(profile)))


@contextmanager
def client_of(node_pid: int, transport: Transport, codec: str = "") -> Iterator[Client]:
    """A client of the node with this process id, which need not be up yet."""
    reuse_freed_memory()
    rclpy.init()
    client = Client(transport, node_pid, codec)
    try:
        yield client
    finally:
        uninstall_signal_handlers()  # ends their thread before its data is freed, as in the node's main
        client.destroy_node()
        rclpy.try_shutdown()


class Client(Node):
    """Acts as camera driver, as the user who clicks, and as subscriber of the masks.

    Args:
        transport: how images are published.
        node_pid: process id of the node.
        codec: of the video that the images are sent as (``compressed``); empty: they are sent one by one.
    """

    def __init__(self, transport: Transport, node_pid: int, codec: str = "") -> None:
        super().__init__("sap_demo", namespace=_NAMESPACE)
        self.node_pid, self._transport, self._codec = node_pid, transport, codec
        self._encoder: VideoEncoder | None = None
        kind = Image if transport == "raw" else CompressedImage
        self._image = self.create_publisher(kind, _IMAGE_TOPICS[transport], 1)
        self._click = self.create_publisher(PointStamped, "prompt/point", 10)
        self._sent: dict[Stamp, tuple[int, float]] = {}  # index and time, by stamp
        self._masks: dict[Stamp, tuple[Image, float]] = {}
        self._found: dict[Stamp, tuple[ObjectArray, float]] = {}
        self._encoded: list[int] = []
        self.create_subscription(Image, "masks", self._take_masks, 10)
        self.create_subscription(ObjectArray, "objects", self._take_objects, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, 10)

    def _take_masks(self, message: Image) -> None:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._masks[stamp] = message, time.monotonic()

    def _take_objects(self, message: ObjectArray) -> None:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._found[stamp] = message, time.monotonic()

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f"{_NAMESPACE}/sap:".lstrip("/")):
                self._encoded += [int(v.value) for v in status.values if v.key == "views_encoded"]

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
        self.wait_for_subscriber()
        self._wait(self._click.get_subscription_count, "subscribe")

    def wait_for_subscriber(self) -> None:
        """Waits until the images have a subscriber and the masks a publisher."""
        self._wait(self._image.get_subscription_count, "subscribe")
        self._wait(lambda: self.count_publishers("masks"), "publish")

    def reset(self) -> None:
        """Removes all objects from the node, and discards what was received so far."""
        service = self.create_client(Trigger, "reset")
        answer = service.call_async(Trigger.Request())
        rclpy.spin_until_future_complete(self, answer, timeout_sec=_START_UP)
        for kept in (self._sent, self._masks, self._found, self._encoded):
            kept.clear()

    def ask(self, image: np.ndarray, clicks: Sequence[Click]) -> Answer:
        """Publishes a panorama (H, W, 3) uint8 RGB and one click per object; waits for all masks."""
        message = self._message(image)
        stamp = self._publish(message, len(self._sent))
        sent = time.monotonic()
        # A click whose panorama does not come is soon taken for one on the panorama before.
        self._wait(
            lambda: self._image.wait_for_all_acked(Duration(seconds=0.05)), "take a panorama"
        )
        for u, v in clicks:
            click = PointStamped(header=message.header)
            click.point.x, click.point.y = u, v
            self._click.publish(click)

        def answered() -> bool:
            nonlocal sent
            # A lost panorama is sent again. The node processes each stamp only once.
            if time.monotonic() - sent > 3.0:
                sent = time.monotonic()
                self._image.publish(message)
            masks, found = self._masks.get(stamp, (None,))[0], self._found.get(stamp)
            if masks is None or found is None or len(found[0].objects) < len(clicks):
                return False
            # Both topics are published again after each click, and may arrive in either order.
            tracked = [message.id for message in found[0].objects if message.state == State.TRACKED]
            return bool(np.isin(tracked, np.frombuffer(masks.data, np.uint8)).all())

        self._wait(answered, "answer", _ANSWER)
        return self._answer(stamp)

    def publish(self, image: np.ndarray) -> Stamp:
        """Publishes a panorama (H, W, 3) uint8 RGB without waiting; returns its stamp."""
        return self._publish(self._message(image), len(self._sent))

    def follow(self, image: np.ndarray) -> float:
        """Publishes a panorama on which objects are tracked; returns the time to its masks, in s."""
        message = self._message(image)
        began = time.monotonic()
        stamp = self._publish(message, len(self._sent))
        return self._answered(stamp) - began

    def click(self, stamp: Stamp, click: Click) -> float:
        """Publishes a first click (u, v) on a panorama; returns the time to its mask, in s."""
        message = PointStamped()
        message.header.frame_id = _FRAME
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
        message.point.x, message.point.y = click
        self._masks.pop(stamp, None)  # an answer from before the click does not count
        self._found.pop(stamp, None)
        began = time.monotonic()
        self._click.publish(message)
        return self._answered(stamp) - began

    def _answered(self, stamp: Stamp) -> float:
        """Waits for masks and objects of a panorama; returns the arrival time of the later message."""
        answers: tuple[dict[Stamp, Any], ...] = (self._masks, self._found)
        self._wait(lambda: all(stamp in received for received in answers), "answer")
        return max(received[stamp][1] for received in answers)

    def wait(self, seconds: float) -> None:
        """Receives messages for a number of seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._spin(left)

    def stream(self, images: Sequence[np.ndarray], period: float) -> list[Answer]:
        """Publishes a panorama every ``period`` seconds, whether or not the node keeps up.

        Returns:
            The results for those images that the node processed.
        """
        self._encoded.clear()
        began, stamps = time.monotonic(), []
        for k, image in enumerate(images):
            message = self._message(image)
            while time.monotonic() < began + k * period:
                self._spin(max(0.0, began + k * period - time.monotonic()))
            message.header.stamp = self.get_clock().now().to_msg()
            stamps.append(self._publish(message, k))
        # The newest image is always answered.
        self._wait(lambda: stamps[-1] in self._masks and stamps[-1] in self._found, "answer")
        return [self._answer(s) for s in stamps if s in self._masks and s in self._found]

    @property
    def views_encoded(self) -> list[int]:
        """Number of views encoded per image of the stream, sampled once per second from the diagnostics."""
        return list(self._encoded)

    def _message(self, image: np.ndarray) -> Image | CompressedImage:
        if self._transport == "raw":
            message = Image(encoding="rgb8", height=image.shape[0], width=image.shape[1])
            message.step = 3 * image.shape[1]
            data = image.tobytes()
        elif self._codec:
            if self._encoder is None:
                self._encoder = VideoEncoder(self._codec, (image.shape[1], image.shape[0]))
            message = CompressedImage(format=self._codec)
            (data,) = self._encoder.encode(image)
        else:
            message = CompressedImage(format="jpeg")
            data = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
        message.data.frombytes(data)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = _FRAME
        return message

    def _publish(self, message: Image | CompressedImage, index: int) -> Stamp:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._sent[stamp] = index, time.monotonic()
        self._image.publish(message)
        return stamp

    def _answer(self, stamp: Stamp) -> Answer:
        (index, sent), (found, came) = self._sent[stamp], self._found[stamp]
        return Answer(index, _instances(self._masks[stamp][0], found), came - sent)

    def _spin(self, seconds: float) -> None:
        if not rclpy.ok():
            raise KeyboardInterrupt  # rclpy has taken the signal
        rclpy.spin_once(self, timeout_sec=seconds)

    def _wait(self, ready: Callable[[], object], what: str, seconds: float = _START_UP) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise OSError(f"the node did not {what} within {seconds:.0f} s")
            self._spin(0.1)


def _instances(masks: Image, found: ObjectArray) -> Instances:
    """Converts the messages to the core's types; extents are measured from the masks."""
    labels = np.frombuffer(masks.data, np.uint8).reshape(masks.height, masks.step)
    objects = []
    for message in found.objects:
        at = message.direction
        objects.append(
            replace(
                measure(labels == message.id, message.id, message.score),
                state=State(message.state),
                direction=np.array([at.x, at.y, at.z]),
                azimuth=message.azimuth,
                elevation=message.elevation,
            )
        )
    return Instances(labels, tuple(objects))
