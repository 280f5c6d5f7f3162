"""Replays a bag image by image: the answers of the node if it dropped no image.

The engine receives the bag's images and prompts as in the live node. Masks and bearings are written to
another bag, with a video, a table and a summary. A replay is deterministic and runs as fast as the machine
allows. From the time that each image took, it computes how many images a live node would have dropped at the
recorded rate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core.instances import Instances
from sap_ros.core.projection import Projection
from sap_ros.core.prompts import Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.answers import Answer
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.engine import Engine, run
from sap_ros.engine.events import (
    Attitude,
    Detections,
    Event,
    Image,
    PromptGiven,
    Remove,
    Reset,
    Settings,
    Space,
)
from sap_ros.evaluation.bags import Bag, BagWriter, header, make
from sap_ros.evaluation.cost import measured
from sap_ros.evaluation.metrics import boundary_f, iou, sphere_boundary_f, sphere_iou
from sap_ros.evaluation.recorded_transforms import recorded_transforms
from sap_ros.evaluation.replay_files import Moment, ReplayFiles
from sap_ros.files import write_text
from sap_ros.lenses import TOLERANCE, TopicReader
from sap_ros.messages import (
    CANVAS_SUFFIX,
    attitude_event,
    canvas_to_pixel,
    from_detections,
    from_gaze,
    from_pixel,
    from_point,
    from_position,
    from_prompt,
    from_remove,
    nanoseconds,
    object_fields,
    pixels_of,
)

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
#: Types of messages with images.
IMAGES = (IMAGE, COMPRESSED, "ffmpeg_image_transport_msgs/msg/FFMPEGPacket")
PROMPT = "sap_ros/msg/Prompt"
POINT, POINT_STAMPED = "geometry_msgs/msg/Point", "geometry_msgs/msg/PointStamped"
GAZE = "geometry_msgs/msg/Vector3Stamped"
REMOVE = "std_msgs/msg/UInt16"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
IMU = "sensor_msgs/msg/Imu"
_PROMPTS = (PROMPT, POINT, POINT_STAMPED, GAZE, REMOVE, DETECTIONS)


@dataclass(frozen=True)
class Topics:
    """The topics of a bag to replay.

    Attributes:
        images: the panoramas, raw, compressed or packets of a video; or the images of the first lens.
        prompts: prompts and removals, of the types of the node's topics.
        truth: label images with the images' stamps; empty for none.
        back: the images of the second lens, if each lens has a topic; empty: there is one topic.
        imu: the IMU that levels the views; empty for none.
    """

    images: str
    prompts: tuple[str, ...] = ()
    truth: str = ""
    back: str = ""
    imu: str = ""

    @property
    def cameras(self) -> tuple[str, ...]:
        """The topics with images."""
        return (self.images, self.back) if self.back else (self.images,)


def find_topics(
    bag: Bag,
    images: str = "",
    prompts: Sequence[str] = (),
    truth: str = "",
    back: str = "",
    imu: str = "",
) -> Topics:
    """Checks the given topics, and finds the others by their types and names.

    Raises:
        ValueError: a topic does not exist, has the wrong type, or is ambiguous.
    """
    if back and not images:
        raise ValueError(
            f"{bag.path}: name the topic of the first lens, beside {back} of the second"
        )
    if back and back == images:
        raise ValueError(f"{back} is named as the topic of both lenses")
    if not images:
        images_there = [t for t in bag.of_kind(IMAGES) if t != truth]
        found = [t for t in images_there if "mask" not in t and "truth" not in t]
        if len(found) != 1:
            names = ", ".join(images_there) or "none"
            raise ValueError(f"{bag.path}: name the topic of the images; there are {names}")
        images = found[0]
    for topic in (images, back) if back else (images,):
        bag.need(topic, IMAGES)
    for topic in prompts:
        bag.need(topic, _PROMPTS)
    if truth:
        bag.need(truth, [IMAGE])
    if imu:
        bag.need(imu, [IMU])
    if not prompts:
        prompts = [
            topic
            for topic in bag.of_kind(_PROMPTS)
            if bag.topics[topic] == PROMPT or "/prompt/" in topic or topic.endswith("/remove")
        ]
        named = [re.fullmatch("(.*)/(prompt(/.*)?|remove)", topic) for topic in prompts]
        nodes = sorted({match[1] for match in named if match})
        if len(nodes) > 1:
            raise ValueError(
                f"{bag.path} has prompts for several nodes ({', '.join(nodes)}): name the topics of one"
            )
    return Topics(images, tuple(prompts), truth, back, imu)


def first_size(
    bag: Bag, topics: Topics, projection: Projection, lens_tolerance: float = TOLERANCE
) -> tuple[int, int]:
    """Width and height of the panorama of the first image; for the arguments see :func:`replay`.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    notes: list[str] = []
    reader = TopicReader(topics.cameras, projection, notes.append, lens_tolerance)
    for topic, _, message in bag.messages(topics.cameras):
        if images := reader.read(topic, message):
            return images[0].size
    raise ValueError("; ".join([f"{bag.path} has no {reader.wanted}", *notes[:1]]))


