"""A node that answers each image with empty masks at once: what DDS and rclpy take, without any work between.

``python -m sap_ros.bench.echo`` runs it in the namespace /sap until it is interrupted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from sap_ros.allocation import reuse_freed_memory
from sap_ros.demo.client import Client, Transport, client_of, share_memory
from sap_ros.msg import ObjectArray
from sap_ros.node.image_input import newest_only

_NAMESPACE = "/sap"


class Echo(Node):
    """Publishes masks of an image's size, and no objects, from the callback that receives the image.

    A compressed image is not decoded; its masks have one pixel.
    """

    def __init__(self) -> None:
        super().__init__("sap_echo", namespace=_NAMESPACE)
        self._masks = self.create_publisher(Image, "masks", 1)
        self._objects = self.create_publisher(ObjectArray, "objects", 10)
        reliable = newest_only(ReliabilityPolicy.RELIABLE)
        self.create_subscription(Image, "image", self._answer, reliable)
        self.create_subscription(CompressedImage, "image/compressed", self._answer, reliable)

    def _answer(self, image: Image | CompressedImage) -> None:
        height, width = (image.height, image.width) if isinstance(image, Image) else (1, 1)
        masks = Image(header=image.header, encoding="mono8", height=height, width=width, step=width)
        masks.data.frombytes(bytes(height * width))
        self._masks.publish(masks)
        self._objects.publish(ObjectArray(header=image.header))


@contextmanager
def running_echo(transport: Transport) -> Iterator[Client]:
    """Runs the node in a process of its own; yields a client that is connected to it."""
    share_memory()
    process = subprocess.Popen([sys.executable, "-m", "sap_ros.bench.echo"])
    try:
        with client_of(process.pid, transport) as client:
            client.wait_for_subscriber()
            yield client
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    """Answers images until the process is ended."""
    reuse_freed_memory()
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Echo())


if __name__ == "__main__":
    main()
