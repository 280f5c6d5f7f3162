"""The node: panoramas and prompts in, a label image and bearings out.

Callbacks only convert messages to events. The worker's thread drives the engine and publishes its answers.
After any invalid input, the next valid image is answered.
"""

from __future__ import annotations

import math
import re
import sys
import time
import traceback
from collections.abc import Generator, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, Vector3Stamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import uninstall_signal_handlers
from sensor_msgs.msg import Image, Imu, PointCloud2
from std_msgs.msg import UInt16
from std_srvs.srv import SetBool, Trigger

from sap_ros.allocation import reuse_freed_memory
from sap_ros.camera_files import projection_of
from sap_ros.core.framing import Framing
from sap_ros.core.loading import load_model, usable_device
from sap_ros.core.projection import Equirectangular, Projection
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.answers import Answer
from sap_ros.engine.engine import Engine
from sap_ros.engine.events import Change, Event, Remove, Reset
from sap_ros.engine.events import Image as ImageEvent
from sap_ros.engine.levelling import PERIOD
from sap_ros.lenses import camera_of
from sap_ros.messages import (
    attitude_event,
    canvas_to_pixel,
    depth_event,
    from_gaze,
    from_pixel,
    from_point,
    from_position,
    from_prompt,
    from_remove,
    nanoseconds,
)
from sap_ros.msg import Prompt as PromptMessage
from sap_ros.node.camera_input import CameraInput
from sap_ros.node.clouds import cloud_event
from sap_ros.node.detections import DetectionInput
from sap_ros.node.diagnostics import Health
from sap_ros.node.image_input import message_type, newest_only
from sap_ros.node.outputs import Outputs
from sap_ros.node.parameters import (
    check_changes,
    declare_parameters,
    misspelt_parameters,
    read_parameters,
    settings,
)
from sap_ros.node.transforms import TfTransforms
from sap_ros.node.worker import Worker
from sap_ros.srv import AddObject, RemoveObject

#: How long `add_object` waits for an image, without which its prompt is not decided, in s.
_PATIENCE = 5.0
#: How long a service that waits for the worker blocks the executor at a time, in s.
_TURN = 0.005
#: Number of an IMU's messages that wait while an image is received.
_IMU_DEPTH = 50
#: Log messages that differ only in numbers are logged once per this period, in s.
_LOG_PERIOD = 1.0


