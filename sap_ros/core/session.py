"""The public face of the core: a panorama in, prompts in, instances out.

session = PanoramaSession(load_model())
session.set_image(image)                       # (H, 2H, 3) uint8 RGB
session.add_prompt(from_pixels(1, [(2100, 1180)], session.size))
instances = session.segment()
instances.labels, instances.objects[0].azimuth
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sap_ros.core.instances import Instances, measure
from sap_ros.core.model import Features, Model
from sap_ros.core.projection import Fusion, check_panorama
from sap_ros.core.prompts import POSITIVE, Prompt
from sap_ros.core.strategies import DirectFrames, Frames, PatchFrames, ScanFrames
from sap_ros.core.tracker import Clicks, FrameMask, track
from sap_ros.core.trajectory import Trajectory

Strategy = Literal["scan", "direct", "patches"]
FusionChoice = Literal["auto", "max", "weighted"]
ClickFrames = Literal["all", "first"]

#: Called with (frames done, frames in all, object id).
Progress = Callable[[int, int, int], None]


@dataclass
class _Object:
    prompt: Prompt
    masks: dict[int, FrameMask] | None = None  # by frame; None until looked for


class PanoramaSession:
    """Segments prompted objects in a panorama, and keeps what can be used again.

    Args:
        model: the model; several sessions may share one.
        strategy: how the panorama is shown to it, see :mod:`sap_ros.core.strategies`.
        trajectory: the scan's path; the default is the method's.
        fusion: how views are fused, see :class:`sap_ros.core.projection.Canvas`; ``auto`` takes the
            model's own: ``max`` (the method) but for sap-nano.
        click_frames: a click is given to ``all`` frames that see it (the method), or to the
            ``first`` of the object's order alone.

    Features of a frame are computed when first needed and kept until the image changes: a second
    prompt on the same image encodes nothing.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy = "scan",
        trajectory: Trajectory | None = None,
        fusion: FusionChoice = "auto",
        click_frames: ClickFrames = "all",
    ) -> None:
        for name, value, known in (
            ("strategy", strategy, ("scan", "direct", "patches")),
            ("fusion", fusion, ("auto", "max", "weighted")),
            ("click_frames", click_frames, ("all", "first")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        self.model, self.strategy = model, strategy
        self.fusion: Fusion = model.fusion if fusion == "auto" else fusion
        self.click_frames = click_frames
        self.trajectory = trajectory or Trajectory()
        self._frames: Frames | None = None
        self._features: dict[int, Features] = {}
        self._objects: dict[int, _Object] = {}
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the panorama."""
        if self._size is None:
            raise ValueError("there is no panorama yet; call set_image first")
        return self._size

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the prompted objects, ascending."""
        return tuple(sorted(self._objects))

    @property
    def encoded(self) -> int:
        """How many frames of this panorama have been encoded."""
        return len(self._features)

    def set_image(self, image: np.ndarray) -> None:
        """Takes a panorama, (H, 2H, 3) uint8 RGB, 512x256 to 8192x4096; prompts stay.

        Raises:
            ValueError: it is no such image.
        """
        check_panorama(image)
        size = self.model.image_size
        if self.strategy == "scan":
            self._frames = ScanFrames(image, size, self.trajectory)
        elif self.strategy == "direct":
            self._frames = DirectFrames(image, size)
        else:
            self._frames = PatchFrames(image, size)
        self._size = image.shape[1], image.shape[0]
        self._features.clear()
        for thing in self._objects.values():
            thing.masks = None

    def add_prompt(self, prompt: Prompt) -> None:
        """Adds an object, or more points to the object that has the prompt's id."""
        there = self._objects.get(prompt.object_id)
        self._objects[prompt.object_id] = _Object(
            there.prompt.extended(prompt) if there else prompt
        )

    def remove_object(self, object_id: int) -> None:
        """Forgets an object; ValueError when there is none of that id."""
        if object_id not in self._objects:
            raise ValueError(f"no object has the id {object_id}; there are {list(self.object_ids)}")
        del self._objects[object_id]

    def reset(self) -> None:
        """Forgets all objects; the panorama and its features stay."""
        self._objects.clear()

    def segment(self, progress: Progress = lambda done, count, object_id: None) -> Instances:
        """Looks for the objects that have not been looked for since their prompt or the image.

        Args:
            progress: told of every frame.

        Raises:
            ValueError: there is no panorama.
        """
        width, height = self.size
        best = np.zeros((height, width), np.float32)
        highest = max(self._objects, default=0)
        labels = np.zeros((height, width), np.uint8 if highest <= 254 else np.uint16)
        for object_id in self.object_ids:
            logits = self._fused(object_id, progress)
            won = logits > best
            labels[won] = object_id
            np.maximum(best, logits, out=best)
        return Instances(
            labels,
            tuple(measure(labels == i, i, self._score(i)) for i in self.object_ids),
        )

    def frame_masks(self, object_id: int) -> dict[int, tuple[np.ndarray, FrameMask]]:
        """The frames that an object was looked for in, in order: image (S, S, 3) and mask."""
        assert self._frames is not None
        masks = self._objects[object_id].masks or {}
        return {i: (self._frames.render(i), mask) for i, mask in masks.items()}

    def _fused(self, object_id: int, progress: Progress) -> np.ndarray:
        frames, thing = self._frames, self._objects[object_id]
        assert frames is not None
        if thing.masks is None:
            order = frames.order(thing.prompt.anchor)
            done: list[int] = []

            def visited(frame: int) -> None:
                done.append(frame)
                progress(len(done), len(order), object_id)

            clicks = self._clicks(frames, thing.prompt, order)
            thing.masks = track(self.model, self._encoded, order, clicks, visited)
        return frames.fuse(((i, mask.logits) for i, mask in thing.masks.items()), self.fusion)

    def _clicks(self, frames: Frames, prompt: Prompt, order: tuple[int, ...]) -> dict[int, Clicks]:
        """The prompt's points in each frame that sees a positive one."""
        clicks: dict[int, Clicks] = {}
        for frame in order if self.click_frames == "all" else order[:1]:
            pixels = frames.locate(frame, prompt.directions)
            seen = np.isfinite(pixels).all(1)
            if (prompt.labels[seen] == POSITIVE).any():
                clicks[frame] = pixels[seen].astype(np.float32), prompt.labels[seen]
        return clicks

    def _encoded(self, frame: int) -> Features:
        if frame not in self._features:
            assert self._frames is not None
            self._features[frame] = self.model.encode(self._frames.render(frame))
        return self._features[frame]

    def _score(self, object_id: int) -> float:
        """Predicted quality of an object's masks, weighted by their area."""
        masks = self._objects[object_id].masks or {}
        area = {i: float((mask.logits > 0).sum()) for i, mask in masks.items()}
        total = sum(area.values())
        return sum(area[i] * mask.quality for i, mask in masks.items()) / total if total else 0.0
