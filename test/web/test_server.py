"""The server: who may use it, what it refuses, slow pages, and commands over a real WebSocket."""

import asyncio
import io
import json
import time

import aiohttp
import cv2
import numpy as np
import pytest

from sap_ros.core.session import PanoramaSession
from sap_ros.web.access import Access, make_access
from sap_ros.web.commands import Done
from sap_ros.web.folder import PanoramaFolder
from sap_ros.web.labelling import Labelling
from sap_ros.web.server import LARGEST_MESSAGE
from sap_ros.web.stills import Stills
from sap_ros.web.viewers import IN_FLIGHT, MOST_VIEWERS

from .conftest import DISKS, Page, connect, ray, serving, url


class Nothing:
    """A back end that shows what a test tells it to."""

    async def start(self, viewers):
        self.viewers = viewers

    async def handle(self, command):
        return Done("done")

    async def stop(self):
        pass


def run(work):
    """Runs a coroutine function that is given a client session."""

    async def main():
        jar = aiohttp.CookieJar(unsafe=True)  # which keeps cookies of IP addresses
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            await work(session)

    asyncio.run(main())


def test_the_page_and_its_files_are_served_and_nothing_else():
    async def work(session):
        for path in ("", "page/page.js", "page/style.css"):
            answer = await session.get(url(access, path))
            assert answer.status == 200
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        for path in ("page/", "page/../access.py", "page/%2e%2e/access.py", "page//etc/passwd",
                     "page/..%2f..%2f..%2fsetup.py", "images/a.jpg", "etc/passwd"):  # fmt: skip
            raw = aiohttp.client.URL(url(access, path), encoded=True)
            assert (await session.get(raw)).status in (403, 404), path

    with serving(Nothing()) as access:
        run(work)


def test_commands_of_other_pages_are_refused():
    async def work(session):
        for origin in ("http://evil.example", "null", "", f"https://{access.host}:{access.port}"):
            headers = {"Origin": origin}
            assert (await session.post(url(access), headers=headers)).status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(session, access, **headers)
            assert refused.value.status == 403
        assert (await session.post(url(access))).status == 403
        # A name of another site that has been pointed at this machine.
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert (await session.get(url(access), headers=headers)).status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await connect(session, access, **headers)
        async with connect(session, access) as socket:
            assert not socket.closed

    with serving(Nothing()) as access:
        run(work)


def test_other_machines_need_the_token():
    async def work(session):
        for path in ("", "?token=", "?token=wrong", "page/page.js?token=secret", "?token=%ff"):
            answer = await session.get(url(access, path))
            assert answer.status == 401
            assert "token" in await answer.text()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(session, access)
        assert refused.value.status == 401
        answer = await session.get(access.link)  # gives a cookie, and leads to the page
        assert answer.status == 200
        assert answer.url.query == {}
        assert (await session.get(url(access, "page/page.js"))).status == 200
        async with connect(session, access) as socket:
            assert not socket.closed

    with serving(Nothing(), token="secret") as access:
        run(work)


@pytest.mark.parametrize(
    ("host", "open_to_others"),
    [
        ("127.0.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("robot", True),
    ],
)
def test_a_token_is_made_unless_the_page_is_for_this_machine_alone(host, open_to_others):
    access = make_access(host, 8360)
    assert bool(access.token) == open_to_others
    assert access.token != make_access("0.0.0.0", 8360).token
    assert access.token not in repr(access) or not access.token


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_there_is_not_is_refused(port):
    with pytest.raises(ValueError, match=f"port is {port}"):
        make_access("127.0.0.1", port)


def test_the_link_is_printed_and_as_a_qr_code_for_a_phone():
    out = io.StringIO()
    Access("127.0.0.1", 8360).announce(out)
    assert out.getvalue() == "Open http://127.0.0.1:8360/\n"
    out = io.StringIO()
    Access("10.0.0.7", 8360, "secret").announce(out)
    link, *code = out.getvalue().splitlines()
    assert link == "Open http://10.0.0.7:8360/?token=secret"
    assert len(code) > 10
    assert set("".join(code)) <= set(" █▀▄\x1b[0123456789;m")


def test_sizes_are_bounded():
    async def work(session):
        async with connect(session, access) as socket:
            await socket.send_str("x" * (LARGEST_MESSAGE + 1))
            message = await socket.receive(20)
            assert message.type == aiohttp.WSMsgType.CLOSE
            assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        sockets = [await connect(session, access) for _ in range(MOST_VIEWERS)]
        surplus = await connect(session, access)
        message = await surplus.receive(20)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1013)
        for socket in sockets:
            await socket.close()

    with serving(Nothing()) as access:
        run(work)


