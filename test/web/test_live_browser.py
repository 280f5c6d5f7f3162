"""The live page in a real browser, over real DDS with the real node; skipped by name what is missing."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

import numpy as np

from sap_ros.core import sphere
from sap_ros.web.live import Live, PageNode

from ..ros.conftest import make_rig, spots  # noqa: F401
from .conftest import serving
from .test_browser import chromium, in_flat, pytestmark, visit  # noqa: F401


class Camera:
    """Publishes an image five times a second, while the test waits for the page."""

    def __init__(self, rig, image):
        self.rig, self.image, self.stamp = rig, image, 0

    def until(self, ready):
        for _ in range(150):
            self.stamp += 1
            self.rig.publish(self.image, self.stamp)
            self.rig.spin(0.2)
            if ready():
                return
        raise AssertionError("waited in vain")


def test_a_disk_is_clicked_labelled_followed_and_removed(make_rig, spots, visit):  # noqa: F811
    image, _ = spots
    rig = make_rig().up()
    camera = Camera(rig, image)
    node = PageNode(namespace="sap")
    with serving(Live(node)) as access:
        # The page waits for an image, and the camera's thread is this one.
        page = visit(access.link, ready="#alert:not([hidden])")
        camera.until(lambda: page.locator("#stage[data-stamp]").count())
        camera.until(lambda: page.locator("#sphere[data-azimuth]").count())
        camera.until(lambda: not page.locator("#alert").is_visible())
        left = sphere.angles_to_direction(np.pi / 2, 0.0)
        page.locator("#flat").click(position=in_flat(page, left))
        row = page.locator("#objects li")
        camera.until(lambda: row.count() == 1 and "90° left" in row.inner_text())
        row.locator(".label").fill("the left one")
        row.locator(".label").press("Enter")
        camera.until(lambda: rig.objects[-1].objects[0].label == "the left one")
        page.get_by_role("button", name="Turn the view with object 1").click()
        caption = page.locator("#sphere .caption")
        camera.until(lambda: "90° left" in caption.inner_text())
        assert "images/s" in page.locator("#facts").inner_text()
        assert not page.get_by_role("button", name="Save").is_visible()
        page.get_by_role("button", name="Remove object 1").click()
        camera.until(lambda: not rig.objects[-1].objects and row.count() == 0)
        rig.until(lambda: "No image has been received" in page.locator("#alert").inner_text())
        camera.until(lambda: not page.locator("#alert").is_visible())
    node.destroy_node()
