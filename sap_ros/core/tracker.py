"""Carries one object from frame to frame with SAM 2's memory.

SAM 2's own modules are stepped, as its video predictor does, with three differences: features come
from outside, computed once a frame for all objects and prompts; visited frames have contiguous
indices, whatever their order on the sphere, since the memory bank reads the previous six by index;
and the predicted quality and presence of each mask are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from sap_ros.core.model import Decoded, Features, Memory, Model, decode_view, empty_memory
from sap_ros.core.projection import NO_OBJECT

#: Frames, beside the prompted ones, whose masks SAM 2's memory attention reads.
RECENT = 6
# How far back SAM 2 reads object pointers (masks: six frames); older frames are forgotten.
_POINTERS = 16
# How far an object may have moved in a frame from one panorama to the next, as a share of its side.
_MOTION = 0.125
# Frames whose memory nobody has read, at most.
_UNREAD = 6
# Clicked frames kept at most: those that see one click, and those of a few corrections.
_CONDITIONING = 12


@dataclass(frozen=True)
class FrameMask:
    """What was found of an object in a frame.

    Attributes:
        logits: (S / 4, S / 4) float32; -1024 throughout where the object is held to be absent.
        quality: predicted IoU of the mask, 0 to 1.
        presence: logit of the object being in the frame; absent at or below 0.
    """

    logits: np.ndarray
    quality: float
    presence: float


@dataclass(frozen=True)
class FramePrompt:
    """What is pointed at in one frame.

    Attributes:
        points: (P, 2) pixels; a box as its two corners.
        labels: (P,): 1 on the object, 0 off it, 2 and 3 the corners of a box.
        mask: (S, S) bool, the object itself; with points, what they correct.
    """

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Step:
    """A frame to look in.

    Attributes:
        frame: which.
        prompt: what is pointed at in it; None: memory must find the object.
        prior: (S / 4, S / 4) bool, where the object is by what was found before; None: not known.
            Of the candidate masks, the one is taken that agrees with it; memory keeps the best one.
    """

    frame: int
    prompt: FramePrompt | None
    prior: np.ndarray | None = None


def _nearest_candidate(
    candidates: np.ndarray, qualities: np.ndarray, prior: np.ndarray, reach: float
) -> int:
    """The mask (M, h, w) of M that is best by its predicted quality and by its likeness to a prior.

    A part and the whole are both good answers to a click; in a stream it is to be the same one. The
    prior (h, w) may be moved by up to ``reach`` of its side to lie on the mask.
    """
    worth = []
    for mask, quality in zip(candidates > 0, qualities, strict=True):
        limit = reach * len(prior)
        off = np.clip(_centre(mask) - _centre(prior), -limit, limit)
        moved = np.array([[1, 0, off[0]], [0, 1, off[1]]])
        there = cv2.warpAffine(prior.astype(np.uint8), moved, prior.shape, flags=cv2.INTER_NEAREST)
        shared, either = (mask & (there > 0)).sum(), (mask | (there > 0)).sum()
        worth.append(quality + shared / max(either, 1))
    return int(np.argmax(worth))


def _centre(mask: np.ndarray) -> np.ndarray:
    """The mean pixel (u, v) of a mask; its middle where it is empty."""
    v, u = np.nonzero(mask)
    return np.array([u.mean(), v.mean()] if len(u) else [len(mask) / 2, len(mask) / 2])


class Traversal(Protocol):
    """A way through frames, see :mod:`sap_ros.core.traversal`."""

    def next(self, found: Mapping[int, FrameMask]) -> Step | None:
        """The next step, by what was found so far; None: that is all."""


Remembered = Callable[[], dict[str, Any]]


class ObjectMemory:
    """What is remembered of one object: prompted frames, and those it was seen in last.

    Its size is bounded, however many frames are visited. A frame's memory is encoded when it is read
    first: an object that is pointed at in every frame costs no memory at all.
    """

    def __init__(self) -> None:
        self._prompted: dict[int, dict[str, Any] | Remembered] = {}
        self._seen: dict[int, dict[str, Any] | Remembered] = {}

    def __len__(self) -> int:
        return len(self._prompted) + len(self._seen)

    def copy(self) -> ObjectMemory:
        """Another one that remembers the same; what is written to one is not in the other."""
        other = ObjectMemory()
        other._prompted, other._seen = dict(self._prompted), dict(self._seen)
        return other

    def write(self, index: int, entry: Remembered, prompted: bool) -> None:
        """Remembers a frame; ``entry`` gives what SAM 2 reads of it."""
        (self._prompted if prompted else self._seen)[index] = entry

    def read(self, recent: int) -> Memory:
        """As SAM 2 reads it: the prompted frames, and the most recent ones of the others."""
        if recent >= RECENT:
            recent = _POINTERS  # their pointers reach farther back than their masks
        last = sorted(self._seen)[len(self._seen) - min(recent, len(self._seen)) :]
        self._seen = {i: self._seen[i] for i in last}
        return {
            "cond_frame_outputs": _read(self._prompted),
            "non_cond_frame_outputs": _read(self._seen),
        }

    def condense(self) -> int:
        """Forgets what SAM 2 would not read any more and numbers the rest anew, from 0.

        Prompted frames come first. Returns the index of the next frame.
        """
        first = [self._prompted[i] for i in sorted(self._prompted)][-_CONDITIONING:]
        then = [self._seen[i] for i in sorted(self._seen)][-_POINTERS:]
        # What was never read holds the frame's features: a few of them are enough.
        unread = [entry for entry in then if callable(entry)][:-_UNREAD]
        then = [entry for entry in then if entry not in unread]
        self._prompted = dict(enumerate(first))
        self._seen = dict(enumerate(then, len(first)))
        return len(self)


def _read(part: dict[int, dict[str, Any] | Remembered]) -> dict[int, dict[str, Any]]:
    """Frames' memories, encoded where they have not been; they are kept so."""
    entries = {i: entry() if callable(entry) else entry for i, entry in part.items()}
    part.update(entries)
    return entries


