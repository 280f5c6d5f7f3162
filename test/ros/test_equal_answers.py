"""The same events through the bare engine, through a replayed bag and through the node over DDS."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags")
pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from geometry_msgs.msg import Point, PointStamped, Vector3, Vector3Stamped
from sap_ros.msg import Prompt as PromptMessage
from std_msgs.msg import UInt16

from sap_ros.core import sphere
from sap_ros.core.loading import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.engine import Engine, run
from sap_ros.engine.events import Image, PromptGiven, Remove, Reset, Settings, Space
from sap_ros.evaluation.bags import Bag, BagWriter, header, make
from sap_ros.evaluation.replay import Topics, replay

SECOND = 10**9
SIZE = (512, 256)
KEPT = 2
STALE = 1  # s: before all images, of the stories before too, which the node may still keep
LIMITS = {"keep_images": KEPT, "patience": 60.0, "max_objects": 3}

# What may happen; of a prompt: on which object, and on which image: `late` is 0 for none, 1, 2, ...
# images before the newest (from 3 on it is stale), -1 for the next one, which it waits for.
pixel = st.tuples(st.integers(-20, 530), st.integers(5, 250))
events = st.one_of(
    st.tuples(st.just("image"), st.sampled_from([0, 7, 40])),
    st.tuples(st.just("prompt"), pixel, st.integers(0, 4), st.sampled_from([0, 0, 1, 3, -1])),
    st.tuples(st.just("off"), pixel, st.integers(1, 2), st.just(0)),
    st.tuples(st.just("click"), pixel, st.sampled_from([0, 0, 1, 2, 3, -1])),
    st.tuples(st.just("gaze"), pixel, st.sampled_from([0, 1, -1])),
    st.tuples(st.just("remove"), st.integers(0, 3)),
)
lists = st.lists(events, min_size=2, max_size=9).map(lambda some: [("image", 0), *some])


class Story:
    """A list of events with stamps, as events, as messages of a bag and as messages of rclpy."""

    def __init__(self, happened, panorama, first):
        self.happened, self.panorama = happened, panorama
        self.items, stamp = [], first
        for kind, *values in happened:
            if kind == "image":
                stamp += kind == "image" and bool(self.items)
                self.items.append((kind, np.roll(panorama, values[0], axis=1), stamp))
            elif kind in ("prompt", "off"):
                self.items.append((kind, *values[:2], self._late(stamp, values[2], first)))
            elif kind in ("click", "gaze"):
                self.items.append((kind, values[0], self._late(stamp, values[1], first)))
            else:
                self.items.append((kind, *values))
        self.last = stamp

    @staticmethod
    def _late(stamp, late, first):
        if not late:
            return 0
        return stamp - late if stamp - late >= first else STALE

    def events(self):
        for kind, *values in self.items:
            if kind == "image":
                pixels, stamp = values
                yield Image(SIZE, lambda pixels=pixels: pixels, stamp * SECOND, "camera")
            elif kind == "remove":
                yield Remove(values[0]) if values[0] else Reset()
            else:
                (u, v), *rest, stamp = values
                at = np.array([[u, v, 0.0]])
                if kind == "gaze":
                    at = sphere.pixel_to_direction(at[:, :2], SIZE)
                yield PromptGiven(
                    points=at,
                    labels=np.array([0 if kind == "off" else 1]),
                    space=Space.DIRECTIONS if kind == "gaze" else Space.PIXELS,
                    stamp=stamp * SECOND,
                    object_id=rest[0] if rest else 0,
                    gaze=kind == "gaze",
                )

    def write(self, path):
        with BagWriter(path) as writer:
            for k, (kind, *values) in enumerate(self.items):
                topic, message = _recorded(kind, values)
                writer.write(topic, (k + 1) * SECOND // 10, message)


def _recorded(kind, values):
    if kind == "image":
        pixels, stamp = values
        return "/image", make(
            "sensor_msgs/msg/Image", header=header(stamp * SECOND, "camera"), height=256, width=512,
            encoding="rgb8", is_bigendian=0, step=1536,
            data=np.frombuffer(pixels.tobytes(), np.uint8),
        )  # fmt: skip
    if kind == "remove":
        return "/remove", make("std_msgs/msg/UInt16", data=values[0])
    (u, v), *rest, stamp = values
    at = make("geometry_msgs/msg/Point", x=float(u), y=float(v), z=0.0)
    head = header(stamp * SECOND, "")
    if kind == "click":
        return "/prompt/point", make("geometry_msgs/msg/PointStamped", header=head, point=at)
    if kind == "gaze":
        x, y, z = sphere.pixel_to_direction((u, v), SIZE)
        vector = make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))
        return "/prompt/gaze", make("geometry_msgs/msg/Vector3Stamped", header=head, vector=vector)
    empty = make(
        "sensor_msgs/msg/Image", header=header(0, ""), height=0, width=0, encoding="",
        is_bigendian=0, step=0, data=np.zeros(0, np.uint8),
    )  # fmt: skip
    return "/prompt", make(
        "sap_ros/msg/Prompt", PIXELS=0, DIRECTIONS=1, POSITIONS=2, header=head, object_id=rest[0],
        label="", space=0, points=[at], labels=np.array([kind != "off"], np.uint8), box=[],
        mask=empty,
    )  # fmt: skip


class Live:
    """A node over DDS, told one event at a time."""

    def __init__(self, make_rig):
        self.rig = make_rig(keep_images=KEPT, patience=60.0, max_objects=3).up()
        peer = self.rig.peer
        self.prompts = peer.create_publisher(PromptMessage, "prompt", 10)
        self.gazes = peer.create_publisher(Vector3Stamped, "prompt/gaze", 10)
        self.removals = peer.create_publisher(UInt16, "remove", 10)
        for publisher in (self.prompts, self.gazes, self.removals):
            self.rig.until(publisher.get_subscription_count)

    def play(self, story, counts):
        """The answers to each event, of which so many are expected."""
        rig, found = self.rig, []
        for (kind, *values), count in zip(story.items, counts, strict=True):
            masks, objects = len(rig.masks), len(rig.objects)
            self._tell(kind, values)
            rig.until(
                lambda m=masks, o=objects, n=count: (
                    len(rig.masks) >= m + n and len(rig.objects) >= o + n
                )
            )
            if not count:
                rig.spin(0.15)  # nothing is said: it is told all the same, before the next one
            found += list(zip(rig.masks[masks:], rig.objects[objects:], strict=True))
        return found

    def clear(self):
        """Removes all objects, and waits until that is said."""
        objects = len(self.rig.objects)
        self.removals.publish(UInt16(data=0))
        self.rig.until(lambda: len(self.rig.objects) > objects)
        self.rig.until(lambda: len(self.rig.masks) == len(self.rig.objects))

    def _tell(self, kind, values):
        rig = self.rig
        if kind == "image":
            rig.publish(values[0], stamp=values[1], frame="camera")
        elif kind == "remove":
            self.removals.publish(UInt16(data=values[0]))
        else:
            (u, v), *rest, stamp = values
            at = Point(x=float(u), y=float(v))
            if kind == "click":
                message, publisher = PointStamped(point=at), rig.clicks
            elif kind == "gaze":
                x, y, z = map(float, sphere.pixel_to_direction((u, v), SIZE))
                message = Vector3Stamped(vector=Vector3(x=x, y=y, z=z))
                publisher = self.gazes
            else:
                message = PromptMessage(object_id=rest[0], points=[at], labels=[int(kind != "off")])
                publisher = self.prompts
            message.header.stamp.sec = stamp
            publisher.publish(message)


def _said(mask, objects):
    """What is compared of a message: of floats, what a float32 holds."""
    labels = np.frombuffer(bytes(mask.data), np.uint8)
    return (
        objects.header.stamp.sec,
        labels.tobytes(),
        [
            (o.id, o.state, o.reason, *np.float32([o.azimuth, o.score, o.solid_angle]).tolist())
            for o in objects.objects
        ],
    )


def _answered(answer):
    return (
        answer.stamp // SECOND,
        answer.instances.labels.tobytes(),
        [
            (o.object_id, int(o.state), o.reason,
             *np.float32([o.azimuth, o.score, o.solid_angle]).tolist())
            for o in answer.objects
        ],
    )  # fmt: skip


def _equal(one, other):
    """Lists of answers; NaN is equal to NaN."""
    return repr(one) == repr(other)


@pytest.fixture(scope="module")
def nano():
    return load_model("sap-nano")


def test_the_same_events_get_equal_answers(make_rig, nano, panorama, tmp_path_factory):
    live, first = Live(make_rig), [10]

    @settings(
        max_examples=12, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(lists)
    def compare(happened):
        story = Story(happened, panorama, first[0] + KEPT + 2)
        engine = Engine(PanoramaSession(nano, "direct"), Settings(**LIMITS))
        bare, counts = [], []
        for event in story.events():
            engine.take(event, 0.0)
            answers = [_answered(a) for a in run(engine, 0.0) if a.news]
            bare += answers
            counts.append(len(answers))
        folder = tmp_path_factory.mktemp("story")
        story.write(folder / "bag")
        topics = Topics("/image", ("/prompt", "/prompt/gaze", "/prompt/point", "/remove"))
        with Bag(folder / "bag") as bag:
            there = tuple(t for t in topics.prompts if t in bag.topics)
            session = PanoramaSession(nano, "direct")
            out = folder / "out"
            replay(bag, Topics("/image", there), session, out, settings=Settings(**LIMITS))
        replayed = []
        if bare:
            with Bag(folder / "out" / "bag") as bag:
                masks = [m for _, _, m in bag.messages(["/sap/masks"])]
                objects = [m for _, _, m in bag.messages(["/sap/objects"])]
            replayed = [_said(*pair) for pair in zip(masks, objects, strict=True)]
        assert _equal(replayed, bare)
        heard = [_said(*pair) for pair in live.play(story, counts)]
        live.clear()  # the next story begins with nothing
        first[0] = story.last + 5
        assert _equal(heard, bare)

    compare()
