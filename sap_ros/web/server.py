"""The HTTP server: the page's files, and a WebSocket for each open page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from sap_ros.web.access import Access
from sap_ros.web.commands import Command, Done, parse, read_json
from sap_ros.web.viewers import Viewer, Viewers

#: Maximum size of a page's message, in bytes.
LARGEST_MESSAGE = 4096
#: Maximum number of concurrent commands of a page; further ones are not read until one is done.
MOST_COMMANDS = 16

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The page's files, by name; nothing else is served. With colcon's symlink install they are links.
_FILES = {p.name: p for p in (Path(__file__).parent / "page").iterdir() if p.suffix in _TYPES}
_HEARTBEAT = 10.0  # s, time without a reply from a page after which its connection is closed

_LOG = logging.getLogger(__name__)
_VIEWERS = web.AppKey("viewers", Viewers)


class BackEnd(Protocol):
    """The interface of what a page controls."""

    async def start(self, viewers: Viewers) -> None:
        """Starts to send images and state to the pages."""

    async def handle(self, command: Command) -> Done:
        """Executes a page's command.

        Raises:
            ValueError: the command failed; the message says why.
        """

    async def stop(self) -> None:
        """Stops all work."""


def make_app(back_end: BackEnd, access: Access) -> web.Application:
    """The application that serves the page for a back end."""
    app = web.Application(middlewares=[access.middleware], client_max_size=LARGEST_MESSAGE)

    async def run(app: web.Application) -> Any:
        app[_VIEWERS] = Viewers()
        await back_end.start(app[_VIEWERS])
        yield
        await back_end.stop()

    async def page(request: web.Request) -> web.Response:
        file = _FILES.get(request.match_info.get("name", "index.html"))
        if file is None:
            raise web.HTTPNotFound
        return web.Response(
            text=file.read_text("utf-8"), content_type=_TYPES[file.suffix], charset="utf-8"
        )

    async def connect(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            heartbeat=_HEARTBEAT, max_msg_size=LARGEST_MESSAGE, compress=False
        )
        await socket.prepare(request)
        await _converse(socket, request.app[_VIEWERS], back_end)
        return socket

    app.cleanup_ctx.append(run)
    app.router.add_get("/", page)
    app.router.add_get("/page/{name}", page)
    app.router.add_get("/connection", connect)
    return app


async def _converse(socket: web.WebSocketResponse, viewers: Viewers, back_end: BackEnd) -> None:
    """Handles a page's connection until it is closed."""
    try:
        viewer = viewers.enter(socket)
    except ValueError as error:
        await socket.close(code=1013, message=str(error).encode())
        return
    sending = asyncio.create_task(viewer.run())
    handling: set[asyncio.Task[None]] = set()
    try:
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            task = asyncio.create_task(_take(socket, viewer, back_end, message.data))
            handling.add(task)
            task.add_done_callback(handling.discard)
            if len(handling) >= MOST_COMMANDS:
                await asyncio.wait(handling, return_when=asyncio.FIRST_COMPLETED)
    finally:
        viewers.leave(viewer)
        for task in (sending, *handling):
            task.cancel()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(sending, *handling, return_exceptions=True)


async def _take(
    socket: web.WebSocketResponse, viewer: Viewer, back_end: BackEnd, text: str
) -> None:
    """Handles a page's message: the acknowledgement of an image, or a command, which gets a reply."""
    reply: dict[str, Any] = {"type": "reply", "ok": True}
    try:
        values = read_json(text)
        if values.get("type") == "drawn":
            viewer.drawn()
            return
        reply["request"] = values.get("request")
        done = await back_end.handle(parse(values))
        reply |= {"message": done.message, "object_id": done.object_id}
    except ValueError as error:
        reply |= {"ok": False, "message": str(error)}
    except Exception as error:  # a bug in one command must not stop the others
        _LOG.exception("a command has failed")
        reply |= {"ok": False, "message": repr(error)}
    with contextlib.suppress(ConnectionError):
        await socket.send_json(reply)


async def serve(back_end: BackEnd, access: Access) -> None:
    """Prints the page's address, and serves the page until SIGINT or SIGTERM.

    Args:
        back_end: what the page controls.
        access: where the page is served, and who may use it.

    Raises:
        OSError: the port cannot be opened.
    """
    runner = web.AppRunner(make_app(back_end, access), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, access.host, access.port).start()
        access.announce()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()
