"""The HTTP server: the page's files, and a WebSocket for each page that is open."""

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

#: Bytes of a page's message, at most.
LARGEST_MESSAGE = 4096
#: Commands of one page that are worked on at a time; further ones are not read until one is done.
MOST_COMMANDS = 16

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The page's files, by name: nothing else is served. Where colcon links them they are links.
_FILES = {p.name: p for p in (Path(__file__).parent / "page").iterdir() if p.suffix in _TYPES}
_HEARTBEAT = 10.0  # s: a connection over which nothing comes back for so long is closed

_LOG = logging.getLogger(__name__)
_VIEWERS = web.AppKey("viewers", Viewers)


class BackEnd(Protocol):
    """What the page controls."""

    async def start(self, viewers: Viewers) -> None:
        """Begins to show what there is."""

    async def handle(self, command: Command) -> Done:
        """Does what a page asks for.

        Raises:
            ValueError: why it cannot be done.
        """

    async def stop(self) -> None:
        """Ends all work."""


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
    """Talks to one page until its connection is closed."""
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
    """A page's message: an image has been drawn, or a command, which is answered."""
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
    except Exception as error:  # whatever a command meets, the next one is answered
        _LOG.exception("a command has failed")
        reply |= {"ok": False, "message": repr(error)}
    with contextlib.suppress(ConnectionError):
        await socket.send_json(reply)


async def serve(back_end: BackEnd, access: Access) -> None:
    """Serves the page, and says where, until SIGINT or SIGTERM.

    Args:
        back_end: what the page controls.
        access: where it is served, and to whom.

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
