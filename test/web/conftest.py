"""A real server on a free port, and a folder of panoramas."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from sap_ros.core import sphere
from sap_ros.core.loading import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.web.access import Access
from sap_ros.web.folder import PanoramaFolder
from sap_ros.web.labelling import Labelling
from sap_ros.web.server import make_app
from sap_ros.web.stills import Stills

SIZE = (1024, 512)
#: Centres of the disks of the room, azimuth and elevation in degrees: ahead, across the seam, at a pole.
DISKS = {"red": (20.0, -10.0), "green": (180.0, 5.0), "blue": (60.0, 80.0)}
RADIUS = 12.0  # of each, in degrees
COLOURS = {"red": (220, 60, 30), "green": (40, 160, 40), "blue": (40, 60, 200)}


def ray(azimuth, elevation):
    """A direction, from degrees."""
    return sphere.angles_to_direction(np.radians(azimuth), np.radians(elevation))


@pytest.fixture(scope="session")
def room():
    """A grey panorama (512, 1024, 3) with three disks; and their masks, by name."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), SIZE)
    noise = np.random.default_rng(0).integers(0, 20, (SIZE[1], SIZE[0], 1), np.uint8)
    image, masks = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8) - noise, {}
    for name, place in DISKS.items():
        masks[name] = rays @ ray(*place) > np.cos(np.radians(RADIUS))
        image[masks[name]] = COLOURS[name]
    return image, masks


@pytest.fixture
def pictures(tmp_path, room):
    """A folder with the room as PNG, JPEG and a mirrored JPEG."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(room[0]).save(folder / "a.png")
    Image.fromarray(room[0]).save(folder / "b.jpg", quality=95)
    Image.fromarray(room[0][:, ::-1]).save(folder / "c.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def nano():
    return load_model("sap-nano")


@pytest.fixture
def label(nano):
    """Opens a folder to label."""

    def opened(folder, out=None):
        return Labelling(PanoramaFolder(folder, out), PanoramaSession(nano))

    return opened


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(back_end, token="", port=None):
    """The server on a free port of 127.0.0.1, in a thread; gives its Access."""
    access = Access("127.0.0.1", port or free_port(), token)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(make_app(back_end, access), access_log=None, shutdown_timeout=0.5)

    async def start():
        await runner.setup()
        await web.TCPSite(runner, access.host, access.port, reuse_address=True).start()

    async def stop():
        await runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(60)
        yield access
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def stills(label, pictures):
    return Stills(label(pictures))


class Page:
    """What page/connection.js does, without drawing."""

    def __init__(self, socket, draws=True):
        self.socket, self.draws = socket, draws
        self.state, self.image, self.masks, self.images = {}, None, None, []
        self.replies = []

    async def take(self, seconds=60.0):
        """The next message."""
        message = await self.socket.receive(seconds)
        if message.type == aiohttp.WSMsgType.BINARY:
            length = int.from_bytes(message.data[:4], "big")
            head, content = json.loads(message.data[4 : 4 + length]), message.data[4 + length :]
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if head["type"] == "image":
                self.image, self.stamp = pixels, head["stamp"]
                self.images.append(head["stamp"])
                if self.draws:
                    await self.socket.send_json({"type": "drawn"})
            else:
                self.masks = pixels[..., 2] + 256 * pixels[..., 1].astype(int)
        elif message.type == aiohttp.WSMsgType.TEXT:
            values = json.loads(message.data)
            if values["type"] == "state":
                self.state = values
            else:
                self.replies.append(values)
        else:
            raise ConnectionError(message)

    async def until(self, ready):
        async def wait():
            while not ready():
                await self.take()

        await asyncio.wait_for(wait(), 60)

    async def ask(self, **command):
        await self.socket.send_json({"request": len(self.replies), **command})
        count = len(self.replies)
        await self.until(lambda: len(self.replies) > count)
        return self.replies[-1]


def url(access, path=""):
    return f"http://{access.host}:{access.port}/{path}"


def connect(session, access, **headers):
    origin = {"Origin": f"http://{access.host}:{access.port}"}
    return session.ws_connect(
        url(access, "connection"), headers={**origin, **headers}, max_msg_size=0
    )
