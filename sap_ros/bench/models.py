"""Speed of a named model on this machine, by its network alone: a view with a click, and a followed view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sap_ros.bench.result import timed
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
_SECONDS, _LEAST, _MOST = 2.0, 2, 30

#: A click in a view, by the view's index.
CLICK = {0: ViewPrompt(np.array([[9.0, 9.0]], np.float32), np.array([POSITIVE], np.int32))}


@dataclass(frozen=True)
class Speed:
    """Seconds a view, one object: medians.

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


def speed(model: Model) -> Speed:
    """Measures a model; the device is otherwise idle."""
    view = np.random.default_rng(0).integers(0, 256, (model.image_size,) * 2 + (3,), np.uint8)
    memory = memory_of(model, model.encode(view), RECENT)

    def clicked() -> None:
        track(model, lambda _: model.encode(view), [0], CLICK)

    def followed() -> None:
        features = model.encode(view)
        found = model.decode(features, RECENT + 1, RECENT + 2, memory.read(RECENT))
        model.remember(features, found)

    return Speed(_median(model, clicked), _median(model, followed))


def memory_of(model: Model, features: Features, recent: int) -> ObjectMemory:
    """The memory of an object that was clicked in one view and seen in some more, all of the same features."""
    memory = ObjectMemory()
    track(model, lambda _: features, [0], CLICK, memory=memory)
    seen = memory.read(0)["cond_frame_outputs"][0]
    for i in range(recent):
        memory.write(1 + i, partial(dict, seen), prompted=False)
    return memory


def _median(model: Model, work: Callable[[], None]) -> float:
    once = timed(work, 1, device=model.device).median
    repeats = int(np.clip(_SECONDS / once, _LEAST, _MOST))
    return timed(work, repeats, warm=0, device=model.device).median
