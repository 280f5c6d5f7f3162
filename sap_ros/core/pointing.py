"""What a prompt points at in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from sap_ros.core.prompts import POSITIVE, Prompt, box_outline
from sap_ros.core.strategies import Frames
from sap_ros.core.tracker import FramePrompt

#: A frame that sees less than this share of a mask, of what the best frame sees, is not given it.
_LEAST_SHARE = 0.25


class Pointing:
    """A prompt on a panorama, frame by frame.

    Args:
        frames: of the panorama.
        prompt: what is pointed at.
    """

    def __init__(self, frames: Frames, prompt: Prompt) -> None:
        self.frames, self.prompt = frames, prompt

    def extent(self) -> np.ndarray:
        """Directions (P, 3) all round what is given: the box's border, the mask, or the click."""
        if self.prompt.box is not None:
            return box_outline(self.prompt.box)
        if self.prompt.mask is not None:
            return self.prompt.certain
        return self.prompt.anchor[None]

    def at(self, frame: int, whole: bool = True) -> FramePrompt | None:
        """What is pointed at in a frame; None where it sees nothing that is the object's.

        A box that it does not see whole is left out; or cut off, where not ``whole``.
        """
        return self._given(frame, self._box(frame, whole), self._mask(frame))

    def all(self, chosen: Sequence[int]) -> dict[int, FramePrompt]:
        """The same for frames; a box that none sees whole is given to the one that sees most of it."""
        masks = {frame: self._mask(frame) for frame in chosen}
        most = max((int(m.sum()) for m in masks.values() if m is not None), default=0)
        boxes = {frame: self._box(frame) for frame in chosen}
        if self.prompt.box is not None and all(box is None for box in boxes.values()):
            nearest = max(chosen, key=self._seen_of_box)
            boxes[nearest] = self._box(nearest, whole=False)
        prompts = {}
        for frame in chosen:
            mask = masks[frame]
            if mask is not None and mask.sum() < _LEAST_SHARE * most:
                mask = None
            prompt = self._given(frame, boxes[frame], mask)
            if prompt is not None:
                prompts[frame] = prompt
        return prompts

    def _given(
        self, frame: int, box: np.ndarray | None, mask: np.ndarray | None
    ) -> FramePrompt | None:
        pixels = self.frames.locate(frame, self.prompt.directions)
        seen = np.isfinite(pixels).all(1)
        points, labels = pixels[seen].astype(np.float32), self.prompt.labels[seen]
        if box is None and mask is None and not (labels == POSITIVE).any():
            return None
        if box is not None:
            points = np.concatenate([box, points])
            labels = np.concatenate([np.array([2, 3], np.int32), labels])
        return FramePrompt(points, labels, mask)

    @cached_property
    def _outline(self) -> np.ndarray:
        assert self.prompt.box is not None
        return box_outline(self.prompt.box)

    def _seen_of_box(self, frame: int) -> int:
        return int(np.isfinite(self.frames.locate(frame, self._outline)).all(1).sum())

    def _box(self, frame: int, whole: bool = True) -> np.ndarray | None:
        """The box's corners (2, 2) in a frame."""
        if self.prompt.box is None:
            return None
        at = self.frames.locate(frame, self._outline)
        seen = np.isfinite(at).all(1)
        if not seen.any() or (whole and not seen.all()):
            return None
        return np.stack([at[seen].min(0), at[seen].max(0)]).astype(np.float32)

    @cached_property
    def _masks(self) -> Frames:
        assert self.prompt.mask is not None
        return self.frames.over(self.prompt.mask.astype(np.uint8))

    def _mask(self, frame: int) -> np.ndarray | None:
        """The mask (S, S) in a frame."""
        if self.prompt.mask is None:
            return None
        mask = self._masks.render(frame) > 0
        return mask if mask.any() else None