def test_a_slow_page_skips_images_and_slows_nobody():
    async def work(session):
        async with connect(session, access) as one, connect(session, access) as other:
            quick, slow = Page(one), Page(other, draws=False)
            jpeg = cv2.imencode(".jpg", np.zeros((64, 128, 3), np.uint8))[1].tobytes()
            for stamp in range(1, 21):
                back_end.viewers.show("image", {"stamp": str(stamp)}, jpeg)
                await quick.until(lambda s=stamp: quick.images[-1:] == [str(s)])
            assert quick.images == [str(stamp) for stamp in range(1, 21)]
            await asyncio.sleep(0.5)
            for _ in range(IN_FLIGHT):
                await slow.take()
            with pytest.raises(asyncio.TimeoutError):
                await slow.take(0.3)
            assert slow.images == ["1", "2"]
            assert len(slow.images) == IN_FLIGHT
            await other.send_json({"type": "drawn"})  # and then it is given the newest
            await slow.until(lambda: len(slow.images) == 3)
            assert slow.images[-1] == "20"

    back_end = Nothing()
    with serving(back_end) as access:
        run(work)


def test_whatever_a_page_sends_the_next_command_is_answered():
    async def work(session):
        async with connect(session, access) as socket:
            page = Page(socket)
            for text in ("", "{", "[]", '{"type": "format", "request": 1}', "\x00"):
                before = len(page.replies)
                await socket.send_str(text)
                await page.until(lambda n=before: len(page.replies) > n)
                assert not page.replies[-1]["ok"]
            await socket.send_bytes(b"\x00\x01")
            assert await page.ask(type="reset", request=9) == {
                "type": "reply", "ok": True, "request": 9, "message": "done", "object_id": 0,
            }  # fmt: skip

    with serving(Nothing()) as access:
        run(work)


def test_two_pages_label_a_folder(stills, pictures, nano):
    async def work(session):
        async with connect(session, access) as one, connect(session, access) as two:
            page, other = Page(one), Page(two)
            for each in (page, other):
                await each.until(lambda p=each: p.image is not None and p.state)
            assert page.image.shape == (512, 1024, 3)
            assert page.state["folder"] == {
                "index": 0, "count": 3, "labelled": 0, "saved": False, "changed": False,
                "can_undo": False,
            }  # fmt: skip
            click = {"type": "point", "positive": True, "object_id": 0, "stamp": page.stamp}
            red = [float(x) for x in ray(*DISKS["red"])]
            done = await page.ask(**click, direction=red)
            assert (done["ok"], done["object_id"]) == (True, 1)
            await other.until(lambda: other.state["objects"] and other.masks.any())
            expected = PanoramaSession(nano)
            expected.set_image(stills._labelling.image)
            expected.add_prompt(stills._labelling.objects[1].prompt)
            np.testing.assert_array_equal(other.masks, expected.segment().labels)
            (row,) = other.state["objects"]
            assert (row["id"], row["state"]) == (1, "TRACKED")
            assert np.degrees(row["azimuth"]) == pytest.approx(DISKS["red"][0], abs=2)
            await other.ask(type="rename", object_id=1, label="ball")
            assert (await other.ask(type="remove", object_id=7))["message"].startswith("no object")
            assert (await other.ask(type="next"))["ok"]
            late = await page.ask(**click, direction=red)  # on the panorama that was shown before
            assert (late["ok"], "another panorama" in late["message"]) == (False, True)
            await page.until(lambda: page.state["folder"]["index"] == 1)
            assert page.state["folder"]["labelled"] == 1

    with serving(stills) as access:
        run(work)
    rows = json.loads((pictures / "labels" / "a.json").read_text())
    assert [(row["id"], row["name"]) for row in rows] == [(1, "ball")]


def test_what_has_changed_is_saved_when_the_server_ends(stills, pictures):
    async def work(session):
        async with connect(session, access) as socket:
            page = Page(socket)
            await page.until(lambda: page.image is not None)
            red = [float(x) for x in ray(*DISKS["red"])]
            click = {"type": "point", "positive": True, "object_id": 0, "stamp": page.stamp}
            assert (await page.ask(**click, direction=red))["ok"]
            await page.until(lambda: page.state["folder"]["changed"])

    with serving(stills) as access:
        run(work)
    rows = json.loads((pictures / "labels" / "a.json").read_text())
    assert [row["id"] for row in rows] == [1]
    assert not (pictures / "labels" / "b.json").exists()


def test_the_server_ends_at_the_next_view(pictures, nano, monkeypatch):
    """Work on a large model takes minutes, which nobody waits for."""
    session = PanoramaSession(nano, "scan")  # 24 views
    stills, views = Stills(Labelling(PanoramaFolder(pictures), session)), []
    tell = stills._progress

    def slowly(done, count, object_id):
        views.append(done)
        time.sleep(0.5)
        tell(done, count, object_id)

    async def work(session):
        async with connect(session, access) as socket:
            page = Page(socket)
            await page.until(lambda: page.image is not None)
            red = [float(x) for x in ray(*DISKS["red"])]
            await socket.send_json(
                {"type": "point", "positive": True, "object_id": 0, "stamp": page.stamp,
                 "direction": red}
            )  # fmt: skip
            while not views:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(stills, "_progress", slowly)
    with serving(stills) as access:
        run(work)
    assert len(views) <= 4