class SapNode(LifecycleNode):
    """Lifecycle: configure reads the parameters, activate loads the model, deactivate frees it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sap", **kwargs)
        declare_parameters(self)
        for line in misspelt_parameters(self):
            self.get_logger().warning(line)
        self.add_on_set_parameters_callback(self._change_parameters)
        self._values: dict[str, Any] = {}
        self._enabled = True
        self._worker: Worker | None = None
        self._outputs: Outputs | None = None
        self._inputs: list[Any] = []
        self._health = Health()
        self._logged: dict[str, float] = {}  # by message without numbers: when it was logged last
        self._camera: CameraInput | None = None
        self._silent = ""  # what sends nothing, in a line
        self._attitude_stamp = 0  # of the last one that the worker was given, in ns
        self._detections: DetectionInput | None = None
        self._transforms = TfTransforms(self)
        self._projection: Projection = Equirectangular()
        self._device = ""  # that the model runs on, from the first activation on
        self._size: tuple[int, int] | None = None  # of the newest image's panorama
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: diagnostics continue while simulated time is paused.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        # In the default group, a service that waits for the worker would block images and diagnostics.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (AddObject, "add_object", self._serve_add),
            (RemoveObject, "remove_object", self._serve_remove),
            (Trigger, "reset", self._serve_reset),
            (SetBool, "enable", self._serve_enable),
        ):
            self.create_service(kind, name, callback, callback_group=group)
        # For an invalid transition, rclpy raises in the service's callback, which would end the node.
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._serve_change_state
        self.get_logger().info("waiting to be configured and activated; the launch file does both")

    # Lifecycle

    def _serve_change_state(self, request: Any, response: Any) -> Any:
        """Rejects a transition that is invalid in the current state; a manager may request one twice."""
        try:
            return self._change_state(request, response)
        except RuntimeError as error:
            self.get_logger().warning(f"the transition is rejected: {str(error).splitlines()[0]}")
            response.success = False
            return response

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            values = read_parameters(self)
            settings(values)  # the engine checks them as well
            self._projection = projection_of(values["projection"], values["camera_file"])
            message_type(values["image_transport"])
            if values["lens_topics"]:
                camera_of(self._projection)
            self._values = values
            self._follow_values()
            self._close_outputs()
            self._outputs = Outputs(self, self._transforms, self._warn)
        except ValueError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        values = self._values
        try:
            checkpoint = Path(values["checkpoint"]) if values["checkpoint"] else None
            device = str(usable_device(values["device"]))
            model = load_model(
                values["model"],
                checkpoint,
                device,
                values["view_size"] or None,
                compiled=values["compile"],
                backend=values["backend"],
                log=self.get_logger().info,
            )
            session = PanoramaSession(
                model,
                values["strategy"],
                fusion=values["fusion"],
                framing=Framing(further=values["further_views"]),
                coarse=values["coarse_size"],
                projection=self._projection,
            )
        except Exception as error:  # also if the model does not fit into the GPU's memory
            expected = isinstance(error, (ValueError, OSError))
            self.get_logger().error(str(error) if expected else repr(error))
            self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE
        self._device = device
        self._health = Health()
        self._tell_labels({})  # replaces the latched labels of an earlier activation
        self._worker = Worker(
            lambda interrupted: Engine(session, settings(values), self._transforms, interrupted),
            self._publish,
            self._fail,
            self._tell_labels,
            self._wanted,
        )
        done = super().on_activate(state)
        self._subscribe()
        self.get_logger().info(
            f"{model.name} runs on {device} by {model.backend}; waiting for "
            f"{self._topics()} and {self.resolve_topic_name('prompt/point')}"
        )
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        if self._outputs:
            self._outputs.clear_markers()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return super().on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Cleans up after a transition raised an exception, so that the node can be configured again."""
        self.get_logger().error("a transition failed; the node is now unconfigured")
        self.stop()
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        self._close()
        return super().on_shutdown(state)

    def stop(self) -> None:
        """Stops the worker after the current view, and frees the model."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        for source in (self._camera, self._detections):
            if source is not None:
                source.destroy()
        self._camera = self._detections = None
        worker, self._worker = self._worker, None
        if worker:
            worker.stop()
            del worker
            if self._device.startswith("cuda"):
                import torch

                torch.cuda.empty_cache()  # torch keeps freed memory that other nodes may need
        self._size = None

    def _close(self) -> None:
        self._close_outputs()
        self._values = {}

    def _close_outputs(self) -> None:
        if self._outputs:
            self._outputs.destroy()
        self._outputs = None

    def _subscribe(self) -> None:
        self._camera = CameraInput(
            self,
            self._values["image_transport"],
            self._projection,
            self._values["lens_topics"],
            self._put_image,
            self._image_came,
            self._warn,
        )
        self._follow_values()
        self._detections = DetectionInput(self, self._put, self._warn)
        self._attitude_stamp = 0
        self._inputs = [
            self.create_subscription(PromptMessage, "prompt", self._take_prompt, 10),
            self.create_subscription(PointStamped, "prompt/point", self._take_point, 10),
            self.create_subscription(Point, "prompt/pixel", self._take_pixel, 10),
            self.create_subscription(PointStamped, "prompt/position", self._take_position, 10),
            self.create_subscription(Vector3Stamped, "prompt/gaze", self._take_gaze, 10),
            self.create_subscription(UInt16, "remove", self._take_remove, 10),
            self.create_subscription(PointCloud2, "points", self._take_cloud, newest_only()),
            self.create_subscription(Image, "depth", self._take_depth, newest_only()),
            self.create_subscription(
                Imu,
                "imu/data",
                self._take_imu,
                QoSProfile(depth=_IMU_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT),
            ),
        ]

    def _change_parameters(self, changes: list[Any]) -> SetParametersResult:
        try:
            values = check_changes(changes, configured=bool(self._values))
            changed = settings({**self._values, **values}) if self._values else None
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if changed is not None:
            self._values = {**self._values, **values}
            self._follow_values()
            if self._worker and values:
                self._worker.put(Change(changed))
        return SetParametersResult(successful=True)

    def _follow_values(self) -> None:
        """Passes parameters on that can be changed at any time and are not the engine's."""
        self._transforms.timeout = self._values["tf_timeout"]
        if self._camera is not None and self._camera.pairs is not None:
            self._camera.pairs.tolerance = self._values["lens_tolerance"]

    # Inputs

    def _image_came(self) -> bool:
        """Notes that a message with an image has come; returns whether it is processed."""
        self._health.came("image")
        return self._worker is not None and self._enabled

    def _put_image(self, event: ImageEvent) -> None:
        """Called in the executor's thread, or in that of the video input."""
        worker = self._worker
        if worker is None or not self._enabled:
            return
        if event.size[0] == 2 * event.size[1]:
            self._size = event.size
        worker.put(replace(event, delay=round(self._values["stamp_offset"] * 1e9)))

    def _take_cloud(self, message: PointCloud2) -> None:
        self._health.came("points")
        self._put(cloud_event(message))

    def _take_depth(self, message: Image) -> None:
        """A depth panorama, aligned with the images."""
        self._put(depth_event(message))

    def _take_imu(self, message: Imu) -> None:
        """The orientation of an IMU, with which views are laid out level unless TF does it."""
        stamp = nanoseconds(message.header.stamp)
        # Those of a fast IMU would displace the ones for an image that waits for the worker.
        needless = stamp and abs(stamp - self._attitude_stamp) < PERIOD
        if needless or self._values["level_frame"]:
            return
        self._attitude_stamp = stamp
        try:
            self._put(attitude_event(message))
        except ValueError as error:
            self._warn(str(error))

    def _take_remove(self, message: UInt16) -> None:
        """The topic equivalent of `remove_object` and `reset`, which can be recorded and replayed."""
        self._put(from_remove(message))

    def _take_prompt(self, message: PromptMessage) -> None:
        self._put(from_prompt(message))

    def _take_point(self, message: PointStamped) -> None:
        """A click on the panorama: a pixel of a new object."""
        self._put(from_point(message))

    def _take_pixel(self, message: Point) -> None:
        """A click in rqt_image_view, which publishes pixels without a header."""
        self._put(from_pixel(message))

    def _take_position(self, message: PointStamped) -> None:
        """A click in a 3D view of rviz2 or Foxglove: on the canvas, or at a position in another frame."""
        if self._outputs and message.header.frame_id == self._outputs.canvas_frame:
            if self._size is None:
                self._warn("a click on the canvas is ignored: there is no image yet")
                return
            # The canvas shows the newest image; the stamp is the time of the click, not that of the image.
            self._put(from_pixel(canvas_to_pixel(message.point, self._size)))
            return
        self._put(from_position(message))

    def _take_gaze(self, message: Vector3Stamped) -> None:
        """A gaze: one of a stream of directions; only the first one on an object has an effect."""
        self._put(from_gaze(message))

    def _put(self, event: Event) -> None:
        if self._worker is not None:
            self._worker.put(event)

    # Services

    async def _serve_add(self, request: Any, response: Any) -> Any:
        accepted: Future[int] = Future()
        worker = self._worker
        if worker is None:
            response.object_id = request.prompt.object_id
            response.message = "the node is not active"
            return response
        worker.put(from_prompt(request.prompt, accepted))
        response.object_id = request.prompt.object_id
        response.message = await self._outcome(accepted, _PATIENCE)
        response.success = not response.message
        if response.success:
            response.object_id = accepted.result()
        return response

    async def _serve_remove(self, request: Any, response: Any) -> Any:
        done: Future[bool] = Future()
        if self._worker is None:
            response.message = "the node is not active"
            return response
        self._worker.put(Remove(request.object_id, done))
        response.message = await self._outcome(done)
        response.success = not response.message
        return response

    async def _serve_reset(self, request: Any, response: Any) -> Any:
        done: Future[int] = Future()
        response.success, response.message = True, "0 objects were removed"
        if self._worker is not None:
            self._worker.put(Reset(done))
            problem = await self._outcome(done)
            response.message = problem or f"{done.result()} objects were removed"
        return response

    async def _outcome(self, future: Future[Any], patience: float | None = None) -> str:
        """Waits for the worker without stopping the executor; returns the error, or an empty string."""
        end = time.monotonic() + patience if patience is not None else None
        while not future.done():
            worker = self._worker
            has_image = worker is not None and worker.engine.has_image  # the prompt will be decided
            late = end is not None and not has_image and time.monotonic() > end
            if late and future.cancel():
                return f"no image has been received within {patience:g} s"
            # The executor resumes this coroutine at the next event, and wake() is one; the wait keeps it
            # from spinning.
            wait([future], _TURN)
            if self.executor is not None:
                self.executor.wake()
            await _NextTurn()
        error = future.exception()
        return str(error) if error is not None else ""

    def _serve_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        if self._camera is not None:
            self._camera.restart()  # packets are not decoded while images are ignored
        response.success = True
        response.message = "images are processed" if request.data else "images are ignored"
        return response

    # Answers (called in the worker's thread)

    def _wanted(self, engine: Engine) -> bool:
        outputs = self._outputs
        if outputs is None or not self._enabled:
            return False
        if not (engine.has_objects or engine.tracking):
            return outputs.watched() or (engine.has_news and outputs.listened())
        return engine.tracking or outputs.listened() or bool(self._values.get("broadcast_tf"))

    def _publish(self, answer: Answer) -> None:
        outputs, values = self._outputs, self._values
        if outputs is None:
            return
        for rejection in answer.rejections:
            name = f" for object {rejection.object_id}" if rejection.object_id else ""
            self._warn(f"the prompt{name} is rejected: {rejection.reason}")
            if rejection.trace:
                self.get_logger().debug(rejection.trace)
        for problem in answer.problems:
            self._warn(problem)
        for trace in answer.traces:
            self.get_logger().debug(trace)
        seconds = outputs.publish(answer, values)
        now = self.get_clock().now().nanoseconds
        latency = (now - answer.taken) / 1e9 if answer.stamp else math.nan
        self._health.finished({**answer.seconds, **seconds}, latency, answer.encoded)

    def _tell_labels(self, labels: Mapping[int, str]) -> None:
        if self._outputs:
            self._outputs.label_info(labels)

    def _fail(self, error: Exception) -> None:
        """Reports an exception: a warning for invalid input, an error and its traceback for a bug."""
        if isinstance(error, ValueError):
            self._warn(str(error))
            return
        self._health.fail(repr(error))
        if self._not_lately(repr(error)):
            self.get_logger().error(repr(error))
        self.get_logger().debug("".join(traceback.format_exception(error)))

    def _warn(self, text: str) -> None:
        """Writes a warning to the diagnostics and to the log."""
        self._health.warn(text)
        if self._not_lately(text):
            self.get_logger().warning(text)

    def _not_lately(self, text: str) -> bool:
        """Whether no message that is equal except for numbers was logged in the last second."""
        kind, now = re.sub(r"[\d.]+", "#", text), time.monotonic()
        self._logged = {k: t for k, t in self._logged.items() if now - t < _LOG_PERIOD}
        if kind in self._logged:
            return False
        self._logged[kind] = now
        return True

    def _topics(self) -> str:
        """The topics of the images."""
        return self._camera.topics if self._camera else self.resolve_topic_name("image")

    def _silence(self) -> str:
        """A line about a camera that has sent no image yet, or a lens that sends none; empty: they do."""
        assert self._camera is not None
        limit = self._values["silence"]
        lens = self._camera.silent_lens(limit)
        if lens or self._health.waited() <= limit:
            return lens
        return f"no image has come on {self._topics()} yet: is this the camera's topic, and does its driver run?"

    def _report(self) -> None:
        silent = ""
        if self._camera is not None:
            self._camera.follow_drivers()
            silent = self._silence() if self._enabled else ""
        if silent and not self._silent:
            self.get_logger().warning(silent)
        self._silent = silent
        worker = self._worker
        objects = len(worker.engine.labels) if worker else 0
        state = "active" if worker else "not active"
        if worker and not self._enabled:
            state = "disabled"
        elif worker and not objects:
            state = "active, no object"
        facts = {
            "objects": objects,
            "received": worker.received if worker else 0,
            "dropped": worker.dropped if worker else 0,
        }
        pairs = self._camera.pairs if self._camera else None
        if pairs is not None:
            facts["unpaired"] = pairs.unpaired
        report = self._health.report(
            self.get_fully_qualified_name(),
            self._topics(),
            self.get_clock().now(),
            state,
            self._device,
            self._values.get("silence", 1.0),
            bool(objects) and self._enabled,
            facts,
            silent,
        )
        self._diagnostics.publish(report)


class _NextTurn:
    """Awaiting it lets the executor run other callbacks first."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def main() -> None:
    """Runs the node until SIGINT or SIGTERM; exits with 1 if its parameters are invalid or ROS cannot start it."""
    reuse_freed_memory()
    try:
        rclpy.init()
        node = SapNode()
    except (ValueError, RuntimeError) as error:  # RuntimeError: rclpy's, such as of SROS 2
        print(f"sap_node: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        rclpy.try_shutdown()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.stop()  # may take as long as a view; a further SIGTERM is still ignored
        # rclpy's signal thread iterates over a list of guard conditions that is freed when the node is
        # destroyed. The thread must end first; otherwise the process sometimes ends with SIGSEGV.
        uninstall_signal_handlers()
        node.destroy_node()
        rclpy.try_shutdown()
