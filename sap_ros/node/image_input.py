"""The node's subscription to images: raw, compressed or packets of a video, best effort or reliable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node, SubscriptionEventCallbacks  # whose own module differs by distribution
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from sap_ros.missing import apt_install


def newest_only(reliability: ReliabilityPolicy = ReliabilityPolicy.BEST_EFFORT) -> QoSProfile:
    """A profile that keeps only the newest message.

    It is a new object each time, because rclpy writes overriding parameters into it.
    """
    return QoSProfile(depth=1, reliability=reliability)


#: Maximum number of compressed images that wait in the middleware: none of a video's packets may be left out.
_COMPRESSED_DEPTH = 60


def message_type(transport: str) -> Any:
    """The type of the images' messages, by the parameter ``image_transport``.

    Raises:
        ValueError: its package is not installed.
    """
    if transport != "ffmpeg":
        return Image if transport == "raw" else CompressedImage
    try:
        from ffmpeg_image_transport_msgs.msg import FFMPEGPacket
    except ImportError:
        raise ValueError(
            "image_transport ffmpeg needs ffmpeg_image_transport_msgs, which is not installed "
            f"({apt_install('ffmpeg-image-transport-msgs')})"
        ) from None
    return FFMPEGPacket


class ImageInput:
    """Subscribes to images with best effort, or reliably if all publishers offer that.

    Best effort is compatible with all drivers, but can lose fragments of large images.

    Args:
        node: the node.
        topic: name of the topic, which may be remapped.
        transport: ``raw``; ``compressed`` or ``ffmpeg``: the subtopic of that name.
        take: called with each image.
        warn: called with a message if a publisher's quality of service is incompatible.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        transport: str,
        take: Callable[[Any], None],
        warn: Callable[[str], None],
    ) -> None:
        self._node, self._topic, self._transport = node, topic, transport
        self._take, self._warn = take, warn
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._subscribe(
            self._profile(), QoSOverridingOptions.with_default_policies()
        )
        self._former: Any = None  # the previous subscription, kept until the new one is discovered

    @property
    def topic(self) -> str:
        """The topic's full name."""
        return str(self._subscription.topic_name)

    def destroy(self) -> None:
        """Destroys the subscriptions."""
        for subscription in (self._subscription, self._former):
            if subscription is not None:
                self._node.destroy_subscription(subscription)

    def follow_drivers(self) -> None:
        """Adapts the reliability to the current publishers, unless a parameter overrides it."""
        of_images = f"qos_overrides.{self.topic}.subscription"
        if any(name.startswith(of_images) for name in self._node._parameter_overrides):
            return
        offers = [
            info.qos_profile.reliability
            for info in self._node.get_publishers_info_by_topic(self.topic)
        ]
        reliable = bool(offers) and all(o == ReliabilityPolicy.RELIABLE for o in offers)
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if self._former is not None:
            self._node.destroy_subscription(self._former)
            self._former = None
        elif wanted != self._reliability and offers:
            # Both subscriptions exist for a while; the engine processes each stamp once, and the video
            # input each packet.
            self._reliability, self._former = wanted, self._subscription
            self._subscription = self._subscribe(self._profile())

    def _profile(self) -> QoSProfile:
        profile = newest_only(self._reliability)
        if self._transport != "raw":
            profile.depth = _COMPRESSED_DEPTH
        return profile

    def _subscribe(
        self, profile: QoSProfile, overriding: QoSOverridingOptions | None = None
    ) -> Any:
        topic = self._topic
        # As in image_transport, these topics are subtopics of the raw one, also if that is remapped.
        if self._transport != "raw":
            topic = f"{self._node.resolve_topic_name(topic)}/{self._transport}"
        return self._node.create_subscription(
            message_type(self._transport),
            topic,
            self._take,
            profile,
            qos_overriding_options=overriding,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
        )

    def _incompatible(self, event: Any) -> None:
        self._warn(
            f"a publisher of {self.topic} offers an incompatible quality of service; set the parameters "
            "qos_overrides.* (see the README)"
        )