@dataclass
class Replay:
    """Results of a replay, besides its files; see :func:`replay`."""

    images: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    scores: list[tuple[float, float, float, float]] = field(default_factory=list)
    lost: int = 0
    regained: int = 0
    moments: list[Moment] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds a note for the user, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def summary(self) -> dict[str, Any]:
        """Images, speed, images that a live node would drop, losses, J and F if there are true masks, notes, and
        the worst moment of each object."""
        span = (self.times[-1] - self.times[0]) / 1e9 if len(self.times) > 1 else 0.0
        dropped, latency = live(self.times, self.seconds)
        values: dict[str, Any] = {
            "images": self.images,
            "objects": self.objects,
            "recorded_rate_hz": round((len(self.times) - 1) / span, 3) if span else None,
            "seconds_per_image": round(float(np.median(self.seconds)), 3) if self.seconds else None,
            "dropped_if_live": dropped,
            "latency_if_live_s": latency,
            "lost": self.lost,
            "regained": self.regained,
        }
        if self.scores:
            means = np.mean(self.scores, axis=0)
            names = ("J", "F", "sphere_J", "sphere_F")
            values |= {name: round(float(v), 4) for name, v in zip(names, means, strict=True)}
            values["J&F"] = round(float(means[:2].mean()), 4)
        return {**values, "notes": self.notes, "moments": [asdict(m) for m in self.moments]}


def live(times: Sequence[int], seconds: Sequence[float]) -> tuple[int, float | None]:
    """Number of images that a live node would drop, and its median latency in s.

    When the node is idle, it takes the newest image. Images that were replaced by a newer one before are
    dropped.

    Args:
        times: arrival time of each image, in ns.
        seconds: processing time of each image.
    """
    free, waiting, dropped = -math.inf, -1, 0
    latencies = []
    for i, time in enumerate(times):
        now = time / 1e9
        if waiting >= 0 and free <= now:  # the node took it when it became idle
            latencies.append(free + seconds[waiting] - times[waiting] / 1e9)
            free, waiting = free + seconds[waiting], -1
        if free <= now:
            latencies.append(seconds[i])
            free = now + seconds[i]
            continue
        dropped += waiting >= 0
        waiting = i
    if waiting >= 0:
        latencies.append(free + seconds[waiting] - times[waiting] / 1e9)
    return dropped, round(float(np.median(latencies)), 3) if latencies else None