@torch.inference_mode()
def track(
    model: Model,
    features: Callable[[int], Features],
    order: Sequence[int],
    prompts: Mapping[int, FramePrompt],
    visited: Callable[[int], None] = lambda _: None,
    memory: ObjectMemory | None = None,
    recent: int = RECENT,
) -> dict[int, FrameMask]:
    """Finds an object in frames, from what is pointed at in some of them.

    Args:
        model: the model.
        features: features of a frame.
        order: the frames to visit; the first that is prompted comes first in memory.
        prompts: prompts by frame. Each of these frames is decoded from its prompt alone, before the
            others, and stays in memory throughout: SAM 2's conditioning frames.
        visited: told of each frame when it is done.
        memory: takes the prompted frames, for :func:`follow`.
        recent: how many of the frames before, beside the prompted ones, memory attention reads.

    Returns:
        The mask of every frame of ``order``.

    Raises:
        ValueError: no frame of ``order`` is prompted.
    """
    prompted = [i for i, frame in enumerate(order) if frame in prompts]
    if not prompted:
        raise ValueError("none of the frames to visit is prompted: no click, box or mask")
    bank = ObjectMemory()
    decoded: dict[int, Decoded] = {}
    for i in [*prompted, *(i for i in range(len(order)) if order[i] not in prompts)]:
        frame = order[i]
        prompt = prompts.get(frame)
        decoded[frame], entry = _decode(model, features(frame), i, len(order), bank, prompt, recent)
        bank.write(i, entry, prompt is not None)
        if memory is not None and prompt is not None:
            memory.write(memory.condense(), entry, prompted=True)
        visited(frame)
    # Only now, so that a GPU does not wait for the host after each frame.
    return {frame: _mask(view) for frame, view in decoded.items()}


