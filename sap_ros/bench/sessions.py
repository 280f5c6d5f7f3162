"""Cost of a session: scaling, further prompts, a stream of images."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image as Picture

from sap_ros.bench.models import CLICK, memory_of
from sap_ros.bench.result import Goal, Result, Timing, stopwatch, timed, timing_of
from sap_ros.bench.scenes import DEMO, clicks_on, labelled
from sap_ros.core.instances import Instances
from sap_ros.core.memory import ObjectMemory
from sap_ros.core.model import Model
from sap_ros.core.motion import Following
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.core.search import Strategy
from sap_ros.core.session import PanoramaSession
from sap_ros.core.tracker import follow, track
from sap_ros.evaluation.benchmark import first_prompt
from sap_ros.evaluation.cost import Cost, measured
from sap_ros.evaluation.datasets import read_labels
from sap_ros.evaluation.metrics import boundary_f, iou
from sap_ros.files import read_panorama
from sap_ros.synthesis.moving import MovingScene

# Clicks on the demo panorama.
_BLUE_BOX, _GREEN_CONE = (2314.5, 1268.5), (3225.5, 1333.5)


def reprompt(model: Model, repeats: int = 9) -> Result:
    """A 4K panorama, one object: its first prompt, a correction, another object."""
    image = read_panorama(DEMO)
    rows: list[list[str]] = []
    taken: dict[str, list[float]] = {}
    ways: tuple[Strategy, ...] = ("auto", "scan")
    for strategy in ways:
        times: tuple[list[float], ...] = ([], [], [])
        for i in range(repeats + 1 if strategy == "auto" else 3):
            session = PanoramaSession(model, strategy)
            steps = [
                from_pixels(1, [_BLUE_BOX], (4096, 2048)),
                from_pixels(1, [(_BLUE_BOX[0] + 8, _BLUE_BOX[1] + 8)], (4096, 2048)),
                from_pixels(2, [_GREEN_CONE], (4096, 2048)),
            ]
            for k, prompt in enumerate(steps):
                began = time.perf_counter()
                if k == 0:
                    session.set_image(image)
                session.add_prompt(prompt)
                session.segment()
                if i:
                    times[k].append(time.perf_counter() - began)
        found = [timing_of(t) for t in times]
        taken[strategy] = [t.median for t in found]
        for what, t in zip(
            ("first prompt", "a correction of it", "another object"), found, strict=True
        ):
            rows.append([f"{strategy}: {what}", str(t), f"{t.median / found[0].median:.2f}"])
    return Result(
        "reprompt",
        f"prompts on {image.shape[1]}x{image.shape[0]}, {model.name}",
        ["", "time", "relative to the first"],
        rows,
        [Goal("auto: second prompt / first", taken["auto"][1] / taken["auto"][0], 0.25)],
        taken,
    )


def overhead(model: Model, repeats: int = 3) -> Result:
    """Time outside the network, by stage: one object, prompted with its mask, on a 4K JPEG."""
    data = DEMO.read_bytes()
    stages: dict[str, list[float]] = {}
    network_share, rows = [], []
    publish = _publisher()
    box = read_labels(DEMO.with_name("instances.png")) == 3
    for i in range(repeats + 1):
        session = PanoramaSession(model, "auto")
        marks = [time.perf_counter()]
        image = np.array(Picture.open(io.BytesIO(data)).convert("RGB"))
        marks.append(time.perf_counter())
        session.set_image(image)
        # A mask prompt: with random weights a click gives an arbitrary mask and number of views.
        session.add_prompt(Prompt(1, mask=box))
        with (
            stopwatch(model, ("encode", "decode", "remember"), model.device) as calls,
        ):
            found = session.segment()
        marks.append(time.perf_counter())
        publish(found)
        marks.append(time.perf_counter())
        network = calls[0]
        parts = {
            "decode the JPEG": marks[1] - marks[0],
            "render, prompt, fuse, measure": marks[2] - marks[1] - network,
            "pack and publish": marks[3] - marks[2],
            "network": network,
        }
        if i:
            for name, seconds in parts.items():
                stages.setdefault(name, []).append(seconds)
            network_share.append(1 - network / (marks[3] - marks[0]))
    for name, taken in stages.items():
        rows.append([name, str(timing_of(taken))])
    rows += _one_view(model)
    share = float(np.median(network_share))
    rows.append(["outside the network", f"{100 * share:.1f} %"])
    return Result(
        "overhead",
        f"one object on 4096x2048, {model.name} at {model.image_size} px, {session.encoded} views",
        ["", "time"],
        rows,
        [Goal("time outside the network, relative to the total", share, 0.05)],
        {name: float(np.median(taken)) for name, taken in stages.items()},
    )


def _one_view(model: Model) -> list[list[str]]:
    """Time of a view: encoding, decoding with a prompt, decoding with memories of different lengths."""
    view = np.zeros((model.image_size, model.image_size, 3), np.uint8)
    features = model.encode(view)
    encoded = timed(lambda: model.encode(view), 2, device=model.device)
    alone = timed(lambda: track(model, lambda _: features, [0], CLICK), 2, device=model.device)
    rows = [["a view: encode", str(encoded)], ["a view: decode by a prompt", str(alone)]]
    for recent in (0, 1, 3, 6):
        memory = memory_of(model, features, recent)

        def recall(memory: ObjectMemory = memory) -> None:
            follow(model, lambda _: features, [0], memory, {}, {}, lambda frame, mask: False)

        taken = timed(recall, 1, warm=0, device=model.device)
        what = f"a view: decode by the memory of the prompted view and {recent} more"
        rows.append([what, str(taken)])
    return rows


def _publisher() -> Callable[[Instances], object]:
    """Publishes the result over DDS if ROS 2 is available; otherwise only serialises it."""
    try:
        import rclpy
        from std_msgs.msg import Header

        from sap_ros.engine.answers import reports
        from sap_ros.engine.axes import ImageAxes
        from sap_ros.engine.transforms import Transform
        from sap_ros.node.convert import image_from_labels, objects_message
    except ImportError:
        return lambda found: found.labels.tobytes()
    from sensor_msgs.msg import Image

    from sap_ros.msg import ObjectArray

    if not rclpy.ok():
        rclpy.init()
    node = rclpy.create_node("sap_bench")
    masks = node.create_publisher(Image, "bench/masks", 1)
    objects = node.create_publisher(ObjectArray, "bench/objects", 1)

    def publish(found: Instances) -> None:
        header = Header()
        masks.publish(image_from_labels(found.labels, "mono8", header))
        listed = reports(found, {}, {}, (), ImageAxes(), Transform(), {}, {})
        objects.publish(objects_message(listed, header))

    return publish


def scaling(model: Model, repeats: int = 3) -> Result:
    """Time and peak memory by panorama size, number of objects and number of images."""
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    rows += _by_size(model, repeats, figures)
    rows += _by_objects(model, figures)
    rows += _by_frames(model, figures)
    frames = figures["frames_mb"]
    return Result(
        "scaling",
        f"how cost grows, {model.name}",
        ["", "time", "peak memory"],
        rows,
        [
            Goal(
                "auto: a further object, relative to one alone",
                figures["further"]["auto"],
                0.75,
                note=f"{figures['encoding']['auto']:.0%} of the time of 16 objects is encoding, mostly of "
                "views that show no other object",
            ),
            Goal("peak memory after 200 frames / after 50", frames[-1] / frames[1], 1.05),
        ],
        figures,
    )


def _by_size(model: Model, repeats: int, figures: dict[str, Any]) -> list[list[str]]:
    image, rows = read_panorama(DEMO), []
    widths, times = (1024, 2048, 4096, 8192), []
    for width in widths:
        size = width, width // 2
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        click = (_BLUE_BOX[0] * width / 4096, _BLUE_BOX[1] * width / 4096)

        def answer(scaled: np.ndarray = scaled, click: Any = click, size: Any = size) -> None:
            session = PanoramaSession(model)
            session.set_image(scaled)
            session.add_prompt(from_pixels(1, [click], size))
            session.segment()

        with measured(model.device) as cost:
            taken = timed(answer, repeats)
        times.append(taken.median)
        rows.append([f"panorama of {width}x{width // 2}, one object", str(taken), _mb(cost)])
    figures["widths"], figures["width_seconds"] = widths, times
    slope = _exponent(widths, times)
    rows.append(["time grows with the width to the power of", f"{slope:.2f}", ""])
    return rows


def _by_objects(model: Model, figures: dict[str, Any]) -> list[list[str]]:
    size = 2048, 1024
    made, rows = labelled(3, size, shapes=16), []
    ids, areas = np.unique(made.labels[made.labels > 0], return_counts=True)
    chosen = ids[np.argsort(areas)[-16:]]
    clicks = clicks_on(made.labels, chosen.tolist())
    np.random.default_rng(0).shuffle(clicks)
    counts = (1, 4, 16)
    figures |= {"counts": counts, "objects": {}, "further": {}, "encoding": {}}
    ways: tuple[Strategy, ...] = ("auto", "gimbal", "frontier", "scan")
    for strategy in ways:
        session = PanoramaSession(model, strategy)

        def seconds(chosen: Sequence[Any], session: PanoramaSession = session) -> float:
            session.reset()
            began = time.perf_counter()
            session.set_image(made.image)
            for i, click in enumerate(chosen, 1):
                session.add_prompt(from_pixels(i, [click], size))
            session.segment()
            return time.perf_counter() - began

        seconds(clicks[:2])  # for the look-up tables, and the threads of objects side by side
        with measured(model.device) as cost:
            alone = [seconds([click]) for click in clicks]
        times = [float(np.mean(alone))]
        spread = f"{times[0]:.3g} s ({min(alone):.3g} to {max(alone):.3g})"
        rows.append([f"{strategy}: one of 16 objects alone, mean", spread, _mb(cost)])
        for count in counts[1:]:
            with measured(model.device) as cost, stopwatch(model, ("encode",), model.device) as net:
                times.append(seconds(clicks[:count]))
            what = f"{strategy}: {count} objects together, {session.encoded} views"
            rows.append([what, f"{times[-1]:.3g} s", _mb(cost)])
        further = (times[-1] - times[0]) / (counts[-1] - 1)
        rows.append([f"{strategy}: each further object", f"{further:.3g} s", ""])
        figures["objects"][strategy] = times
        figures["further"][strategy] = further / times[0]
        figures["encoding"][strategy] = net[0] / times[-1]
    return rows


def _by_frames(model: Model, figures: dict[str, Any]) -> list[list[str]]:
    scene, size = MovingScene(0), (512, 256)
    frames = [scene.render(0.2 * i, size) for i in range(25)]
    loop = [image for image, _ in frames + frames[::-1]]
    session, rows, peaks = PanoramaSession(model), [], []
    session.set_image(loop[0])
    session.add_prompt(first_prompt(frames[0][1] == 5, "clicks"))
    session.segment()
    done, began = 1, time.perf_counter()
    for count in (10, 50, 100, 200):
        with measured(model.device) as cost:
            while done < count:
                session.next_image(loop[done % len(loop)])
                session.segment()
                done += 1
        peaks.append(cost.peak_mb or math.nan)
        rows.append(
            [
                f"frame {count} of a stream",
                f"{time.perf_counter() - began:.1f} s",
                f"{peaks[-1]:.0f} MB",
            ]
        )
    figures["frames"], figures["frames_mb"] = (10, 50, 100, 200), peaks
    return rows


def _mb(cost: Cost) -> str:
    return "-" if cost.peak_mb is None else f"{cost.peak_mb:.0f} MB"


def _exponent(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def live(model: Model, frames: int = 20, objects: Sequence[int] = (2, 4, 5)) -> Result:
    """A moving panorama, one object at a time: tracking compared with a full scan of every frame."""
    scene, size = MovingScene(0), (1024, 512)
    stream = [scene.render(0.25 * i, size) for i in range(frames)]
    ways: dict[str, dict[str, Any]] = {
        "auto": {},
        "full scan of every frame": {"strategy": "scan", "following": Following(everywhere=True)},
    }
    rows, found = [], {}
    for name, options in ways.items():
        seconds, views, overlaps, borders = [], [], [], []
        for i in objects:
            session = PanoramaSession(model, **options)
            for k, (image, labels) in enumerate(stream):
                began = time.perf_counter()
                if k == 0:
                    session.set_image(image)
                    click = first_prompt(labels == i, "clicks")
                    session.add_prompt(Prompt(1, click.directions, click.labels))
                else:
                    session.next_image(image)
                answer = session.segment().labels == 1
                if k:
                    seconds.append(time.perf_counter() - began)
                    views.append(session.encoded)
                    overlaps.append(iou(answer, labels == i))
                    borders.append(boundary_f(answer, labels == i))
        taken: Timing = timing_of(seconds)
        found[name] = {
            "seconds": taken.median,
            "views": float(np.mean(views)),
            "j": float(np.mean(overlaps)),
            "f": float(np.mean(borders)),
        }
        rows.append(
            [
                name,
                f"{1 / taken.median:.2f}",
                f"{np.mean(views):.1f}",
                f"{np.mean(overlaps):.3f}",
                f"{np.mean(borders):.3f}",
            ]
        )
    auto, full = found.values()
    return Result(
        "live",
        f"{len(objects)} objects, one at a time, {frames} images of 1024x512, {model.name}",
        ["", "images per second", "views per image", "J", "F"],
        rows,
        [
            Goal("speed-up over full scan", full["seconds"] / auto["seconds"], 8, at_least=True),
            Goal("J minus that of the full scan", auto["j"] - full["j"], 0, at_least=True),
            Goal("F minus that of the full scan", auto["f"] - full["f"], 0, at_least=True),
        ],
        found,
    )
