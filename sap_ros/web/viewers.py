"""Sends the newest images, masks and state to the open pages; a slow page skips images.

An image is encoded once for all pages. A page acknowledges each image when it has drawn it. A page with
:data:`IN_FLIGHT` unacknowledged images gets no further image until it acknowledges one, and then the newest.
So a slow page or network does not delay other pages, and is never more than those images behind.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

#: Maximum number of images that were sent to a page and are not drawn yet.
IN_FLIGHT = 2
#: Maximum number of open pages.
MOST_VIEWERS = 32

# New messages are sent in this order; "state" is text, the others are pictures.
_CHANNELS = ("state", "image", "masks")


def finite(value: float) -> float | None:
    """A number for JSON: None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def vector(*values: float) -> list[float] | None:
    """A direction for JSON: None if it is not finite."""
    return [float(v) for v in values] if all(map(math.isfinite, values)) else None


@dataclass(frozen=True)
class _Message:
    serial: int
    content: str | bytes


class Viewer:
    """One page.

    Args:
        socket: the connection to it.
        newest: the newest message of each channel; read again at each transmission.
    """

    def __init__(self, socket: web.WebSocketResponse, newest: Mapping[str, _Message]) -> None:
        self._socket, self._newest = socket, newest
        self._sent = dict.fromkeys(_CHANNELS, 0)
        self._in_flight = 0
        self.news = asyncio.Event()
        self.news.set()

    def drawn(self) -> None:
        """Records that the page has drawn an image."""
        self._in_flight = max(0, self._in_flight - 1)
        self.news.set()

    async def run(self) -> None:
        """Sends new messages until it is cancelled or the connection is lost."""
        while not self._socket.closed:
            await self.news.wait()
            self.news.clear()
            for channel in _CHANNELS:
                message = self._newest.get(channel)
                if message is None or message.serial == self._sent[channel]:
                    continue
                if channel == "image":
                    if self._in_flight >= IN_FLIGHT:
                        continue
                    self._in_flight += 1
                self._sent[channel] = message.serial
                if isinstance(message.content, str):
                    await self._socket.send_str(message.content)
                else:
                    await self._socket.send_bytes(message.content)


class Viewers:
    """All pages. Made and called in the event loop; :meth:`show` and :meth:`tell` from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._newest: dict[str, _Message] = {}
        self._viewers: set[Viewer] = set()
        self._serial = 0
        self.count = 0

    def show(self, channel: str, head: Mapping[str, Any], picture: bytes) -> None:
        """Sends a picture to all pages.

        Args:
            channel: ``image``, or ``masks`` (a label image, whose red and green channels are the low and
                high byte of the ids).
            head: the picture's metadata, sent as JSON.
            picture: a JPEG or PNG.
        """
        text = json.dumps({"type": channel, **head}).encode()
        self._put(channel, len(text).to_bytes(4, "big") + text + picture)

    def tell(self, state: Mapping[str, Any]) -> None:
        """Sends the complete state to all pages, as JSON."""
        self._put("state", json.dumps({"type": "state", **state}, allow_nan=False))

    def _put(self, channel: str, content: str | bytes) -> None:
        def put() -> None:
            self._serial += 1
            self._newest[channel] = _Message(self._serial, content)
            for viewer in self._viewers:
                viewer.news.set()

        self._loop.call_soon_threadsafe(put)

    def enter(self, socket: web.WebSocketResponse) -> Viewer:
        """Adds a page.

        Raises:
            ValueError: too many pages are open.
        """
        if self.count >= MOST_VIEWERS:
            raise ValueError(f"{MOST_VIEWERS} pages are open already; close one")
        viewer = Viewer(socket, self._newest)
        self._viewers.add(viewer)
        self.count += 1
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Removes a page."""
        self._viewers.remove(viewer)
        self.count -= 1
