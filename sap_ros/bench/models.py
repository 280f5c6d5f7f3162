"""Speed of a named model on this machine, by its network alone: a view with a click, and a followed view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sap_ros.bench.result import timed, undisturbed
from sap_ros.bench.scenes import random_model
from sap_ros.core.checkpoints import model_info
from sap_ros.core.download import cache_folder
from sap_ros.core.loading import FixedBackend, load_model
from sap_ros.core.memory import RECENT, ObjectMemory
from sap_ros.core.model import Model
from sap_ros.core.network import Features
from sap_ros.core.prompts import POSITIVE, ViewPrompt
from sap_ros.core.tracker import track

# Each measurement is repeated for about this many seconds, at least and at most so many times.
_SECONDS, _LEAST, _MOST = 5.0, 4, 40

#: A click in a view, by the view's index.
CLICK = {0: ViewPrompt(np.array([[9.0, 9.0]], np.float32), np.array([POSITIVE], np.int32))}


@dataclass(frozen=True)
class Speed:
    """Seconds a view, one object.

    Attributes:
        clicked: encoded, and decoded by a click.
        followed: encoded, decoded from the memory of the prompted view and the six views before, and remembered.
    """

    clicked: float
    followed: float


def measured_model(name: str, device: str, backend: FixedBackend) -> tuple[Model, bool]:
    """A model, and whether its weights are its own: random ones if they would have to be downloaded."""
    info = model_info(name)
    if info.url and not (cache_folder() / info.file).exists():
        return random_model(name, device=device, backend=backend), False
    return load_model(name, device=device, backend=backend), True


def speeds(models: Sequence[Model]) -> list[Speed]:
    """Measures models in turn, so that a busy moment of the machine meets all of them."""
    clicked, followed = zip(*(_steps(model) for model in models), strict=True)
    return [
        Speed(*pair)
        for pair in zip(_in_turn(models, clicked), _in_turn(models, followed), strict=True)
    ]


def _steps(model: Model) -> tuple[Callable[[], object], Callable[[], object]]:
    """What :class:`Speed` holds the times of."""
    side = model.image_size
    view = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    memory = memory_of(model, model.encode(view), RECENT)

    def followed() -> None:
        features = model.encode(view)
        found = model.decode(features, RECENT + 1, RECENT + 2, memory.read(RECENT))
        model.remember(features, found)

    return lambda: track(model, lambda _: model.encode(view), [0], CLICK), followed


def _in_turn(models: Sequence[Model], works: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each: means of the fastest quarter of its repetitions."""
    pairs = list(zip(models, works, strict=True))
    once = sum(timed(work, 1, device=model.device).median for model, work in pairs)
    taken: list[list[float]] = [[] for _ in pairs]
    for _ in range(int(np.clip(_SECONDS / once, _LEAST, _MOST))):
        for (model, work), seconds in zip(pairs, taken, strict=True):
            seconds.append(timed(work, 1, warm=0, device=model.device).median)
    return [undisturbed(seconds) for seconds in taken]


def memory_of(model: Model, features: Features, recent: int) -> ObjectMemory:
    """The memory of an object that was clicked in one view and seen in some more, all of the same features."""
    memory = ObjectMemory()
    track(model, lambda _: features, [0], CLICK, memory=memory)
    seen = memory.read(0)["cond_frame_outputs"][0]
    for i in range(recent):
        memory.write(1 + i, partial(dict, seen), prompted=False)
    return memory
