"""The node: panoramas and clicks in, a label image and bearings out.

Callbacks store and return. One worker thread owns the session: it takes the newest image and the
prompts that have come, and publishes. An image that arrives meanwhile replaces the waiting one.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from sap_ros.core.model import load_model
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.msg import ObjectArray
from sap_ros.node.convert import image_from_labels, image_to_rgb, objects_to_message
from sap_ros.node.parameters import declare_parameters, read_parameters

#: Newest panorama only, from a driver of any reliability.
IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class _StoppedError(Exception):
    """The node is being deactivated: the worker leaves its work as it is."""


class SapNode(LifecycleNode):
    """Lifecycle: configure reads the parameters, activate loads the model, deactivate frees it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sap", **kwargs)
        declare_parameters(self)
        self._values: dict[str, Any] = {}
        self._work = threading.Condition()
        self._image: Image | None = None  # waiting
        self._clicks: list[PointStamped] = []  # waiting
        self._last_stamp: tuple[int, int] | None = None
        self._next_id = 1
        self._running = False
        self._worker: threading.Thread | None = None
        self._inputs: list[Any] = []
        self.get_logger().info("waiting to be configured and activated; the launch file does both")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._values = read_parameters(self)
        except ValueError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._masks = self.create_lifecycle_publisher(Image, "masks", 1)
        self._objects = self.create_lifecycle_publisher(ObjectArray, "objects", 10)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        values = self._values
        try:
            checkpoint = Path(values["checkpoint"]) if values["checkpoint"] else None
            model = load_model(values["model"], checkpoint, values["device"])
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        session = PanoramaSession(model, values["strategy"], fusion=values["fusion"])
        self._next_id, self._last_stamp = 1, None
        self._running = True
        self._worker = threading.Thread(target=self._run, args=(session,), name="sap worker")
        self._worker.start()
        self._inputs = [
            self.create_subscription(Image, "image", self._take_image, IMAGE_QOS),
            self.create_subscription(PointStamped, "prompt/point", self._take_click, 10),
        ]
        self.get_logger().info(
            f"{model.name} is loaded on {model.device}; waiting for "
            f"{self.resolve_topic_name('image')} and {self.resolve_topic_name('prompt/point')}"
        )
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.destroy_publisher(self._masks)
        self.destroy_publisher(self._objects)
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return super().on_shutdown(state)

    def stop(self) -> None:
        """Ends the worker, at the next view; what it was doing is not published."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        with self._work:
            self._running = False
            self._work.notify()
        if self._worker:
            self._worker.join()
        self._worker = None
        self._image, self._clicks = None, []

    def _take_image(self, message: Image) -> None:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        if stamp == self._last_stamp:
            return
        with self._work:
            self._last_stamp, self._image = stamp, message
            self._work.notify()

    def _take_click(self, message: PointStamped) -> None:
        with self._work:
            self._clicks.append(message)
            self._work.notify()

    def _run(self, session: PanoramaSession) -> None:
        """The worker: whatever arrives, the next image is answered."""
        current: Image | None = None
        while True:
            with self._work:
                # A click waits for the first image; an image with nothing to look for is kept.
                while self._running and not self._image and not (self._clicks and current):
                    self._work.wait()
                if not self._running:
                    return
                image, self._image = self._image, None
                clicks, self._clicks = self._clicks, []
            try:
                if image:
                    session.set_image(image_to_rgb(image))
                    current = image
                for click in clicks:
                    self._add(session, click)
                if session.object_ids and current:
                    self._publish(session, current)
            except _StoppedError:
                return
            except Exception as error:  # the node outlives whatever arrives
                self.get_logger().error(f"{type(error).__name__}: {error}", throttle_duration_sec=1)

    def _add(self, session: PanoramaSession, click: PointStamped) -> None:
        """Each click on the panorama is a new object."""
        try:
            prompt = from_pixels(self._next_id, [(click.point.x, click.point.y)], session.size)
        except ValueError as error:
            self.get_logger().warning(f"the click is not used: {error}")
            return
        session.add_prompt(prompt)
        self._next_id += 1

    def _publish(self, session: PanoramaSession, image: Image) -> None:
        def check(done: int, count: int, object_id: int) -> None:
            if not self._running:
                raise _StoppedError

        instances = session.segment(check)
        masks = image_from_labels(instances.labels, self._values["mask_encoding"], image.header)
        self._masks.publish(masks)
        self._objects.publish(objects_to_message(instances, image.header))


def main() -> None:
    """Runs the node until SIGINT or SIGTERM."""
    rclpy.init()
    node = SapNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.stop()
        node.destroy_node()
        rclpy.try_shutdown()
