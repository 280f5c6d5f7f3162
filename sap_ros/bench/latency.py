"""Latency through the node over DDS, compared with the core's own time in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cv2
import numpy as np
import psutil

from sap_ros.bench.echo import running_echo
from sap_ros.bench.result import Goal, Result
from sap_ros.bench.scenes import clicks_on, model_of
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.demo.client import Client, Transport, running_node
from sap_ros.synthesis.moving import MovingScene

_WIDTHS = (1024, 2048, 4096)
_TRANSPORTS: tuple[Transport, ...] = ("raw", "compressed")
_CLICKS, _IMAGES = 10, 30  # number of measurements of each kind, after the warm-up
_WARM = 2
_ARRIVES = 0.5  # s between an image and the click on it; the node has received the image by then
_PAUSE = 0.05  # s of rest before each image: from a camera, too, they come at intervals
_RENDERED, _STEP = (1024, 512), 0.05  # size of the scene, and s between its images
_INSTANCE = 2
# While nothing is tracked: images per second, and duration.
_IDLE_RATE, _IDLE_SECONDS = 10, 5.0


def latency(model: str, device: str) -> Result:
    """Click to mask, image to mask, and the node's CPU time while nothing is tracked.

    Both sides answer the same clicks and images, in turn. The core's time is that of the
    session in this process; the node's is from publishing to receiving masks and objects, and
    includes the client's own time for sending and receiving. For images, what of it is DDS and
    rclpy alone is measured with a node that answers with empty masks at once.

    Args:
        model: name of the model.
        device: torch device, used by both.
    """
    rows: list[list[str]] = []
    figures: dict[str, dict[str, float]] = {}
    goals = []
    session = PanoramaSession(model_of(model, device), "auto")
    for transport in _TRANSPORTS:
        bare = _transport_times(transport)
        with running_node(model, device, "auto", "auto", transport) as client:
            for width in _WIDTHS:
                clicked, followed = _answers(client, session, width)
                for what, (taken, bound) in (
                    ("click to mask", clicked),
                    ("image to mask", followed),
                ):
                    name = f"{transport} {width}x{width // 2}: {what}"
                    middle, high, own = (*_percentiles(taken), _percentiles(bound)[0])
                    ratio = middle / own
                    sent = bare[width] if what == "image to mask" else 0.0
                    rest = (middle - sent) / own
                    figures[name] = {"p50": middle, "p99": high, "core": own, "ratio": ratio}
                    figures[name] |= {"transport": sent, "ratio_without_transport": rest}
                    cells = (middle, high, own, sent) if sent else (middle, high, own)
                    rows.append([name, *map(_ms, cells), *([""] * (4 - len(cells)))])
                    rows[-1] += [f"{ratio:.2f}", f"{rest:.2f}" if sent else ""]
                    if (transport, width) == ("raw", _WIDTHS[0]):
                        note = f"{rest:.2f} without what DDS takes alone" if sent else ""
                        goals.append(Goal(f"{name}, relative to the core", ratio, 1.1, note=note))
                share = _idle_share(client, width)
                name = f"{transport} {width}x{width // 2}: nothing tracked, {_IDLE_RATE} images a second"
                figures[name] = {"cpu": share}
                rows.append([name, "", "", "", "", f"{100 * share:.0f} % of a core", ""])
    return Result(
        "latency",
        f"the node over DDS, {model} on {device}, auto",
        ["", "p50", "p99", "core", "DDS alone", "/ core", "/ core without DDS"],
        rows,
        goals,
        figures,
    )


def _transport_times(transport: Transport) -> dict[int, float]:
    """Median seconds from an image to empty masks through a node that does nothing, by width."""
    image, _ = MovingScene(0).render(0.0, _RENDERED)
    with running_echo(transport) as client:
        return {
            width: _percentiles(
                [_ask_node(client, _enlarged(image, width), None) for _ in range(_WARM + _IMAGES)][
                    _WARM:
                ]
            )[0]
            for width in _WIDTHS
        }


#: Seconds through the node, and of the core.
Pairs = tuple[list[float], list[float]]


def _answers(client: Client, session: PanoramaSession, width: int) -> tuple[Pairs, Pairs]:
    """Times to the mask of each click on a new object, and of each image on which one object is tracked.

    The node and the session answer in turn, so that a slow moment of the machine meets both, and images are drawn
    before: whoever comes after that work would have none of its own data in the CPU's caches.
    """
    scene = MovingScene(0)
    image, labels = scene.render(0.0, _RENDERED)
    u, v = clicks_on(labels, [_INSTANCE])[0]
    click = u * width / _RENDERED[0], v * width / _RENDERED[0]
    clicked, followed = [], []
    for _ in range(_WARM + _CLICKS):
        client.reset()
        session.reset()
        first = _enlarged(image, width)
        clicked.append((_ask_node(client, first, click), _ask_session(session, first, click)))
    count = _WARM + _IMAGES
    stream = [_enlarged(scene.render(_STEP * k, _RENDERED)[0], width) for k in range(1, 1 + count)]
    for image in stream:
        followed.append((_ask_node(client, image, None), _ask_session(session, image, None)))
    return _pairs(clicked[_WARM:]), _pairs(followed[_WARM:])


def _pairs(times: Sequence[tuple[float, float]]) -> Pairs:
    return [node for node, _ in times], [core for _, core in times]


def _ask_session(
    session: PanoramaSession, image: np.ndarray, click: tuple[float, float] | None
) -> float:
    # The pauses are the node's, so that caches and threads are equally cold.
    if click is None:
        time.sleep(_PAUSE)
        began = time.perf_counter()
        session.next_image(image)
    else:
        session.set_image(image)
        time.sleep(_ARRIVES)
        began = time.perf_counter()
        session.add_prompt(from_pixels(1, [click], session.size))
    session.segment()
    return time.perf_counter() - began


def _ask_node(client: Client, image: np.ndarray, click: tuple[float, float] | None) -> float:
    if click is None:
        client.wait(_PAUSE)
        return client.follow(image)
    stamp = client.publish(image)
    client.wait(_ARRIVES)  # the node does not report the arrival of an image without objects
    return client.click(stamp, click)


def _idle_share(client: Client, width: int) -> float:
    """CPU time of the node while images come and nothing is tracked, as a share of a core."""
    client.reset()
    image = _enlarged(MovingScene(0).render(0.0, _RENDERED)[0], width)
    process = psutil.Process(client.node_pid)
    before, began = process.cpu_times(), time.monotonic()
    for k in range(round(_IDLE_SECONDS * _IDLE_RATE)):
        client.wait(began + k / _IDLE_RATE - time.monotonic())
        client.publish(image)
    client.wait(1 / _IDLE_RATE)
    after, seconds = process.cpu_times(), time.monotonic() - began
    # Grouped so that the difference is exactly 0 where no time was used.
    used = (after.user + after.system) - (before.user + before.system)
    return used / seconds


def _enlarged(image: np.ndarray, width: int) -> np.ndarray:
    return cv2.resize(image, (width, width // 2), interpolation=cv2.INTER_LINEAR)


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    middle, high = np.percentile(seconds, [50, 99])
    return float(middle), float(high)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
