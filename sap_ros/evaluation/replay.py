"""A recording replayed, frame by frame: what the node would have answered, with nothing dropped.

Images and prompts of a bag go through a session as they go through the live node; masks and bearings
are written to another bag, with a video, a table and a summary. It is deterministic, and as fast as the
machine; how many images a live node would have dropped at the recorded rate is worked out from the time
that each one took.
"""

from __future__ import annotations

import csv
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core.instances import Instances, State
from sap_ros.core.overlay import draw_overlay
from sap_ros.core.panorama import check_panorama
from sap_ros.core.prompts import Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.bags import Bag, BagWriter, Recorded, header, make, nanoseconds
from sap_ros.evaluation.cost import measured
from sap_ros.evaluation.metrics import boundary_f, iou, sphere_boundary_f, sphere_iou
from sap_ros.messages import (
    DIRECTIONS,
    PIXELS,
    POSITIONS,
    ImageFrame,
    image_to_rgb,
    object_fields,
    pixels_of,
    prompt_from_message,
)

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PROMPT = "sap_ros/msg/Prompt"
POINT, POINT_STAMPED = "geometry_msgs/msg/Point", "geometry_msgs/msg/PointStamped"
GAZE = "geometry_msgs/msg/Vector3Stamped"
_PROMPTS = (PROMPT, POINT, POINT_STAMPED, GAZE)


@dataclass(frozen=True)
class Topics:
    """The topics of a bag that are replayed.

    Attributes:
        images: the panoramas, raw or compressed.
        prompts: what is pointed at, as the node's topics have it.
        truth: label images with the images' stamps, or nothing.
    """

    images: str
    prompts: tuple[str, ...] = ()
    truth: str = ""


def find_topics(bag: Bag, images: str = "", prompts: Sequence[str] = (), truth: str = "") -> Topics:
    """The topics, checked; those that are not given are looked for by their types and names.

    Raises:
        ValueError: a topic is not there, or of another type, or there is more than one choice.
    """
    if not images:
        there = [t for t in bag.of_kind([IMAGE, COMPRESSED]) if t != truth]
        found = [t for t in there if "mask" not in t and "truth" not in t]
        if len(found) != 1:
            names = ", ".join(there) or "none"
            raise ValueError(f"{bag.path}: name the topic of the images; there are {names}")
        images = found[0]
    bag.need(images, [IMAGE, COMPRESSED])
    for topic in prompts:
        bag.need(topic, _PROMPTS)
    if truth:
        bag.need(truth, [IMAGE])
    if not prompts:
        prompts = [
            topic
            for topic in bag.of_kind(_PROMPTS)
            if bag.topics[topic] == PROMPT or "/prompt/" in topic
        ]
    return Topics(images, tuple(prompts), truth)


