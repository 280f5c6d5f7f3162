"""The node's subscription to images: raw or compressed, best effort or reliable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image


def newest_only(reliability: ReliabilityPolicy = ReliabilityPolicy.BEST_EFFORT) -> QoSProfile:
    """A profile that keeps only the newest message.

    It is a new object each time, because rclpy writes overriding parameters into it.
    """
    return QoSProfile(depth=1, reliability=reliability)


class ImageInput:
    """Subscribes to images with best effort, or reliably if all publishers offer that.

    Best effort is compatible with all drivers, but can lose fragments of large images.

    Args:
        node: the node.
        compressed: subscribe to ``image/compressed`` instead of ``image``.
        take: called with each image.
        warn: called with a message if a publisher's quality of service is incompatible.
    """

    def __init__(
        self,
        node: Node,
        compressed: bool,
        take: Callable[[Image | CompressedImage], None],
        warn: Callable[[str], None],
    ) -> None:
        self._node, self._compressed, self._take, self._warn = node, compressed, take, warn
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._subscribe(
            newest_only(), QoSOverridingOptions.with_default_policies()
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
            # Both subscriptions exist for a while; the engine processes each stamp once.
            self._reliability, self._former = wanted, self._subscription
            self._subscription = self._subscribe(newest_only(wanted))

    def _subscribe(
        self, profile: QoSProfile, overriding: QoSOverridingOptions | None = None
    ) -> Any:
        kind, topic = Image, "image"
        # As in image_transport, the compressed topic is a subtopic of the raw one, also if that is remapped.
        if self._compressed:
            kind, topic = CompressedImage, f"{self._node.resolve_topic_name('image')}/compressed"
        return self._node.create_subscription(
            kind,
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