def replay(
    bag: Bag,
    topics: Topics,
    session: PanoramaSession,
    out: Path,
    prompts: Sequence[Prompt] = (),
    settings: Settings | None = None,
    limit: int | None = None,
    video_rate: float = 0.0,
    storage: Any = "mcap",
    progress: Callable[[], None] = lambda: None,
    lens_tolerance: float = TOLERANCE,
) -> Replay:
    """Replays a bag: passes its messages to the engine one by one, as the node does.

    Args:
        bag: the recording.
        topics: the topics to replay.
        session: session configured as the node's.
        out: folder for ``bag/`` (``/sap/masks`` and ``/sap/objects`` with every answer that the node would
            publish), ``overlay.mp4``, ``images.csv``, ``moments/`` and ``summary.json`` (the last answer to each image).
        prompts: prompts on the first image.
        settings: settings of the engine.
        limit: maximum number of images.
        video_rate: images per second of the video; 0: as recorded.
        storage: storage format of the bag that is written.
        progress: called after each image.
        lens_tolerance: largest difference between the stamps of the two lenses' images, in s.

    Raises:
        ValueError: nothing can be replayed.
    """
    result = Replay()
    out.mkdir(parents=True, exist_ok=True)
    engine = Engine(session, settings, recorded_transforms(bag))
    first_prompts = prompts
    source = _Messages(bag, topics, result, limit, session.projection, lens_tolerance)
    truths = _Truths(bag, topics.truth, result)
    with BagWriter(out / "bag", storage) as writer, ReplayFiles(out, video_rate) as outputs:
        shot: _Shot | None = None

        def finish() -> None:
            if shot is None or shot.answer is None:
                return
            result.images += 1
            result.seconds.append(shot.seconds)
            result.times.append(shot.time)
            result.objects = max(result.objects, len(shot.answer.instances.objects))
            scores = _scores(shot.answer.instances, truths.of(shot.answer))
            result.scores += [score for score in scores.values() if score is not None]
            outputs.write(shot.time, shot.answer, scores, shot.seconds)
            progress()

        for time, event in source:
            if isinstance(event, Image):
                finish()
                shot = _Shot(time)
            engine.take(event, time / 1e9)
            if isinstance(event, Attitude):
                continue  # hundreds a second, which no answer waits for
            if first_prompts and isinstance(event, Image):
                for prompt in first_prompts:
                    engine.take(_prompt_given(prompt, engine.settings.axes), time / 1e9)
                first_prompts = ()
            with measured(session.model.device) as cost:
                try:
                    answers = run(engine, time / 1e9)
                except Exception as error:  # the node continues after it, too
                    reason = str(error) if isinstance(error, ValueError) else repr(error)
                    result.note(f"an image cannot be used: {reason}")
                    source.unusable += 1
                    shot, answers = None, []
            for answer in answers:
                if answer.news:
                    _write(writer, time, answer)
                for text in (*(r.reason for r in answer.rejections), *answer.problems):
                    result.note(text)
                if shot is not None:
                    shot.answer = answer
            if shot is not None:
                shot.seconds += cost.seconds
        finish()
    result.lost, result.regained, result.moments = outputs.lost, outputs.regained, outputs.moments
    if engine.waiting:
        result.note(f"{engine.waiting} prompts were still waiting for their image at the end")
    source.tell()
    if bag.damage:
        result.notes.append(f"{bag.damage}; what could be read was replayed")
    if not result.images:
        raise ValueError(
            f"{bag.path}: no image of {' and '.join(topics.cameras)} could be used. "
            + "; ".join(result.notes)
        )
    write_text(out / "summary.json", json.dumps(result.summary(), indent=2) + "\n")
    return result


@dataclass
class _Shot:
    """An image, the last answer to it, and the time for all its answers."""

    time: int
    answer: Answer | None = None
    seconds: float = 0.0


