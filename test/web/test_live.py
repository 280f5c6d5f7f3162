"""The live page over real DDS with the real node; skipped by name where ROS 2 is missing."""

import asyncio
import signal
import subprocess
import threading
import urllib.request

import aiohttp
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from sap_ros.msg import Object, ObjectArray

from sap_ros.core import sphere
from sap_ros.engine.axes import ImageAxes
from sap_ros.web.commands import Box, Point
from sap_ros.web.live import Live, PageNode, prompt_message

from ..ros.conftest import make_rig, spots  # noqa: F401
from .conftest import Page, connect, free_port, serving


class Visitor:
    """A page that is open, in a thread of its own: the test's thread spins the node."""

    def __init__(self, rig, access):
        self.rig = rig
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.asked = []
        self.page = None
        self.run(self._open(access))
        self.reading = asyncio.run_coroutine_threadsafe(self._read(), self.loop)

    async def _open(self, access):
        self.session = aiohttp.ClientSession()
        self.socket = await connect(self.session, access)
        self.page = Page(self.socket)

    async def _read(self):
        try:
            while True:
                await self.page.take(600)
        except ConnectionError:
            return

    def run(self, coroutine):
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        self.rig.until(future.done)
        return future.result()

    def ask(self, **command):
        count = len(self.page.replies)
        self.run(self.socket.send_json(command))
        self.rig.until(lambda: len(self.page.replies) > count)
        return self.page.replies[-1]

    def objects(self):
        return {row["id"]: row for row in self.page.state["objects"]}

    def close(self):
        self.run(self.socket.close())
        self.rig.until(self.reading.done)
        self.run(self.session.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def visit(make_rig):  # noqa: F811
    """A node with these parameters, the page's server, and a page that is open."""
    opened = []

    def make(**parameters):
        rig = make_rig(**parameters)
        node = PageNode(namespace="sap")
        server = serving(Live(node))
        visitor = Visitor(rig, server.__enter__())
        opened.append((visitor, server, node))
        return rig, visitor

    yield make
    for visitor, server, node in opened:
        visitor.close()
        server.__exit__(None, None, None)
        node.destroy_node()


def stream(rig, image, ready, frame="camera_link"):
    """Publishes images until something is there; returns the stamp of the last, in s."""
    stamp = max([m.header.stamp.sec for m in rig.masks], default=0)
    for _ in range(60):
        stamp += 1
        rig.publish(image, stamp, frame=frame)
        rig.spin(0.2)
        if ready():
            return stamp
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(
    "axes",
    [{}, {"forward_column": 0.25, "image_frame_convention": "optical"}],
    ids=["body", "optical"],
)
def test_a_click_on_the_page_is_the_nodes_object(visit, spots, axes):  # noqa: F811
    image, truth = spots
    rig, visitor = visit(**axes)
    rig.up()
    page = visitor.page
    stream(rig, image, lambda: page.image is not None and not page.state["alert"])
    assert page.image.shape == (256, 512, 3)
    left = [float(x) for x in sphere.angles_to_direction(np.pi / 2, 0.0)]  # of the panorama
    click = {"type": "point", "positive": True, "object_id": 0}
    done = visitor.ask(**click, direction=left, stamp=page.stamp)
    assert (done["ok"], done["object_id"]) == (True, 1), done
    stream(rig, image, lambda: 1 in visitor.objects() and visitor.objects()[1]["direction"])
    labels = np.frombuffer(rig.masks[-1].data, np.uint8).reshape(256, 512)
    both = ((labels == 1) & (truth == 2)).sum()
    assert both > 0.8 * ((labels == 1) | (truth == 2)).sum()
    row = visitor.objects()[1]
    assert row["state"] == "TRACKED"
    # The page is told the direction on the panorama, whatever the axes of the image's frame.
    assert np.degrees(sphere.angle_between(row["direction"], left)) < 3
    assert visitor.ask(type="rename", object_id=1, label="left one")["ok"]
    stream(rig, image, lambda: visitor.objects()[1]["label"] == "left one")
    assert page.state["live"]["rate"] is not None

    corners = [[float(x) for x in sphere.angles_to_direction(a, e)]
               for a, e in ((-1.2, 0.35), (-1.9, -0.35))]  # fmt: skip
    done = visitor.ask(type="box", corners=corners, object_id=0, stamp=page.stamp)
    assert (done["ok"], done["object_id"]) == (True, 2), done
    stream(rig, image, lambda: set(visitor.objects()) == {1, 2})
    done = visitor.ask(**{**click, "positive": False}, direction=left, stamp="0")
    assert (done["ok"], "no positive point" in done["message"]) == (False, True)
    assert visitor.ask(type="remove", object_id=1)["ok"]
    assert not visitor.ask(type="remove", object_id=1)["ok"]
    stream(rig, image, lambda: set(visitor.objects()) == {2})
    assert visitor.ask(type="reset")["ok"]
    stream(rig, image, lambda: not visitor.objects())
    assert "live camera" in visitor.ask(type="save")["message"]


def test_a_click_is_on_the_image_that_was_on_the_screen(visit, spots):  # noqa: F811
    """The disk is gone by the time of the click: it was found, and is lost, while the wall is found."""
    image, truth = spots
    rig, visitor = visit()
    rig.up()
    page = visitor.page
    last = stream(rig, image, lambda: page.image is not None)
    rig.until(lambda: page.stamp == str(last * 10**9))
    seen, empty = page.stamp, image.copy()
    empty[truth == 2] = image[truth == 0][: (truth == 2).sum()]
    now = last + 1
    rig.publish(empty, now)
    rig.until(lambda: page.stamp == str(now * 10**9))
    left = [float(x) for x in sphere.angles_to_direction(np.pi / 2, 0.0)]
    click = {"type": "point", "direction": left, "positive": True, "object_id": 0}
    assert visitor.ask(**click, stamp=seen)["object_id"] == 1
    assert visitor.ask(**click, stamp=page.stamp)["object_id"] == 2

    def states():
        return [visitor.objects()[i]["state"] for i in (1, 2) if i in visitor.objects()]

    rig.until(lambda: len(states()) == 2 and "PENDING" not in states())
    assert states() == ["LOST", "TRACKED"]


def test_objects_that_come_before_the_first_diagnostics_stay_on_the_page(visit):
    rig, visitor = visit()  # not up: its diagnostics are withheld below
    rig.executor.remove_node(rig.sap)
    objects = rig.peer.create_publisher(ObjectArray, "objects", 10)
    rig.until(lambda: objects.get_subscription_count() == 2)
    objects.publish(ObjectArray(objects=[Object(id=1, state=Object.TRACKED)]))
    rig.until(lambda: visitor.page.state and 1 in visitor.objects())
    rig.spin(1.0)
    assert 1 in visitor.objects()
    rig.executor.add_node(rig.sap)
    rig.until(lambda: "not active" in visitor.page.state["alert"])
    assert 1 in visitor.objects()
    rig.executor.remove_node(rig.sap)
    rig.until(lambda: "not running" in visitor.page.state["alert"])
    rig.until(lambda: not visitor.objects())
    rig.executor.add_node(rig.sap)


def test_the_node_draws_only_while_a_page_is_open(visit, spots):  # noqa: F811
    rig, visitor = visit()
    rig.up()
    rig.until(lambda: rig.sap.count_subscribers("overlay/compressed") == 1)
    visitor.run(visitor.socket.close())
    rig.until(lambda: rig.sap.count_subscribers("overlay/compressed") == 0)


def test_the_page_says_what_is_missing_and_recovers(visit, spots):  # noqa: F811
    image, _ = spots
    rig, visitor = visit()
    page = visitor.page
    rig.until(lambda: "not active" in page.state.get("alert", ""))
    rig.up()
    rig.until(lambda: "No image has been received on /sap/image yet" in page.state["alert"])
    stream(rig, image, lambda: not page.state["alert"])
    rig.until(lambda: "No image has been received on /sap/image for" in page.state["alert"])
    stream(rig, image, lambda: not page.state["alert"])
    rig.executor.remove_node(rig.sap)  # it stands still, as a process that hangs does
    rig.until(lambda: "not running" in page.state["alert"])
    assert page.state["live"]["rate"] is None
    rig.executor.add_node(rig.sap)
    stream(rig, image, lambda: not page.state["alert"])


def test_the_executable_serves_the_page_and_ends_quietly():
    try:
        prefix = get_package_prefix("sap_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not built: make build")
    port = free_port()
    command = [f"{prefix}/lib/sap_ros/sap_web", "--ros-args", "-p", f"port:={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"Open http://127.0.0.1:{port}/\n"
        # Where colcon installs links, the page's files are links out of the folder.
        for name in ("", "page/page.js", "page/style.css"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}") as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""


def test_a_click_has_the_stamp_of_its_image_and_the_frames_axes():
    axes = ImageAxes(forward_column=0.25, convention="optical")
    ahead = tuple(axes.from_frame(np.array([0.0, 0.0, 1.0])))
    prompt = prompt_message(Point(ahead, False, 3, 5_000_000_007), axes, "camera")
    assert (prompt.header.stamp.sec, prompt.header.stamp.nanosec) == (5, 7)
    assert (prompt.header.frame_id, prompt.object_id, prompt.space) == ("camera", 3, 1)
    (point,) = prompt.points
    np.testing.assert_allclose((point.x, point.y, point.z), (0, 0, 1), atol=1e-12)
    assert list(prompt.labels) == [0]
    box = prompt_message(Box((ahead, (0.0, 0.0, 1.0)), 0, 0), ImageAxes(), "camera")
    assert [(p.x, p.y, p.z) for p in box.box] == [ahead, (0.0, 0.0, 1.0)]
