"""Compares both backends in one run: time per view, answer and tracked image, and the network's share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sap_ros.bench.result import UNDISTURBED, Goal, Result, stopwatch, timed
from sap_ros.bench.scenes import DEMO, model_of
from sap_ros.core.model import Model
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.benchmark import first_prompt
from sap_ros.evaluation.metrics import iou
from sap_ros.files import read_panorama
from sap_ros.synthesis.moving import MovingScene

# A click on the demo panorama.
_BLUE_BOX = (2314.5, 1268.5)

_NETWORK = ("encode", "decode", "remember")


@dataclass
class _Measured:
    """Seconds of each repetition: in total, and of the calls to the network in it."""

    whole: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)

    def __call__(self, model: Model, work: Callable[[], object]) -> None:
        with stopwatch(model, _NETWORK, model.device) as network:
            self.whole.append(timed(work, 1, warm=0, device=model.device).median)
        self.network.append(network[0])

    @property
    def seconds(self) -> tuple[float, float]:
        """In total and of the network: means over the fastest repetitions."""
        quickest = np.argsort(self.whole)[: max(1, round(UNDISTURBED * len(self.whole)))]
        return float(np.mean(np.array(self.whole)[quickest])), float(
            np.mean(np.array(self.network)[quickest])
        )


def backends(name: str, device: str, repeats: int = 16, images: int = 12) -> Result:
    """A model in torch and in ONNX Runtime, in turn: a view, an answer at 4K, tracking 1 and 6 objects."""
    models = {b: model_of(name, device, b) for b in ("torch", "onnxruntime")}
    panorama, scene = read_panorama(DEMO), MovingScene(0)
    stream = [scene.render(0.1 * i, (1024, 512)) for i in range(images)]
    counts = (1, 6)
    stages = [
        "encode a view",
        "answer at 4096x2048",
        *(f"follow {n} object{'s' * (n > 1)}, 1024x512" for n in counts),
    ]
    found = {b: {stage: _Measured() for stage in stages} for b in models}
    masks: dict[str, list[np.ndarray]] = {b: [] for b in models}
    side = next(iter(models.values())).image_size
    view = np.ascontiguousarray(panorama[:side, :side])
    for i in range(repeats + 1):
        for b, model in models.items():
            measured = _Measured() if i == 0 else found[b][stages[0]]
            measured(model, lambda model=model: model.encode(view))  # type: ignore[misc]
            session = PanoramaSession(model)
            measured = _Measured() if i == 0 else found[b][stages[1]]
            measured(model, lambda session=session: _answer(session, panorama))  # type: ignore[misc]
            if i == 0:
                masks[b].append(session.instances().labels)
    for n, stage in zip(counts, stages[2:], strict=True):
        sessions = {b: _prompted(model, stream[0], n) for b, model in models.items()}
        for image, _ in stream[1:]:
            for b, session in sessions.items():
                found[b][stage](models[b], lambda s=session, x=image: _follow(s, x))  # type: ignore[misc]
                masks[b].append(session.instances().labels)
    figures: dict[str, Any] = {
        b: {stage: m.seconds for stage, m in by_stage.items()} for b, by_stage in found.items()
    }
    agreement = min(
        iou(one == i, other == i)
        for one, other in zip(*masks.values(), strict=True)
        for i in np.union1d(one, other)
        if i
    )
    figures["least_iou"] = agreement
    return Result(
        "backend",
        f"{name} on {device}, in turn, mean of the fastest quarter of repetitions",
        ["", "torch", "ONNX Runtime", "/ torch", "its network", "/ network"],
        [_row(stage, figures) for stage in stages],
        _goals(stages, figures, agreement),
        figures,
    )


def _answer(session: PanoramaSession, panorama: np.ndarray) -> None:
    session.set_image(panorama)
    session.add_prompt(from_pixels(1, [_BLUE_BOX], session.size))
    session.segment()


def _prompted(model: Model, first: tuple[np.ndarray, np.ndarray], objects: int) -> PanoramaSession:
    """A session in which the first objects are segmented on a scene's first image."""
    image, labels = first
    session = PanoramaSession(model)
    session.set_image(image)
    for i in range(1, objects + 1):
        click = first_prompt(labels == i, "clicks")
        session.add_prompt(Prompt(i, click.directions, click.labels))
    session.segment()
    return session


def _follow(session: PanoramaSession, image: np.ndarray) -> None:
    session.next_image(image)
    session.segment()


def _row(stage: str, figures: dict[str, Any]) -> list[str]:
    (torch, _), (onnx, network) = (figures[b][stage] for b in ("torch", "onnxruntime"))
    return [
        stage,
        f"{1e3 * torch:.1f} ms",
        f"{1e3 * onnx:.1f} ms",
        f"{onnx / torch:.2f}",
        f"{1e3 * network:.1f} ms",
        f"{onnx / network:.2f}",
    ]


def _goals(stages: Sequence[str], figures: dict[str, Any], agreement: float) -> list[Goal]:
    torch, onnx = figures["torch"], figures["onnxruntime"]
    slowest = max(onnx[stage][0] / torch[stage][0] for stage in stages)
    answer, network = onnx[stages[1]]
    return [
        Goal("time with ONNX Runtime, relative to torch, the worst of these", slowest, 1),
        Goal("time of an answer, relative to its network", answer / network, 1.3),
        Goal("tracked images per second, one object", 1 / onnx[stages[2]][0], 30, at_least=True),
        Goal("tracked images per second, six objects", 1 / onnx[stages[3]][0], 8, at_least=True),
        Goal("lowest IoU of a mask with torch's", agreement, 0.999, at_least=True),
    ]