@dataclass
class Replay:
    """What a replay has to say, beside its files; see :func:`replay`."""

    frames: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    scores: list[tuple[float, float, float, float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Frames, speed, what would have been dropped live, and J and F where there is truth."""
        span = (self.times[-1] - self.times[0]) / 1e9 if len(self.times) > 1 else 0.0
        dropped, latency = live(self.times, self.seconds)
        told: dict[str, Any] = {
            "frames": self.frames,
            "objects": self.objects,
            "recorded_rate_hz": round((len(self.times) - 1) / span, 3) if span else None,
            "seconds_a_frame": round(float(np.median(self.seconds)), 3) if self.seconds else None,
            "dropped_if_live": dropped,
            "latency_if_live_s": latency,
        }
        if self.scores:
            means = np.mean(self.scores, axis=0)
            names = ("J", "F", "sphere_J", "sphere_F")
            told |= {name: round(float(v), 4) for name, v in zip(names, means, strict=True)}
            told["J&F"] = round(float(means[:2].mean()), 4)
        return {**told, "notes": self.notes}


def live(times: Sequence[int], seconds: Sequence[float]) -> tuple[int, float | None]:
    """Images that a live node would drop, and its median latency in s.

    The node works on the newest image when it is free; those that another replaced are dropped.

    Args:
        times: when each image came, in ns.
        seconds: what each one takes.
    """
    free, waiting, dropped = -math.inf, -1, 0
    latencies = []
    for i, time in enumerate(times):
        now = time / 1e9
        if waiting >= 0 and free <= now:  # it was taken when the node got free
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
    frame: ImageFrame | None = None,
    keep: int = 10,
    limit: int | None = None,
    video_rate: float = 0.0,
    storage: Any = "mcap",
    progress: Callable[[], None] = lambda: None,
) -> Replay:
    """Replays a bag.

    Args:
        bag: the recording.
        topics: which of its topics.
        session: works as the node's would.
        out: folder for ``bag/`` (``/sap/masks`` and ``/sap/objects``), ``overlay.mp4``,
            ``frames.csv`` and ``summary.json``.
        prompts: objects that are pointed at on the first image.
        frame: the axes of the images' frame.
        keep: how many past images a late prompt may be on.
        limit: images that are replayed at most.
        video_rate: images a second of the video; 0: as recorded.
        storage: of the bag that is written.
        progress: told of each image.

    Raises:
        ValueError: nothing can be replayed.
    """
    told = Replay()
    out.mkdir(parents=True, exist_ok=True)
    source = _Frames(bag, topics, told, limit)
    player = _Player(session, frame or ImageFrame(), keep, told)
    with BagWriter(out / "bag", storage) as writer, _Outputs(out, video_rate) as outputs:
        for shot in source:
            with measured(session.model.device) as cost:
                instances = player.play(shot, prompts if told.frames == 0 else ())
            told.frames += 1
            told.seconds.append(cost.seconds)
            told.times.append(shot.time)
            told.objects = max(told.objects, len(instances.objects))
            player.write(writer, shot, instances)
            scores = _scores(instances, shot.truth)
            told.scores += [score for score in scores.values() if score is not None]
            outputs.write(shot, instances, scores, cost.seconds)
            progress()
    if bag.damage:
        told.notes.append(f"{bag.damage}; what could be read was replayed")
    if not told.frames:
        raise ValueError(
            f"{bag.path}: no image of {topics.images} could be used. " + "; ".join(told.notes)
        )
    text = json.dumps(told.summary(), indent=2)
    part = out / "summary.json.part"
    part.write_text(text + "\n")
    part.replace(out / "summary.json")
    return told


@dataclass
class _Shot:
    """An image with what was pointed at until the next one came."""

    time: int
    stamp: int
    frame_id: str
    image: np.ndarray
    prompts: list[tuple[str, Any]] = field(default_factory=list)
    truth: np.ndarray | None = None


class _Frames:
    """The images of a bag, each with the prompts that were recorded before the next one."""

    def __init__(self, bag: Bag, topics: Topics, told: Replay, limit: int | None) -> None:
        self.bag, self.topics, self.told, self.limit = bag, topics, told, limit

    def __iter__(self) -> Iterator[_Shot]:
        early: list[tuple[str, Any]] = []
        current: _Shot | None = None
        count, latest, disorder, unusable = 0, -1, 0, 0
        truths = self._truths()
        for topic, time, message in self._messages():
            if topic != self.topics.images:
                (current.prompts if current else early).append((topic, message))
                continue
            try:
                image = image_to_rgb(message)
                check_panorama(image)
            except ValueError as error:
                unusable += 1
                self._note(f"an image cannot be used: {error}")
                continue
            if current is not None:
                yield self._with_truth(current, truths)
                count += 1
                if self.limit is not None and count >= self.limit:
                    current = None
                    break
            stamp = nanoseconds(message.header.stamp)
            disorder += stamp < latest
            latest = max(latest, stamp)
            current = _Shot(time, stamp, message.header.frame_id, image, early)
            early = []
        if current is not None:
            yield self._with_truth(current, truths)
        if disorder:
            self._note(
                f"{disorder} images have stamps before those of earlier ones; played as recorded"
            )
        if unusable:
            self._note(f"{unusable} images could not be used")

    def _messages(self) -> Iterator[Recorded]:
        return self.bag.messages([self.topics.images, *self.topics.prompts])

    def _truths(self) -> dict[int, np.ndarray]:
        """The true label images by stamp, packed as PNG."""
        if not self.topics.truth:
            return {}
        found = {}
        for _, _, message in self.bag.messages([self.topics.truth]):
            found[nanoseconds(message.header.stamp)] = _packed(message)
        return found

    def _with_truth(self, shot: _Shot, truths: Mapping[int, np.ndarray]) -> _Shot:
        if shot.stamp in truths:
            labels = cv2.imdecode(truths[shot.stamp], cv2.IMREAD_UNCHANGED)
            if labels.shape == shot.image.shape[:2]:
                shot.truth = labels
            else:
                self._note(
                    f"a true mask is {labels.shape[::-1]}, its image {shot.image.shape[1::-1]}"
                )
        return shot

    def _note(self, text: str) -> None:
        if text not in self.told.notes:
            self.told.notes.append(text)


def _packed(message: Any) -> np.ndarray:
    if message.encoding == "mono16":
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        labels = rows[:, : 2 * message.width].copy().view("<u2")
    else:
        labels = pixels_of(message, ("mono8",))[..., 0]
    return cv2.imencode(".png", labels)[1]


class _Player:
    """The session, as the live node's worker uses it."""

    def __init__(
        self, session: PanoramaSession, frame: ImageFrame, keep: int, told: Replay
    ) -> None:
        self.session, self.frame, self.told = session, frame, told
        self.kept: deque[_Shot] = deque(maxlen=keep + 1)
        self.labels: dict[int, str] = {}

    def play(self, shot: _Shot, prompts: Sequence[Prompt]) -> Instances:
        self.session.next_image(shot.image)
        self.kept.append(shot)
        for prompt in prompts:
            self.session.add_prompt(prompt)
            self.labels.setdefault(prompt.object_id, "")
        instances = self.session.segment()
        if not shot.prompts:
            return instances
        for topic, message in shot.prompts:
            try:
                self._add(_as_prompt(message), shot)
            except ValueError as error:
                self.told.notes.append(f"a prompt of {topic} is rejected: {error}")
        return self.session.segment()

    def _add(self, message: Any, shot: _Shot) -> None:
        object_id = message.object_id or 1 + max(self.labels, default=0)
        object_id += object_id == 255
        stamp = nanoseconds(message.header.stamp)
        space, frame_id = message.space, message.header.frame_id
        if space != PIXELS and frame_id not in ("", shot.frame_id):
            raise ValueError(
                f"it is in the frame {frame_id!r}, and TF is not replayed; the image's is "
                f"{shot.frame_id!r}"
            )
        then = next((kept for kept in self.kept if kept.stamp == stamp), None)
        if stamp and stamp < shot.stamp and then is None and space == PIXELS:
            raise ValueError(f"its image ({stamp} ns) is no longer kept")
        size = self.session.size if then is None else (then.image.shape[1], then.image.shape[0])
        prompt = prompt_from_message(message, object_id, size, self.frame, np.eye(3), np.zeros(3))
        if then is None or then is shot or not prompt.complete:
            self.session.add_prompt(prompt)
        else:
            past = self.session.sibling()
            past.set_image(then.image)
            past.add_prompt(prompt)
            past.segment()
            self.session.adopt(past, object_id)
        self.labels[object_id] = message.label or self.labels.get(object_id, "")

    def write(self, writer: BagWriter, shot: _Shot, instances: Instances) -> None:
        """Writes the masks and objects of an image, with its header."""
        head = header(shot.stamp, shot.frame_id)
        wide = instances.labels.dtype != np.uint8
        pixels = instances.labels.astype("<u2" if wide else np.uint8, copy=False)
        height, width = pixels.shape
        writer.write(
            "/sap/masks",
            shot.time,
            make(
                IMAGE, header=head, height=height, width=width,
                encoding="mono16" if wide else "mono8", is_bigendian=0, step=pixels.strides[0],
                data=np.frombuffer(pixels.tobytes(), np.uint8),
            ),
        )  # fmt: skip
        objects = []
        for thing in instances.objects:
            label = self.labels.get(thing.object_id, "")
            direction, position, values = object_fields(thing, label, self.frame, None, math.nan)
            objects.append(
                make(
                    "sap_ros/msg/Object",
                    direction=make("geometry_msgs/msg/Vector3", **_xyz(direction)),
                    position=make("geometry_msgs/msg/Point", **_xyz(position)),
                    **values,
                )
            )
        writer.write(
            "/sap/objects", shot.time, make("sap_ros/msg/ObjectArray", header=head, objects=objects)
        )


def _xyz(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip("xyz", values, strict=True))


def _as_prompt(message: Any) -> Any:
    """A sap_ros/Prompt of any of the node's prompt topics' messages."""
    kind = message.__msgtype__
    if kind == PROMPT:
        return message
    head = message.header if hasattr(message, "header") else header(0, "")
    space = DIRECTIONS if kind == GAZE else PIXELS
    at = {GAZE: "vector", POINT_STAMPED: "point"}.get(kind)
    place = getattr(message, at) if at else message
    empty = make(
        IMAGE, header=header(0, ""), height=0, width=0, encoding="", is_bigendian=0, step=0,
        data=np.zeros(0, np.uint8),
    )  # fmt: skip
    return make(
        PROMPT, PIXELS=PIXELS, DIRECTIONS=DIRECTIONS, POSITIONS=POSITIONS, header=head, object_id=0,
        label="", space=space, points=[place], labels=np.zeros(0, np.uint8), box=[], mask=empty,
    )  # fmt: skip


def _scores(
    instances: Instances, truth: np.ndarray | None
) -> dict[int, tuple[float, float, float, float] | None]:
    """J and F of each object, on the panorama and on the sphere; None where there is no truth."""
    found: dict[int, tuple[float, float, float, float] | None] = {}
    for thing in instances.objects:
        i = thing.object_id
        if truth is None:
            found[i] = None
            continue
        pair = instances.labels == i, truth == i
        found[i] = (iou(*pair), boundary_f(*pair), sphere_iou(*pair), sphere_boundary_f(*pair))
    return found


class _Outputs:
    """``frames.csv`` and ``overlay.mp4``, written as the frames come."""

    _WIDTH = 1280  # of the video, at most

    def __init__(self, out: Path, rate: float) -> None:
        self.out, self.rate = out, rate
        self._video: Any = None
        self._first: tuple[int, np.ndarray] | None = None

    def __enter__(self) -> _Outputs:
        self._file = (self.out / "frames.csv").open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(
            ["stamp_ns", "object", "state", "azimuth_deg", "elevation_deg", "solid_angle_sr",
             "score", "J", "F", "sphere_J", "sphere_F", "seconds"]
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._first is not None:
            self._open(self._first[1], 10.0)
        if self._video is not None:
            self._video.release()

    def write(
        self,
        shot: _Shot,
        instances: Instances,
        scores: Mapping[int, tuple[float, float, float, float] | None],
        seconds: float,
    ) -> None:
        for thing in instances.objects:
            score = scores[thing.object_id]
            self._rows.writerow(
                [
                    shot.stamp,
                    thing.object_id,
                    State(thing.state).name,
                    *(round(math.degrees(a), 3) for a in (thing.azimuth, thing.elevation)),
                    round(thing.solid_angle, 6),
                    round(thing.score, 4),
                    *(("", "", "", "") if score is None else (round(v, 5) for v in score)),
                    round(seconds, 4),
                ]
            )
        width = min(self._WIDTH, shot.image.shape[1])
        size = (width, width // 2)
        overlay = cv2.resize(
            draw_overlay(shot.image, instances), size, interpolation=cv2.INTER_AREA
        )
        picture = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
        if self._video is not None:
            self._video.write(picture)
        elif self.rate:
            self._open(picture, self.rate)
        elif self._first is None:
            self._first = shot.time, picture
        else:  # the second image tells the rate
            between = (shot.time - self._first[0]) / 1e9
            rate = min(60.0, max(1.0, 1 / between)) if between > 0 else 10.0
            self._open(self._first[1], rate).write(picture)

    def _open(self, picture: np.ndarray, rate: float) -> Any:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        path = str(self.out / "overlay.mp4")
        self._video = cv2.VideoWriter(path, code, rate, picture.shape[1::-1])
        self._video.write(picture)
        self._first = None
        return self._video
