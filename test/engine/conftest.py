"""An engine with the shipped model, and the events that tests give it."""

import numpy as np
import pytest

from sap_ros.core.loading import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.engine import Engine, run
from sap_ros.engine.events import Image, PromptGiven, Settings
from sap_ros.engine.transforms import Stamped, Transform

SIZE = (512, 256)
SECOND = 10**9
AHEAD = (256, 128)


class KnownTransforms:
    """The protocol's other side: transforms by their frames; what is asked is kept."""

    def __init__(self, **known: Transform) -> None:
        self.known, self.asked = known, []

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        self.asked.append((target, source, fixed_frame))
        if target.frame_id == source.frame_id or not source.frame_id:
            return Transform()
        name = f"{source.frame_id}_to_{target.frame_id}"
        if name not in self.known:
            raise ValueError(f"no transform from {source.frame_id!r} to {target.frame_id!r}")
        return self.known[name]


@pytest.fixture(scope="session")
def nano():
    return load_model("sap-nano")


@pytest.fixture
def make_engine(nano):
    def make(transforms=None, interrupted=lambda: False, **settings):
        session = PanoramaSession(nano, "direct")  # one look at the whole is enough here
        return Engine(session, Settings(**settings), transforms, interrupted)

    return make


def image(panorama, seconds, frame="camera"):
    return Image((panorama.shape[1], panorama.shape[0]), lambda: panorama, seconds * SECOND, frame)


def click(u, v, **fields):
    return PromptGiven(points=np.array([[u, v, 0.0]]), **fields)


def mask_at(u, v, half=12, **fields):
    """A mask is given back as it is, whatever the weights."""
    pixels = np.zeros((256, 512), bool)
    pixels[v - half : v + half, u - half : u + half] = True
    return PromptGiven(mask=lambda: pixels, **fields)


def tell(engine, *events, now=0.0):
    """Events one by one; all answers."""
    answers = []
    for event in events:
        engine.take(event, now)
        answers += run(engine, now)
    return answers


def ids(answer):
    return [report.object_id for report in answer.objects]


def states(answer):
    return {report.object_id: report.state for report in answer.objects}
