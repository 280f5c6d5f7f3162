"""Tests of the node on real rclpy and DDS; skipped by name where ROS 2 or the messages are missing."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from geometry_msgs.msg import PointStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sap_ros.msg import ObjectArray
from sensor_msgs.msg import CompressedImage, Image

from sap_ros.core import sphere
from sap_ros.node.sap_node import SapNode

# A domain of its own for every test process, so that runs side by side do not meet.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)


class Rig:
    """A node under test, and a driver, a person and a listener around it, in one process."""

    def __init__(self, namespace="sap", remap=(), **parameters):
        self.sap = SapNode(
            namespace=namespace,
            cli_args=["--ros-args", *(part for rule in remap for part in ("-r", rule))],
            parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()],
        )
        self.peer = Node("peer", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.sap)
        self.executor.add_node(self.peer)
        self.images = self.peer.create_publisher(Image, "image", 1)
        self.clicks = self.peer.create_publisher(PointStamped, "prompt/point", 10)
        self.masks: list[Image] = []
        self.objects: list[ObjectArray] = []
        self.peer.create_subscription(Image, "masks", self.masks.append, 10)
        self.peer.create_subscription(ObjectArray, "objects", self.objects.append, 10)

    def up(self, images=None, listeners=1):
        images = images or self.images
        assert self.sap.trigger_configure().name == "SUCCESS"
        assert self.sap.trigger_activate().name == "SUCCESS"
        self.until(lambda: images.get_subscription_count() and self.clicks.get_subscription_count())
        self.until(lambda: self.sap.count_subscribers("masks") == listeners)
        return self

    def up_compressed(self):
        self.compressed = self.peer.create_publisher(CompressedImage, "image/compressed", 1)
        self.up(self.compressed)
        return self

    def until(self, ready, seconds=60.0):
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def publish(self, image, stamp=1, encoding="rgb8", frame="camera_link"):
        self.images.publish(self.message(image, stamp, encoding, frame))

    def message(self, image, stamp=1, encoding="rgb8", frame="camera_link"):
        channels = 1 if image.ndim == 2 else image.shape[2]
        message = Image(encoding=encoding, height=image.shape[0], width=image.shape[1])
        message.header.stamp.sec, message.header.frame_id = stamp, frame
        message.step = channels * image.shape[1]
        message.data.frombytes(image.tobytes())
        return message

    def click(self, u, v):
        message = PointStamped()
        message.point.x, message.point.y = float(u), float(v)
        self.clicks.publish(message)

    def answer(self, stamp, seconds=60.0):
        """The mask image and the objects of a stamp."""
        self.until(lambda: any(m.header.stamp.sec == stamp for m in self.masks), seconds)
        self.until(lambda: any(m.header.stamp.sec == stamp for m in self.objects), seconds)
        return (
            next(m for m in reversed(self.masks) if m.header.stamp.sec == stamp),
            next(m for m in reversed(self.objects) if m.header.stamp.sec == stamp),
        )

    def down(self):
        """Ends the nodes; a test may do so before its end, when the fixture does."""
        if self.sap is None:
            return
        self.sap.stop()
        self.sap.destroy_node()
        self.peer.destroy_node()
        self.executor.shutdown()
        # rclpy's LifecycleNode answers to its name, and no longer to its services, until it is collected:
        # a process of that name, in a later test, would never get its answers through.
        self.sap = None
        gc.collect()


@pytest.fixture
def make_rig():
    rclpy.init()
    rigs = []

    def make(**parameters):
        # One look at the whole panorama is enough where the scan is not the point.
        rigs.append(Rig(**{"strategy": "direct", **parameters}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.down()
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def spots():
    """A panorama (256, 512, 3) with a disk ahead (1), to the left (2) and to the right (3), and their ids.

    Unlike the waves of ``panorama``, the shipped model finds each, and none is found as everything: a
    mask tells where a prompt was taken, and in which channels the image was read.
    """
    v, u = np.mgrid[:256, :512] + 0.5
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), (512, 256))
    noise = np.random.default_rng(0).integers(0, 20, (256, 512, 1), np.uint8)
    image, labels = np.full((256, 512, 3), 200, np.uint8) - noise, np.zeros((256, 512), np.uint8)
    colours = ((220, 60, 30), (40, 160, 40), (40, 60, 200))
    for i, (azimuth, colour) in enumerate(
        zip((0.0, np.pi / 2, -np.pi / 2), colours, strict=True), 1
    ):
        disk = rays @ sphere.angles_to_direction(azimuth, 0.0) > np.cos(0.25)
        image[disk], labels[disk] = colour, i
    return image, labels
