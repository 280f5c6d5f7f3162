"""The node: panoramas and prompts in, a label image and bearings out.

Callbacks store and return; :class:`sap_ros.node.worker.Worker` owns the model. Whatever arrives, the
next good image is answered.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, Vector3Stamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from sap_ros.core.framing import Framing
from sap_ros.core.model import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.msg import Prompt as PromptMessage
from sap_ros.node.convert import canvas_to_pixels
from sap_ros.node.diagnostics import Health
from sap_ros.node.frames import Transforms
from sap_ros.node.outputs import Outputs
from sap_ros.node.parameters import check_changes, declare_parameters, following, read_parameters
from sap_ros.node.registry import Registry
from sap_ros.node.worker import Result, Worker
from sap_ros.srv import AddObject, RemoveObject


def _newest(reliability: ReliabilityPolicy = ReliabilityPolicy.BEST_EFFORT) -> QoSProfile:
    """The newest message only.

    A new one each time: overriding parameters are written into the profile.
    """
    return QoSProfile(depth=1, reliability=reliability)


class SapNode(LifecycleNode):
    """Lifecycle: configure reads the parameters, activate loads the model, deactivate frees it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sap", **kwargs)
        declare_parameters(self)
        self.add_on_set_parameters_callback(self._change_parameters)
        self._values: dict[str, Any] = {}
        self._enabled = True
        self._cloud: PointCloud2 | None = None
        self._worker: Worker | None = None
        self._outputs: Outputs | None = None
        self._inputs: list[Any] = []
        self._health = Health()
        self._warned = "", 0.0
        self._reliability = ReliabilityPolicy.BEST_EFFORT  # of the images' subscription
        self._former: Any = None  # the one before it
        self._transforms = Transforms(self)
        self._registry = Registry(self._transforms)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Diagnostics are to come while a simulated clock stands still, too.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_service(AddObject, "add_object", self._serve_add)
        self.create_service(RemoveObject, "remove_object", self._serve_remove)
        self.create_service(Trigger, "reset", self._serve_reset)
        self.create_service(SetBool, "enable", self._serve_enable)
        self.get_logger().info("waiting to be configured and activated; the launch file does both")

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._values = read_parameters(self)
        except ValueError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._outputs = Outputs(self, self._transforms, self._warn)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        values = self._values
        try:
            checkpoint = Path(values["checkpoint"]) if values["checkpoint"] else None
            model = load_model(
                values["model"],
                checkpoint,
                values["device"],
                values["view_size"] or None,
                compiled=values["compile"],
            )
            session = PanoramaSession(
                model,
                values["strategy"],
                fusion=values["fusion"],
                following=following(values),
                framing=Framing(further=values["further_views"]),
                coarse=values["coarse_size"],
            )
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._forget()
        self._health = Health()
        self._worker = Worker(
            session, self._publish, self._fail, self._wanted, values["keep_frames"]
        )
        done = super().on_activate(state)
        self._subscribe()
        self.get_logger().info(
            f"{model.name} is loaded on {model.device}; waiting for "
            f"{self._inputs[0].topic_name} and {self.resolve_topic_name('prompt/point')}"
        )
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        self._close()
        return super().on_shutdown(state)

    def stop(self) -> None:
        """Ends the worker, at the next view, and frees the model."""
        for subscription in (*self._inputs, self._former):
            if subscription is not None:
                self.destroy_subscription(subscription)
        self._inputs, self._former = [], None
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        worker, self._worker = self._worker, None
        if worker:
            worker.stop()
        self._forget()

    def _close(self) -> None:
        if self._outputs:
            self._outputs.destroy()
        self._outputs, self._values = None, {}

    def _forget(self) -> None:
        self._registry.forget()
        self._cloud = None

    def _subscribe(self) -> None:
        self._inputs = [
            self._subscribe_to_images(_newest(), QoSOverridingOptions.with_default_policies()),
            self.create_subscription(PromptMessage, "prompt", self._take_prompt, 10),
            self.create_subscription(PointStamped, "prompt/point", self._take_point, 10),
            self.create_subscription(Point, "prompt/pixel", self._take_pixel, 10),
            self.create_subscription(PointStamped, "prompt/position", self._take_position, 10),
            self.create_subscription(Vector3Stamped, "prompt/gaze", self._take_gaze, 10),
            self.create_subscription(PointCloud2, "points", self._take_cloud, _newest()),
        ]

    def _subscribe_to_images(
        self, quality: QoSProfile, overriding: QoSOverridingOptions | None = None
    ) -> Any:
        raw = self._values["image_transport"] == "raw"
        kind, topic = (Image, "image") if raw else (CompressedImage, "image/compressed")
        return self.create_subscription(
            kind,
            topic,
            self._take_image,
            quality,
            qos_overriding_options=overriding,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
        )

    def _follow_drivers(self) -> None:
        """Takes images reliably where all who publish them offer that; a parameter overrides it.

        Best effort is heard by all drivers, and loses pieces of large images.
        """
        if not self._inputs:
            return
        images = self._inputs[0]
        of_images = f"qos_overrides.{images.topic_name}.subscription"
        if any(name.startswith(of_images) for name in self._parameter_overrides):
            return
        offers = [
            info.qos_profile.reliability
            for info in self.get_publishers_info_by_topic(images.topic_name)
        ]
        reliable = bool(offers) and all(o == ReliabilityPolicy.RELIABLE for o in offers)
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if self._former is not None:
            self.destroy_subscription(self._former)
            self._former = None
        elif wanted != self._reliability and offers:
            # The former one is kept until the new one is known: a stamp is taken once anyway.
            self._reliability, self._former = wanted, images
            self._inputs[0] = self._subscribe_to_images(_newest(wanted))

    def _change_parameters(self, changes: list[Any]) -> SetParametersResult:
        try:
            values = check_changes(changes, configured=bool(self._values))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._values:
            self._values = {**self._values, **values}
            if self._worker and values:
                limits = following(self._values)
                self._worker.command(lambda session: setattr(session, "following", limits))
        return SetParametersResult(successful=True)

    # Inputs

    def _take_image(self, message: Image | CompressedImage) -> None:
        if self._worker is None or not self._enabled:
            return
        if isinstance(message, Image):
            self._registry.size = message.width, message.height
        self._registry.frame = message.header.frame_id
        self._worker.offer(message)

    def _take_cloud(self, message: PointCloud2) -> None:
        self._cloud = message

    def _take_prompt(self, message: PromptMessage) -> None:
        object_id, error = self._request(message)
        if error:
            self._warn(f"the prompt for object {object_id} is rejected: {error}")

    def _take_point(self, message: PointStamped) -> None:
        """A click on the panorama: a pixel, and a new object."""
        self._take_prompt(PromptMessage(header=message.header, points=[message.point]))

    def _take_pixel(self, message: Point) -> None:
        """A click in rqt_image_view, which publishes pixels without a header."""
        self._take_prompt(PromptMessage(points=[message]))

    def _take_position(self, message: PointStamped) -> None:
        """A click in a 3D view of rviz2 or Foxglove: on the canvas, or a place anywhere else."""
        if self._outputs and message.header.frame_id == self._outputs.canvas_frame:
            if self._registry.size is None:
                self._warn("there is no image yet that a click on the canvas could be on")
                return
            # The canvas shows the newest image, and the click's stamp is of the clicking.
            pixel = canvas_to_pixels(message.point, self._registry.size)
            self._take_prompt(PromptMessage(points=[pixel]))
            return
        self._take_prompt(
            PromptMessage(
                header=message.header, space=PromptMessage.POSITIONS, points=[message.point]
            )
        )

    def _take_gaze(self, message: Vector3Stamped) -> None:
        """Where somebody looks: a stream of directions, of which each object needs one."""
        v = message.vector
        gaze = PromptMessage(
            header=message.header,
            space=PromptMessage.DIRECTIONS,
            points=[Point(x=v.x, y=v.y, z=v.z)],
        )
        object_id, error = self._request(gaze, once=True)
        if error:
            self._warn(f"the gaze for object {object_id} is rejected: {error}")

    def _incompatible(self, event: Any) -> None:
        self._warn(
            f"a publisher of {self._inputs[0].topic_name if self._inputs else 'the image'} offers a "
            "quality of service that this node does not take; set the parameters qos_overrides.* "
            "(see the README)"
        )

    def _request(self, message: PromptMessage, once: bool = False) -> tuple[int, str]:
        """Hands a prompt to the worker; its object's id, and why it cannot be used, or nothing.

        With ``once``, a prompt on an object that is there, or about to be, adds none.
        """
        worker = self._worker
        if worker is None:
            return message.object_id, "the node is not active"
        object_id, request = self._registry.admit(message, self._values, once)
        if isinstance(request, str):
            return object_id, request
        worker.ask(request)
        if self._outputs:
            self._outputs.label_info(self._registry.labels)
        return object_id, ""

    # Services

    def _serve_add(self, request: Any, response: Any) -> Any:
        response.object_id, response.message = self._request(request.prompt)
        response.success = not response.message
        return response

    def _serve_remove(self, request: Any, response: Any) -> Any:
        object_id = request.object_id
        response.success = self._registry.remove(object_id)
        if response.success:
            self._drop(object_id)
        else:
            known = sorted(self._registry.labels)
            response.message = f"no object has the id {object_id}; there are {known}"
        return response

    def _drop(self, object_id: int) -> None:
        def remove(session: PanoramaSession) -> None:
            if object_id in session.object_ids:
                session.remove_object(object_id)

        if self._worker:
            self._worker.forget(object_id)
            self._worker.command(remove)

    def _serve_reset(self, request: Any, response: Any) -> Any:
        known = self._registry.clear()
        for object_id in known:
            self._drop(object_id)
        response.success, response.message = True, f"{len(known)} objects are forgotten"
        return response

    def _serve_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        response.success = True
        response.message = "images are worked on" if request.data else "images are ignored"
        return response

    # Results, in the worker's thread

    def _wanted(self, objects: bool) -> bool:
        worker, outputs = self._worker, self._outputs
        if worker is None or outputs is None or not self._enabled:
            return False
        if not objects:
            return outputs.watched()
        return worker.tracking or outputs.listened()

    def _publish(self, result: Result) -> None:
        outputs, values = self._outputs, self._values
        if outputs is None:
            return
        for request, reason in result.rejected:
            self._warn(f"the prompt for object {request.object_id} is rejected: {reason}")
        labels = self._registry.settle(result)
        seconds = outputs.publish(result, values, labels, self._cloud)
        now, then = self.get_clock().now(), Time.from_msg(result.header.stamp)
        latency = (now.nanoseconds - then.nanoseconds) / 1e9
        self._health.finished({**result.seconds, **seconds}, latency, result.encoded)

    def _fail(self, error: Exception) -> None:
        """Something that came cannot be used: a line for what was expected, a trace for a bug."""
        self._warn(str(error) if isinstance(error, ValueError) else repr(error))

    def _warn(self, text: str) -> None:
        """A line in the log and in the diagnostics; the same line at most once a second."""
        self._health.failed(text)
        now = time.monotonic()
        if text != self._warned[0] or now - self._warned[1] > 1.0:
            self._warned = text, now
            self.get_logger().warning(text)

    def _report(self) -> None:
        self._follow_drivers()
        worker = self._worker
        state = "active" if worker else "not active"
        if worker and not self._enabled:
            state = "disabled"
        elif worker and not self._registry:
            state = "active, no object"
        facts = {
            "objects": len(self._registry),
            "received": worker.received if worker else 0,
            "dropped": worker.dropped if worker else 0,
        }
        device = self._values.get("device", "")
        name, now = self.get_fully_qualified_name(), self.get_clock().now()
        self._diagnostics.publish(self._health.report(name, now, state, device, facts))


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