@torch.inference_mode()
def explore(
    model: Model,
    features: Callable[[int], Features],
    traversal: Traversal,
    visited: Callable[[int], None] = lambda _: None,
    memory: ObjectMemory | None = None,
    recent: int = RECENT,
) -> dict[int, FrameMask]:
    """Finds an object in frames that are chosen one by one, by what was found in those before.

    Args:
        model: the model.
        features: features of a frame.
        traversal: chooses the frames.
        visited: told of each frame when it is done.
        memory: takes the prompted frames, for :func:`follow`.
        recent: how many of the frames before, beside the prompted ones, memory attention reads.

    Returns:
        The mask of every frame that was visited, in order.

    Raises:
        ValueError: the first frame is not prompted.
    """
    bank = ObjectMemory()
    found: dict[int, FrameMask] = {}
    for i, step in enumerate(iter(lambda: traversal.next(found), None)):
        if not found and step.prompt is None:
            raise ValueError("the first frame to visit is not prompted: no click, box or mask")
        view, entry = _decode(model, features(step.frame), i, i + 1, bank, step.prompt, recent)
        found[step.frame] = _mask(view, step.prior)
        bank.write(i, entry, step.prompt is not None)
        if memory is not None and step.prompt is not None:
            memory.write(memory.condense(), entry, prompted=True)
        visited(step.frame)
    return found


@torch.inference_mode()
def follow(
    model: Model,
    features: Callable[[int], Features],
    order: Sequence[int],
    memory: ObjectMemory,
    prompts: Mapping[int, FramePrompt],
    priors: Mapping[int, np.ndarray],
    accept: Callable[[int, FrameMask], bool],
    visited: Callable[[int], None] = lambda _: None,
    recent: int = RECENT,
) -> dict[int, FrameMask]:
    """Finds an object in frames of the next panorama, from what is remembered of it.

    Args:
        model: the model.
        features: features of a frame.
        order: the frames to visit.
        memory: of the object; frames in which it is found are added.
        prompts: what is known of where it is, by frame; decoded in place of memory.
        priors: its last mask (S / 4, S / 4) bool, by frame: of the candidates of a prompted frame,
            the one is taken that agrees with it.
        accept: whether a mask of a frame may be the object's; one that may not is as if it were absent.
        visited: told of each frame when it is done.
        recent: see :func:`track`.

    Returns:
        The mask of every frame of ``order``.
    """
    found: dict[int, FrameMask] = {}
    for frame in order:
        i = memory.condense()
        prompt = prompts.get(frame)
        view, entry = _decode(model, features(frame), i, i + _POINTERS, memory, prompt, recent)
        mask = _mask(view, priors.get(frame) if prompt is not None else None, _MOTION)
        if mask.presence > 0 and accept(frame, mask):
            memory.write(i, entry, prompted=False)
        else:
            mask = FrameMask(np.full_like(mask.logits, NO_OBJECT), mask.quality, mask.presence)
        found[frame] = mask
        visited(frame)
    return found


def _decode(
    model: Model,
    features: Features,
    index: int,
    count: int,
    memory: ObjectMemory,
    prompt: FramePrompt | None,
    recent: int,
) -> tuple[Decoded, Remembered]:
    """Decodes a frame; what it shows, and what gives the memory of it."""
    points, mask = None, None
    if prompt is not None and len(prompt.points):
        coords, labels = (
            torch.from_numpy(a[None]).to(model.device) for a in (prompt.points, prompt.labels)
        )
        points = {"point_coords": coords.float(), "point_labels": labels.int()}
    if prompt is not None and prompt.mask is not None:
        mask = torch.from_numpy(prompt.mask[None, None]).to(model.device).float()
    read = memory.read(recent) if prompt is None else empty_memory()  # a prompt is decoded alone
    with model.precision():
        view = decode_view(model.sam, features, model.positions, index, count, read, points, mask)
    return view, _once(lambda: model.remember(features, view))


def _once(work: Remembered) -> Remembered:
    """Does a piece of work when it is first asked for, and keeps the result and not what it is made of."""
    done: list[dict[str, Any]] = []
    to_do = [work]

    def result() -> dict[str, Any]:
        if to_do:
            done.append(to_do.pop()())
        return done[0]

    return result


def _mask(view: Decoded, prior: np.ndarray | None = None, reach: float = 0.0) -> FrameMask:
    """An object's mask in a frame; with a prior, the candidate that agrees with it."""
    logits, quality = view.best[0, 0].float().cpu().numpy(), view.qualities.max().item()
    if prior is not None:
        candidates, qualities = (t[0].float().cpu().numpy() for t in (view.masks, view.qualities))
        chosen = _nearest_candidate(candidates, qualities, prior, reach)
        logits, quality = candidates[chosen], float(qualities[chosen])
    return FrameMask(logits, quality, view.presence.item())