class _Messages:
    """The images and prompts of a bag as events, in the order of recording."""

    def __init__(
        self,
        bag: Bag,
        topics: Topics,
        result: Replay,
        limit: int | None,
        projection: Projection,
        tolerance: float,
    ) -> None:
        self.bag, self.topics, self.result, self.limit = bag, topics, result, limit
        self.reader = TopicReader(topics.cameras, projection, result.note, tolerance)
        self.unusable = self._disorder = self._count = 0
        self._latest = -1
        self._size: tuple[int, int] | None = None  # of the newest image
        self._frame_id = ""  # its frame

    def __iter__(self) -> Iterator[tuple[int, Event]]:
        for time, event in self._events():
            if isinstance(event, Image):
                if self.limit is not None and self._count >= self.limit:
                    return
                self._count, self._size = self._count + 1, event.size
                self._frame_id = event.frame_id
                self._disorder += event.stamp < self._latest
                self._latest = max(self._latest, event.stamp)
            yield time, event

    def _events(self) -> Iterator[tuple[int, Event]]:
        cameras, imu = self.topics.cameras, self.topics.imu
        time = 0
        wanted = [*cameras, *self.topics.prompts, *([imu] if imu else [])]
        for topic, time, message in self.bag.messages(wanted):
            for event in self._usable(topic, partial(self._read, topic, message)):
                yield time, event
        for topic in cameras:
            for event in self._usable(topic, partial(self.reader.flush, topic)):
                yield time, event

    def _read(self, topic: str, message: Any) -> Sequence[Event]:
        if topic in self.topics.cameras:
            return self.reader.read(topic, message)
        if topic == self.topics.imu:
            return [attitude_event(message)]
        return [_prompt_event(topic, message, self._size, self._frame_id)]

    def _usable(self, topic: str, read: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        try:
            return read()
        except ValueError as error:
            is_image = topic in self.topics.cameras
            self.unusable += is_image
            self.result.note(f"{'an image' if is_image else topic} cannot be used: {error}")
            return []

    def tell(self) -> None:
        """Notes problems with the images."""
        if self._disorder:
            self.result.note(
                f"{self._disorder} images have stamps before those of earlier ones; played as recorded"
            )
        if self.reader.pairs is not None and self.reader.pairs.unpaired:
            self.result.note(
                f"{self.reader.pairs.unpaired} images of a lens were left out: no image of the other lens was near "
                "enough in time"
            )
        if self.unusable:
            self.result.note(f"{self.unusable} images could not be used")


class _Truths:
    """The true label images of a bag by stamp, packed as PNG."""

    def __init__(self, bag: Bag, topic: str, result: Replay) -> None:
        self._result = result
        self._packed: dict[int, np.ndarray] = {}
        for _, _, message in bag.messages([topic]) if topic else ():
            self._packed[nanoseconds(message.header.stamp)] = _packed(message)

    def of(self, answer: Answer) -> np.ndarray | None:
        """The true labels (H, W) of an image; None if there are none, or only of another size."""
        if answer.stamp not in self._packed:
            return None
        labels = cv2.imdecode(self._packed[answer.stamp], cv2.IMREAD_UNCHANGED)
        if labels.shape != answer.instances.labels.shape:
            self._result.note(
                f"a true mask is {labels.shape[::-1]}, its panorama {answer.picture.size}"
            )
            return None
        return labels


def _packed(message: Any) -> np.ndarray:
    if message.encoding == "mono16":
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        labels = rows[:, : 2 * message.width].copy().view("<u2")
    else:
        labels = pixels_of(message, ("mono8",))[..., 0]
    return cv2.imencode(".png", labels)[1]


def _prompt_event(
    topic: str, message: Any, size: tuple[int, int] | None, frame_id: str
) -> PromptGiven | Detections | Remove | Reset:
    """The event for a message of one of the node's prompt topics or of ``remove``.

    Args:
        topic: its topic.
        message: a message of one of these topics' types.
        size: size of the newest image, for clicks on the canvas.
        frame_id: its frame.

    Raises:
        ValueError: the message needs the calibration of another camera.
    """
    kind = message.__msgtype__
    if kind == PROMPT:
        return from_prompt(message)
    if kind == GAZE:
        return from_gaze(message)
    if kind == POINT:
        return from_pixel(message)
    if kind == REMOVE:
        return from_remove(message)
    if kind == DETECTIONS:
        if frame_id and message.header.frame_id not in ("", frame_id):
            raise ValueError(
                f"detections of {message.header.frame_id!r}, not of the panoramas' frame, {frame_id!r}, need that "
                "camera's calibration, which is not replayed"
            )
        return from_detections(message, None)
    if message.header.frame_id.endswith(CANVAS_SUFFIX) and size is not None:
        return from_pixel(canvas_to_pixel(message.point, size))
    # Other topics, such as rviz2's /clicked_point, hold positions.
    return from_point(message) if topic.endswith("prompt/point") else from_position(message)


def _prompt_given(prompt: Prompt, axes: ImageAxes) -> PromptGiven:
    """Converts a prompt from the panorama's axes to an event in the image's frame."""
    mask = prompt.mask
    return PromptGiven(
        points=axes.to_frame(prompt.directions),
        labels=prompt.labels,
        box=axes.to_frame(prompt.box) if prompt.box is not None else np.zeros((0, 3)),
        mask=(lambda: mask) if mask is not None else None,
        space=Space.DIRECTIONS,
        object_id=prompt.object_id,
    )


def _write(writer: BagWriter, time: int, answer: Answer) -> None:
    """Writes the masks and objects of an answer, with its image's header."""
    wide = answer.instances.labels.dtype != np.uint8
    pixels = answer.instances.labels.astype("<u2" if wide else np.uint8, copy=False)
    height, width = pixels.shape
    masks = make(
        IMAGE, header=header(answer.stamp, answer.frame_id), height=height, width=width,
        encoding="mono16" if wide else "mono8", is_bigendian=0, step=pixels.strides[0],
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )  # fmt: skip
    objects = [
        make(
            "sap_ros/msg/Object",
            direction=make("geometry_msgs/msg/Vector3", **_xyz(report.direction)),
            angular_velocity=make("geometry_msgs/msg/Vector3", **_xyz(report.angular_velocity)),
            position=make("geometry_msgs/msg/Point", **_xyz(report.position)),
            **object_fields(report),
        )
        for report in answer.objects
    ]
    head = header(answer.stamp, answer.bearing_frame)
    writer.write("/sap/masks", time, masks)
    writer.write(
        "/sap/objects", time, make("sap_ros/msg/ObjectArray", header=head, objects=objects)
    )


def _xyz(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip("xyz", values, strict=True))


def _scores(
    instances: Instances, truth: np.ndarray | None
) -> dict[int, tuple[float, float, float, float] | None]:
    """J and F of each object, on the panorama and on the sphere; None without true masks."""
    found: dict[int, tuple[float, float, float, float] | None] = {}
    for instance in instances.objects:
        i = instance.object_id
        if truth is None:
            found[i] = None
            continue
        pair = instances.labels == i, truth == i
        found[i] = (iou(*pair), boundary_f(*pair), sphere_iou(*pair), sphere_boundary_f(*pair))
    return found
