"""Steps SAM 2 through views: decodes an object in each from a prompt, or from the object's memory.

SAM 2's own modules are called as its video predictor calls them, with three differences. Features are
computed once per view, for all objects and prompts, and given from outside. Visited views are numbered
consecutively, whatever their order on the sphere, since the memory bank reads the previous six by
number. And each mask is returned with its predicted IoU and its object score.

On a GPU the host only queues work, but for one copy of each view's mask to the host. :func:`explore` and
:func:`follow` need it before the next view: whether the object is there, and where, decides which view that
is and what is remembered. :func:`track` makes these copies after the last view. For an object that is lost, or
followed in views of the scan with a weak memory, the features that its appearance (:mod:`sap_ros.core.appearance`)
is computed from are copied, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from sap_ros.core.fusion import ViewMask
from sap_ros.core.memory import POINTERS, RECENT, Entry, ObjectMemory, once
from sap_ros.core.model import Model
from sap_ros.core.network import Decoded, Features, empty_memory
from sap_ros.core.prompts import ViewPrompt

# How far a mask may have moved in its view since the last panorama, as a share of the view's side, for
# it to be compared with the last mask.
_MOTION = 0.125

# What a candidate's IoU with the mask of the view before counts beside its predicted IoU. A view that is fitted to an
# object shows it better than the view before. (On the next panorama it counts in full: it should stay the same part.)
_AGREEMENT = 0.25


@dataclass(frozen=True)
class Step:
    """A view to visit.

    Attributes:
        view: its index.
        prompt: the prompt in it; None: memory must find the object.
        prior: (S / 4, S / 4) bool, where the object is expected from what was found before; None: not
            known. Of the candidate masks, the one is taken that is best by its predicted IoU and its agreement
            with it; memory keeps the one with the highest predicted IoU.
    """

    view: int
    prompt: ViewPrompt | None
    prior: np.ndarray | None = None


class Path(Protocol):
    """A way through views that goes by what was found; see :mod:`sap_ros.core.exploration`."""

    def next(self, found: Mapping[int, ViewMask]) -> Step | None:
        """The next view to visit, given the masks so far by view; None: no further one."""


@torch.inference_mode()
def track(
    model: Model,
    features: Callable[[int], Features],
    order: Sequence[int],
    prompts: Mapping[int, ViewPrompt],
    visited: Callable[[int], None] = lambda _: None,
    memory: ObjectMemory | None = None,
    recent: int = RECENT,
) -> dict[int, ViewMask]:
    """Finds an object in views that are given, from its prompts in some of them.

    Args:
        model: the model.
        features: returns the features of a view.
        order: the views to visit; the first that is prompted comes first in memory.
        prompts: prompts by view. Each of these views is decoded from its prompt alone, before the
            others, and stays in memory throughout: SAM 2's conditioning frames.
        visited: called with each view when it is done.
        memory: the prompted views are added to it, for :func:`follow`.
        recent: how many of the previous views, beside the prompted ones, memory attention reads.

    Returns:
        The mask of every view of ``order``.

    Raises:
        ValueError: no view of ``order`` is prompted.
    """
    prompted = [i for i, view in enumerate(order) if view in prompts]
    if not prompted:
        raise ValueError("none of the views to visit is prompted: no click, box or mask")
    bank = ObjectMemory()
    decoded: dict[int, Decoded] = {}
    for i in [*prompted, *(i for i in range(len(order)) if order[i] not in prompts)]:
        view = order[i]
        prompt = prompts.get(view)
        decoded[view], entry = _decode(model, features(view), i, len(order), bank, prompt, recent)
        bank.write(i, entry, prompt is not None)
        if memory is not None and prompt is not None:
            memory.write(memory.condense(), entry, prompted=True)
        visited(view)
    # Only now, so that a GPU does not wait for the host after each view.
    return {view: _mask(result) for view, result in decoded.items()}


@torch.inference_mode()
def explore(
    model: Model,
    features: Callable[[int], Features],
    path: Path,
    visited: Callable[[int], None] = lambda _: None,
    memory: ObjectMemory | None = None,
    recent: int = RECENT,
) -> dict[int, ViewMask]:
    """Finds an object in views that are chosen one by one, by what was found in those before.

    Args:
        model: the model.
        features: returns the features of a view.
        path: chooses the views.
        visited: called with each view when it is done.
        memory: the prompted views are added to it, for :func:`follow`.
        recent: how many of the previous views, beside the prompted ones, memory attention reads.

    Returns:
        The mask of every view that was visited, in order.

    Raises:
        ValueError: the first view is not prompted.
    """
    bank = ObjectMemory()
    found: dict[int, ViewMask] = {}
    for i, step in enumerate(iter(lambda: path.next(found), None)):
        if not found and step.prompt is None:
            raise ValueError("the first view to visit is not prompted: no click, box or mask")
        result, entry = _decode(model, features(step.view), i, i + 1, bank, step.prompt, recent)
        found[step.view] = _mask(result, step.prior, _AGREEMENT)
        bank.write(i, entry, step.prompt is not None)
        if memory is not None and step.prompt is not None:
            memory.write(memory.condense(), entry, prompted=True)
        visited(step.view)
    return found


@torch.inference_mode()
def follow(
    model: Model,
    features: Callable[[int], Features],
    order: Sequence[int],
    memory: ObjectMemory,
    prompts: Mapping[int, ViewPrompt],
    priors: Mapping[int, np.ndarray],
    accept: Callable[[int, ViewMask], bool],
    visited: Callable[[int], None] = lambda _: None,
    recent: int = RECENT,
) -> dict[int, ViewMask]:
    """Finds an object in views of the next panorama, from its memory.

    Args:
        model: the model.
        features: returns the features of a view.
        order: the views to visit.
        memory: of the object; views in which it is found are added.
        prompts: clicks where the object is expected, by view; such a view is decoded from them and
            not from memory.
        priors: its last mask (S / 4, S / 4) bool, by view: of the candidate masks of a prompted view,
            the one is taken that is best by its predicted IoU and its agreement with it.
        accept: whether a mask of a view may be the object's; else the object is taken to be absent.
        visited: called with each view when it is done.
        recent: how many of the previous views, beside the prompted ones, memory attention reads.

    Returns:
        The mask of every view of ``order``.
    """
    found: dict[int, ViewMask] = {}
    for view in order:
        i = memory.condense()
        prompt = prompts.get(view)
        result, entry = _decode(model, features(view), i, i + POINTERS, memory, prompt, recent)
        prior = priors.get(view) if prompt is not None else None
        mask = _mask(result, prior, reach=_MOTION)
        if mask.object_score > 0 and accept(view, mask):
            memory.write(i, entry, prompted=False)
        else:
            mask = mask.absent()
        found[view] = mask
        visited(view)
    return found


@torch.inference_mode()
def answers(model: Model, features: Features, prompt: ViewPrompt) -> list[ViewMask]:
    """The masks that answer a prompt in a view, without memory; none if the object is not there.

    Args:
        model: the model.
        features: of the view.
        prompt: the prompt; to one click there are three answers, such as a part and the whole.
    """
    view, _ = _decode(model, features, 0, 1, ObjectMemory(), prompt, RECENT)
    masks, ious, score = _on_host(view, view.masks[0])
    if score <= 0:
        return []
    return [ViewMask(mask, float(iou), score) for mask, iou in zip(masks, ious, strict=True)]


def _decode(
    model: Model,
    features: Features,
    index: int,
    count: int,
    memory: ObjectMemory,
    prompt: ViewPrompt | None,
    recent: int,
) -> tuple[Decoded, Entry]:
    """Decodes a view: the candidate masks, and what encodes the memory of the view."""
    points, mask, previous = None, None, None
    if prompt is not None and len(prompt.points):
        coords, labels = (_sent(a[None], model.device) for a in (prompt.points, prompt.labels))
        points = {"point_coords": coords.float(), "point_labels": labels.int()}
    if prompt is not None and prompt.mask is not None:
        mask = _sent(prompt.mask[None, None], model.device).float()
    if prompt is not None and prompt.previous is not None:
        previous = _sent(prompt.previous[None, None], model.device).float()
    read = memory.read(recent) if prompt is None else empty_memory()  # a prompt is decoded alone
    view = model.decode(features, index, count, read, points, mask, previous)
    return view, once(lambda: model.remember(features, view))


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; the host does not wait for the copy."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def _mask(
    view: Decoded, prior: np.ndarray | None = None, agreement: float = 1.0, reach: float = 0.0
) -> ViewMask:
    """An object's mask in a view; with a prior (h, w), see :func:`_nearest_candidate`."""
    masks, ious, score = _on_host(view, view.best[0] if prior is None else view.masks[0])
    if prior is None:
        return ViewMask(masks[0], float(ious.max()), score)
    chosen = _nearest_candidate(masks, ious, prior, agreement, reach)
    return ViewMask(masks[chosen], float(ious[chosen]), score)


