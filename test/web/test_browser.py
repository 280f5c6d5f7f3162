"""The page in a real browser: headless Chromium; skipped by name where it is missing."""

import os
import shutil

import cv2
import numpy as np
import pytest

from sap_ros.core import sphere
from sap_ros.evaluation.metrics import iou
from sap_ros.web.stills import Stills

from .conftest import DISKS, RADIUS, free_port, ray, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: make test-web"),
]
HALF_A_DEGREE = np.radians(0.5)
CLICK_MODES = {"new": "1", "on": "2", "off": "3", "box": "4"}


@pytest.fixture(scope="module")
def chromium():
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    if os.getuid() == 0:
        options.append("--no-sandbox")  # which root cannot have
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a page; whatever goes wrong in its scripts fails the test."""
    problems, contexts = [], []

    def opened(link, width=1280, height=800, touch=False, ready="#stage[data-stamp]"):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, has_touch=touch, is_mobile=touch
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(link)
        page.wait_for_selector(ready)
        page.wait_for_selector("#sphere[data-azimuth]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def numbers(pane):
    data = pane.evaluate("element => ({...element.dataset})")
    return {name: float(value) for name, value in data.items()}


def in_sphere(page, direction):
    """Where a direction is in the sphere's pane, by a pinhole camera of this test's own."""
    pane = page.locator("#sphere")
    view, box = numbers(pane), pane.bounding_box()
    local = sphere.view_rotation(view["azimuth"], view["elevation"]).T @ direction
    assert local[2] > 0
    focal = max(box["width"], box["height"]) / 2 / np.tan(np.radians(view["field"]) / 2)
    x, y = focal * local[:2] / local[2]
    return {"x": box["width"] / 2 + x, "y": box["height"] / 2 + y}


def in_flat(page, direction):
    """Where a direction is on the flat panorama."""
    pane = page.locator("#flat")
    view, box = numbers(pane), pane.bounding_box()
    span = min(box["width"], 2 * box["height"]) * view["zoom"]
    u, v = sphere.direction_to_pixel(direction, (2, 1))
    across = (u / 2 - view["u"] + 0.5) % 1 - 0.5
    return {
        "x": box["width"] / 2 + across * span,
        "y": box["height"] / 2 + (v - view["v"]) * span / 2,
    }


def look_at(page, azimuth, elevation):
    """Turns the sphere by keys until it looks there, to within 12 degrees."""
    pane = page.locator("#sphere")
    pane.focus()
    for _ in range(40):
        view = numbers(pane)
        left = (azimuth - np.degrees(view["azimuth"]) + 180) % 360 - 180
        up = elevation - np.degrees(view["elevation"])
        if abs(up) > 6:
            pane.press("ArrowUp" if up > 0 else "ArrowDown")
        elif abs(left) > 6 and abs(elevation) < 75:
            pane.press("ArrowLeft" if left > 0 else "ArrowRight")
        else:
            return
        for _ in range(100):
            if numbers(pane) != view:
                break
            page.wait_for_timeout(20)
    raise AssertionError(f"looks at {view}, not at {azimuth}, {elevation}")


def wait_for_objects(page, count):
    sync_api.expect(page.locator("#objects li")).to_have_count(count, timeout=60_000)
    sync_api.expect(page.locator(".waiting")).to_have_count(0, timeout=60_000)


def wait_for_labels(page, labelling, labels):
    """Waits until object 1 has points on it (1) and off it (0)."""
    for _ in range(600):
        if labelling.objects[1].prompt.labels.tolist() == labels:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{labelling.objects[1].prompt.labels}, not {labels}")


@pytest.mark.parametrize("name", list(DISKS))
@pytest.mark.parametrize("pane", ["sphere", "flat"])
def test_a_click_is_where_it_was_seen_and_its_mask_is_drawn(visit, stills, room, pane, name):
    """Ahead, across the seam and near a pole."""
    target = ray(*DISKS[name])
    with serving(stills) as access:
        page = visit(access.link)
        before = cv2.imdecode(np.frombuffer(page.locator("#flat").screenshot(), np.uint8), 1)
        if pane == "sphere":
            look_at(page, *DISKS[name])
        place = (in_sphere if pane == "sphere" else in_flat)(page, target)
        page.locator(f"#{pane}").click(position=place)
        wait_for_objects(page, 1)
        labelling = stills._labelling
        (clicked,) = labelling.objects[1].prompt.directions
        assert sphere.angle_between(clicked, target) < HALF_A_DEGREE
        labels = labelling.found()[0]
        assert iou(labels == 1, room[1][name]) > 0.6
        # The mask that is drawn is the engine's.
        page.locator("#objects .choose").click()  # no longer chosen: drawn in its own colour
        page.wait_for_timeout(300)
        tags = page.locator("#flat .tag")
        tags.evaluate_all("tags => tags.forEach(tag => (tag.style.visibility = 'hidden'))")
        after = cv2.imdecode(np.frombuffer(page.locator("#flat").screenshot(), np.uint8), 1)
        height, width = before.shape[:2]
        span = min(width, 2 * height)
        left, top = (width - span) // 2, (height - span // 2) // 2
        inside = np.s_[top : top + span // 2, left : left + span]
        drawn = np.abs(after[inside].astype(int) - before[inside]).max(-1) > 25
        seen = cv2.resize(labels.astype(np.uint8), (span, span // 2), interpolation=0) > 0
        assert iou(drawn, seen) > 0.8


def test_corrections_a_box_removal_undo_and_labels(visit, stills, pictures):
    with serving(stills) as access:
        page = visit(access.link)
        flat, labelling = page.locator("#flat"), stills._labelling
        flat.click(position=in_flat(page, ray(*DISKS["red"])))
        wait_for_objects(page, 1)
        flat.click(position=in_flat(page, ray(60, -30)), modifiers=["Shift"])
        wait_for_labels(page, labelling, [1, 0])
        page.get_by_label("off the chosen").check(force=True)
        flat.click(position=in_flat(page, ray(0, -40)))
        wait_for_labels(page, labelling, [1, 0, 0])
        page.get_by_role("button", name="Undo").click()
        wait_for_labels(page, labelling, [1, 0])

        page.get_by_label("a box").check(force=True)
        look_at(page, 180, 5)
        margin = 1.15 * RADIUS
        corners = [in_sphere(page, ray(180 + s * margin, 5 + s * margin)) for s in (1, -1)]
        box = page.locator("#sphere").bounding_box()
        page.mouse.move(box["x"] + corners[0]["x"], box["y"] + corners[0]["y"])
        page.mouse.down()
        for share in (0.5, 1.0):
            at = {k: corners[0][k] + share * (corners[1][k] - corners[0][k]) for k in "xy"}
            page.mouse.move(box["x"] + at["x"], box["y"] + at["y"])
        page.mouse.up()
        wait_for_objects(page, 2)
        found = labelling.objects[2].prompt.box
        azimuth, elevation = sphere.direction_to_angles(found)
        # The rectangle of the view is a little wider on the panorama.
        assert np.degrees(np.mod(azimuth[0] - azimuth[1], 2 * np.pi)) == pytest.approx(
            2 * margin, abs=2
        )
        assert np.degrees(elevation) == pytest.approx([5 + margin, 5 - margin], abs=1.5)

        page.get_by_label("Label of object 2").fill("green ball")
        page.get_by_label("Label of object 2").press("Enter")
        sync_api.expect(page.locator("#sphere .tag", has_text="2 green ball")).to_be_visible()
        page.get_by_role("button", name="Remove object 1").click()
        wait_for_objects(page, 1)
        assert list(labelling.objects) == [2]
        page.get_by_role("button", name="Save").click()
        sync_api.expect(page.locator("#message")).to_contain_text(str(pictures))
        assert "green ball" in (pictures / "labels" / "a.json").read_text()
        page.get_by_role("button", name="Remove all").click()
        wait_for_objects(page, 0)
        page.get_by_role("button", name="Next").click()
        sync_api.expect(page.locator("h1")).to_have_text("b.jpg")
        sync_api.expect(page.locator("#facts")).to_contain_text("2 of 3, 1 labelled")


def test_keys_are_enough(visit, stills):
    with serving(stills) as access:
        page = visit(access.link)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "sphere"
        look_at(page, *DISKS["red"])
        view = numbers(page.locator("#sphere"))
        page.keyboard.press("Enter")
        wait_for_objects(page, 1)
        (clicked,) = stills._labelling.objects[1].prompt.directions
        ahead = sphere.angles_to_direction(view["azimuth"], view["elevation"])
        assert sphere.angle_between(clicked, ahead) < HALF_A_DEGREE
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("s")
        sync_api.expect(page.locator("#facts")).to_contain_text("1 labelled")
        page.keyboard.press("n")
        sync_api.expect(page.locator("h1")).to_have_text("b.jpg")


@pytest.mark.parametrize("width", [390, 1280])
def test_all_controls_have_names_and_fit(visit, stills, width):
    with serving(stills) as access:
        page = visit(access.link, width=width, touch=width == 390)
        place = in_sphere(page, ray(*DISKS["red"]))
        if width == 390:
            box = page.locator("#sphere").bounding_box()
            page.touchscreen.tap(box["x"] + place["x"], box["y"] + place["y"])
        else:
            page.locator("#sphere").click(position=place)
        wait_for_objects(page, 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        controls = page.locator("button, input, [tabindex]")
        for control in controls.all():
            if not control.is_visible():
                continue
            name = control.evaluate(
                "e => e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim()"
            )
            assert name
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width + 0.5, name
            if width == 390:
                assert box["height"] >= 36, name  # for a finger


def test_two_fingers_zoom_and_click_nothing(visit, stills):
    with serving(stills) as access:
        page = visit(access.link, width=390, touch=True)
        box = page.locator("#sphere").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        fingers = page.context.new_cdp_session(page)

        def touch(kind, *apart):
            points = [
                {"x": middle[0] + side * a / 2, "y": middle[1], "id": i}
                for a in apart
                for i, side in enumerate((-1, 1))
            ]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 60)
        for apart in (80, 100, 120):
            touch("touchMove", apart)
        touch("touchEnd")
        page.wait_for_timeout(500)
        assert numbers(page.locator("#sphere"))["field"] == pytest.approx(45, abs=3)
        assert not stills._labelling.objects
        assert page.locator(".waiting").count() == 0


def test_the_wheel_keeps_what_is_under_it(visit, stills):
    with serving(stills) as access:
        page = visit(access.link)
        target = ray(*DISKS["red"])
        box = page.locator("#sphere").bounding_box()
        before = in_sphere(page, target)
        page.mouse.move(box["x"] + before["x"], box["y"] + before["y"])
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(300)
        assert numbers(page.locator("#sphere"))["field"] < 80
        after = in_sphere(page, target)
        assert np.hypot(after["x"] - before["x"], after["y"] - before["y"]) < 2
        for _ in range(20):
            page.mouse.wheel(0, -300)
        page.wait_for_timeout(300)
        assert numbers(page.locator("#sphere"))["field"] == 30
        for _ in range(40):
            page.mouse.wheel(0, 300)
        page.wait_for_timeout(300)
        assert numbers(page.locator("#sphere"))["field"] == 110


def test_two_pages_and_a_server_that_is_started_again(visit, label, pictures):
    port = free_port()
    with serving(Stills(label(pictures)), port=port) as access:
        one, two = visit(access.link), visit(access.link)
        one.locator("#flat").click(position=in_flat(one, ray(*DISKS["red"])))
        wait_for_objects(two, 1)
        one.get_by_role("button", name="Save").click()
        sync_api.expect(two.locator("#facts")).to_contain_text("1 labelled")
    for page in (one, two):
        sync_api.expect(page.locator("#alert")).to_contain_text("connection")
    with serving(Stills(label(pictures)), port=port):
        for page in (one, two):
            sync_api.expect(page.locator("#alert")).to_be_hidden(timeout=20_000)
            sync_api.expect(page.locator("h1")).to_have_text("b.jpg")  # goes on where it stopped
        page.locator("#flat").click(position=in_flat(page, ray(*DISKS["red"])))
        wait_for_objects(one, 1)


def test_a_wrong_token_opens_nothing(chromium, stills):
    with serving(stills, token="secret") as access:
        page = chromium.new_page()
        page.goto(access.link.replace("secret", "wrong"))
        assert "Open this page with the link" in page.content()
        page.goto(access.link)
        page.wait_for_selector("#stage[data-stamp]")
        assert "secret" not in page.url
        page.close()


def test_another_page_can_neither_command_nor_frame_it(chromium, stills, tmp_path):
    with serving(stills) as access:
        page = chromium.new_page()
        page.goto("data:text/html,<iframe></iframe>")
        closed = page.evaluate(
            """address => new Promise(done => {
              const socket = new WebSocket(address);
              socket.onopen = () => done("open");
              socket.onclose = () => done("closed");
            })""",
            access.link.replace("http", "ws") + "connection",
        )
        assert closed == "closed"
        page.set_content(f"<iframe src='{access.link}'></iframe>")
        page.wait_for_timeout(1000)
        assert page.frames[1].locator("#stage").count() == 0
        page.close()