def _on_host(view: Decoded, shown: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Masks of an object (M, h, w), the predicted IoUs of its candidates, and its object score, on the host.

    All are copied at once: on a GPU the host waits here, once a view.
    """
    parts = shown, view.predicted_ious[0], view.object_scores[0]
    packed = torch.cat([part.float().flatten() for part in parts]).cpu().numpy()
    masks, ious, score = np.split(packed, [shown.numel(), -1])
    return masks.reshape(shown.shape), ious, float(score[0])


def _nearest_candidate(
    candidates: np.ndarray,
    predicted_ious: np.ndarray,
    prior: np.ndarray,
    agreement: float,
    reach: float,
) -> int:
    """Which of the masks (M, h, w) is best by its predicted IoU plus ``agreement`` times its IoU with a prior (h, w).

    A part and the whole are both good answers to a click; which of them it was before is known. The prior
    may be moved by up to ``reach`` of its side so that the centres agree.
    """
    worth, expected = [], prior.astype(np.uint8)
    limit, centre = reach * len(prior), _centre(expected)
    for mask, predicted_iou in zip((candidates > 0).view(np.uint8), predicted_ious, strict=True):
        u, v = np.clip(_centre(mask) - centre, -limit, limit)
        translation = np.array([[1, 0, u], [0, 1, v]])
        moved = cv2.warpAffine(expected, translation, prior.shape, flags=cv2.INTER_NEAREST)
        shared, either = cv2.countNonZero(mask & moved), cv2.countNonZero(mask | moved)
        worth.append(predicted_iou + agreement * shared / max(either, 1))
    return int(np.argmax(worth))


def _centre(mask: np.ndarray) -> np.ndarray:
    """The mean pixel (u, v) of a mask of 0 and 1; the image's middle where it is empty."""
    of = cv2.moments(mask, binaryImage=True)
    half = len(mask) / 2
    return np.array([of["m10"], of["m01"]]) / of["m00"] if of["m00"] else np.array([half, half])
