"""A prompt for one object, which is validated only here, and its conversion to prompts in views.

Points are stored as directions. So a click on the panorama, a gaze and a point from another sensor are
the same, and seam and poles need no special treatment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sap_ros.core import sphere

if TYPE_CHECKING:  # it imports torch, which prompts do not need
    from sap_ros.core.views import Views

#: Label images hold ids; 0 is background, 255 (in 8 bit) and 65535 are reserved.
MAX_OBJECT_ID = 65534

POSITIVE, NEGATIVE = 1, 0

#: SAM 2's labels of a box's upper left and lower right corner.
BOX_CORNERS = 2, 3

#: Maximum number of points; each is a token for the mask decoder, and more are probably a mistake.
MAX_POINTS = 100

# Approximate number of pixels that sample a mask.
_MASK_SAMPLES = 300

# Length of the mean of a hemisphere's directions. A mask with a shorter mean surrounds the camera, and its
# mean may be far from the mask.
_ALL_ROUND = 0.5

# A view is given the mask if it sees at least this share of the pixels that the best view sees of it.
_LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Prompt:
    """A prompt for one object: points on and off it, a box around it, or its mask.

    Args:
        object_id: 1 to 65534 without 255: the object's value in the label image.
        directions: (P, 3) vectors in the body frame, of any length; they are normalised.
        labels: (P,), ``POSITIVE`` on the object or ``NEGATIVE`` off it.
        box: (2, 3), directions to its upper left and lower right corner. It spans the elevations
            between them and the azimuths from the first corner clockwise (to the right) to the
            second, possibly across the seam.
        mask: (H, W) bool on a panorama of any size.

    Raises:
        ValueError: a value is invalid; the message names it and the valid values.
    """

    object_id: int
    directions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.object_id <= MAX_OBJECT_ID or self.object_id == 255:
            raise ValueError(
                f"object id is {self.object_id}; it must be from 1 to {MAX_OBJECT_ID} and not 255"
            )
        directions = np.asarray(self.directions, np.float64)
        labels = np.asarray(self.labels)
        if directions.ndim != 2 or directions.shape[1] != 3 or labels.shape != directions.shape[:1]:
            raise ValueError(
                f"directions have the shape {directions.shape} and labels {labels.shape}; "
                "they must be (P, 3) and (P,)"
            )
        if len(directions) > MAX_POINTS:
            raise ValueError(
                f"there are {len(directions)} points; at most {MAX_POINTS} are allowed"
            )
        object.__setattr__(self, "directions", _unit(directions, "the direction of a point"))
        known = np.isin(labels, (POSITIVE, NEGATIVE))
        if not known.all():
            raise ValueError(
                f"a point's label is {labels[~known][0]}; it must be 1 (on the object) or 0 (off it)"
            )
        object.__setattr__(self, "labels", labels.astype(np.int32))
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(np.asarray(self.box, np.float64)))
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(np.asarray(self.mask)))
        if not len(labels) and self.box is None and self.mask is None:
            self.check_complete()

    @property
    def complete(self) -> bool:
        """Whether it can start an object: it has a positive point, a box or a mask."""
        return bool((self.labels == POSITIVE).any()) or not (self.box is None and self.mask is None)

    def check_complete(self) -> None:
        """Raises ValueError unless the prompt can start an object."""
        if not self.complete:
            raise ValueError(
                f"object {self.object_id} has no positive point; it needs at least one, "
                "or a box, or a mask"
            )

    @property
    def anchor(self) -> np.ndarray:
        """Direction (3,) at which the search begins: the first positive point, or the centre of box or mask.

        Raises:
            ValueError: the prompt is not complete.
        """
        self.check_complete()
        if (self.labels == POSITIVE).any():
            return np.asarray(self.directions[self.labels == POSITIVE][0])
        if self.box is not None:
            left, width, top, bottom = box_angles(self.box)
            return sphere.angles_to_direction(left - width / 2, (top + bottom) / 2)
        assert self.mask is not None
        v, u = np.nonzero(self.mask)
        size = self.mask.shape[1], self.mask.shape[0]
        centre = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, size).mean(0)
        length = np.linalg.norm(centre)
        if length < _ALL_ROUND:  # the pixel of the mask that is nearest to straight ahead
            return np.asarray(self.on_mask[self.on_mask[:, 0].argmax()])
        return np.asarray(centre / length)

    @cached_property
    def on_object(self) -> np.ndarray:
        """Directions (P, 3) on the object: its positive points, or a sample of its mask or box."""
        if (self.labels == POSITIVE).any():
            return np.asarray(self.directions[self.labels == POSITIVE])
        if self.mask is not None:
            return self.on_mask
        assert self.box is not None
        left, width, top, bottom = box_angles(self.box)
        azimuth, elevation = np.meshgrid(
            left - width * np.linspace(0.1, 0.9, 9),
            np.linspace(0.9, 0.1, 9) * (top - bottom) + bottom,
        )
        return sphere.angles_to_direction(azimuth, elevation).reshape(-1, 3)

    @cached_property
    def on_mask(self) -> np.ndarray:
        """Directions (P, 3) of a sample of the mask's pixels."""
        assert self.mask is not None
        v, u = np.nonzero(self.mask)
        some = slice(None, None, max(1, len(u) // _MASK_SAMPLES))
        size = self.mask.shape[1], self.mask.shape[0]
        return sphere.pixel_to_direction(np.stack([u, v], -1)[some] + 0.5, size)

    def extended(self, other: Prompt) -> Prompt:
        """This prompt extended by another prompt's points; the other's box or mask, if any, replaces its own."""
        return Prompt(
            self.object_id,
            np.concatenate([self.directions, other.directions]),
            np.concatenate([self.labels, other.labels]),
            self.box if other.box is None else other.box,
            self.mask if other.mask is None else other.mask,
        )


def from_pixels(
    object_id: int,
    pixels: ArrayLike,
    size: tuple[int, int],
    labels: Sequence[int] | np.ndarray | None = None,
    box: ArrayLike | None = None,
) -> Prompt:
    """A prompt from panorama pixels.

    Args:
        object_id: see :class:`Prompt`.
        pixels: (P, 2) as (u, v), 0 to width and 0 to height; pixel centres are at +0.5.
        size: the panorama's (width, height).
        labels: (P,), see :class:`Prompt`; None: all positive.
        box: (u_left, v_top, u_right, v_bottom); u_left > u_right if it crosses the seam.

    Raises:
        ValueError: a pixel is outside the image, or :class:`Prompt` rejects a value.
    """
    points = np.asarray(pixels, np.float64)
    if not points.size:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"pixels have the shape {points.shape}; it must be (P, 2), as (u, v)")
    corners = None
    if box is not None:
        edges = np.asarray(box, np.float64)
        if edges.shape != (4,):
            raise ValueError(
                f"the box has {edges.size} values; it must have 4: left top right bottom"
            )
        if edges[1] >= edges[3]:
            raise ValueError(
                f"the box's top is {edges[1]:g} and its bottom {edges[3]:g}; the top must be smaller"
            )
        _in_panorama(edges.reshape(2, 2), size)  # checks the corners
        # Clipped, because a corner at a pole has no azimuth, and a box of full width would have width 0.
        inner = np.clip(edges.reshape(2, 2), 0.01, np.array(size) - 0.01)
        corners = sphere.pixel_to_direction(inner, size)
    return Prompt(
        object_id,
        _in_panorama(points, size),
        np.ones(len(points), np.int32) if labels is None else np.asarray(labels),
        corners,
    )


def box_angles(box: np.ndarray) -> tuple[float, float, float, float]:
    """A box as (left azimuth, width, top elevation, bottom elevation), in rad."""
    azimuths, elevations = sphere.direction_to_angles(box)
    width = float(np.mod(azimuths[0] - azimuths[1], 2 * np.pi))
    return float(azimuths[0]), width, float(elevations[0]), float(elevations[1])


def box_outline(box: np.ndarray, points: int = 16) -> np.ndarray:
    """Directions (4 * points, 3) along the border of a box."""
    left, width, top, bottom = box_angles(box)
    azimuth = left - width * np.linspace(0, 1, points)
    elevation = np.linspace(top, bottom, points)
    return np.concatenate(
        [
            sphere.angles_to_direction(azimuth, np.full(points, top)),
            sphere.angles_to_direction(azimuth, np.full(points, bottom)),
            sphere.angles_to_direction(np.full(points, left), elevation),
            sphere.angles_to_direction(np.full(points, left - width), elevation),
        ]
    )


@dataclass(frozen=True)
class ViewPrompt:
    """A prompt in one view, in SAM 2's form.

    Attributes:
        points: (P, 2) pixels as (u, v); the two corners of a box come first.
        labels: (P,): 1 on the object, 0 off it, 2 and 3 the corners of a box.
        mask: (S, S) bool, the object's mask; together with points, the mask that they correct.
        previous: (S / 4, S / 4) float32 mask logits of the same view that the points correct.
    """

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    mask: np.ndarray | None = None
    previous: np.ndarray | None = None


class ViewPrompts:
    """Converts a prompt on the panorama to prompts in views.

    Args:
        views: the views of the panorama.
        prompt: the prompt on the panorama.
        previous: mask logits (S / 4, S / 4) by view that the prompt's last points correct.
    """

    def __init__(
        self, views: Views, prompt: Prompt, previous: Mapping[int, np.ndarray] | None = None
    ) -> None:
        self.views, self.prompt = views, prompt
        self._previous = previous or {}

    def extent(self) -> np.ndarray:
        """Directions (P, 3) that span the prompt: the box's border, the mask's pixels, or the click."""
        if self.prompt.box is not None:
            return box_outline(self.prompt.box)
        if self.prompt.mask is not None:
            return self.prompt.on_object
        return self.prompt.anchor[None]

    def at(self, view: int, whole: bool = True) -> ViewPrompt | None:
        """The prompt in one view; None if the view sees neither a positive point nor the box or mask.

        A box that is not entirely in the view is left out or, with ``whole`` False, clipped.
        """
        return self._given(view, self._box(view, whole), self._mask(view))

    def all(self, chosen: Sequence[int]) -> dict[int, ViewPrompt]:
        """The prompt in each of several views, without the views for which :meth:`at` gives None.

        A box that is not entirely in any view is clipped to the view that sees most of it.
        """
        masks = {view: self._mask(view) for view in chosen}
        most = max((int(m.sum()) for m in masks.values() if m is not None), default=0)
        boxes = {view: self._box(view) for view in chosen}
        if self.prompt.box is not None and all(box is None for box in boxes.values()):
            nearest = max(chosen, key=self._seen_of_box)
            boxes[nearest] = self._box(nearest, whole=False)
        prompts = {}
        for view in chosen:
            mask = masks[view]
            if mask is not None and mask.sum() < _LEAST_SHARE * most:
                mask = None
            prompt = self._given(view, boxes[view], mask)
            if prompt is not None:
                prompts[view] = prompt
        return prompts

    def _given(
        self, view: int, box: np.ndarray | None, mask: np.ndarray | None
    ) -> ViewPrompt | None:
        pixels = self.views.locate(view, self.prompt.directions)
        seen = np.isfinite(pixels).all(1)
        points, labels = pixels[seen].astype(np.float32), self.prompt.labels[seen]
        if box is None and mask is None and not (labels == POSITIVE).any():
            return None
        if box is not None:
            points = np.concatenate([box, points])
            labels = np.concatenate([np.array(BOX_CORNERS, np.int32), labels])
        return ViewPrompt(points, labels, mask, self._previous.get(view))

    @cached_property
    def _outline(self) -> np.ndarray:
        assert self.prompt.box is not None
        return box_outline(self.prompt.box)

    def _seen_of_box(self, view: int) -> int:
        return int(np.isfinite(self.views.locate(view, self._outline)).all(1).sum())

    def _box(self, view: int, whole: bool = True) -> np.ndarray | None:
        """Upper left and lower right pixel (2, 2) of the box in a view; None if it is left out."""
        if self.prompt.box is None:
            return None
        pixels = self.views.locate(view, self._outline)
        seen = np.isfinite(pixels).all(1)
        if not seen.any() or (whole and not seen.all()):
            return None
        return np.stack([pixels[seen].min(0), pixels[seen].max(0)]).astype(np.float32)

    @cached_property
    def _masks(self) -> Views:
        assert self.prompt.mask is not None
        return self.views.of_labels(self.prompt.mask.astype(np.uint8), self.views.size)

    def _mask(self, view: int) -> np.ndarray | None:
        """The mask (S, S) bool in a view; None if it is empty there."""
        if self.prompt.mask is None:
            return None
        mask = self._masks.render(view) > 0
        return mask if mask.any() else None


def _in_panorama(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (P, 2) as directions (P, 3)."""
    if not np.isfinite(points).all():
        raise ValueError(f"a point is not finite: {_first(points, ~np.isfinite(points))}")
    outside = ((points < 0) | (points > np.array(size))).any(1)
    if outside.any():
        raise ValueError(
            f"point {_first(points, outside)} lies outside the panorama of {size[0]}x{size[1]}"
        )
    return sphere.pixel_to_direction(points, size)


def _unit(vectors: np.ndarray, what: str) -> np.ndarray:
    """Vectors (P, 3), normalised; ``what`` names them in errors."""
    if not np.isfinite(vectors).all():
        raise ValueError(f"{what} is not finite: {_first(vectors, ~np.isfinite(vectors))}")
    length = np.linalg.norm(vectors, axis=1)
    if (length < 1e-9).any():
        raise ValueError(f"{what} has no length: {_first(vectors, length < 1e-9)}")
    return np.asarray(vectors / length[:, None])


def _checked_box(box: np.ndarray) -> np.ndarray:
    if box.shape != (2, 3):
        raise ValueError(f"the box has the shape {box.shape}; it must be (2, 3), two directions")
    box = _unit(box, "the direction of a corner of the box")
    _, width, top, bottom = box_angles(box)
    if width < 1e-6 or top - bottom < 1e-6:
        raise ValueError(
            f"the box is {np.degrees(width):.3g} degrees wide and {np.degrees(top - bottom):.3g} "
            "high; its first corner must be the upper left and its second the lower right one"
        )
    return box


def _checked_mask(mask: np.ndarray) -> np.ndarray:
    if mask.ndim != 2 or mask.shape[1] != 2 * mask.shape[0]:
        raise ValueError(f"the mask has the shape {mask.shape}; it must be (H, 2H), a panorama's")
    if not mask.any():
        raise ValueError("the mask is empty; it must have at least one pixel that is not 0")
    return mask != 0


def _first(points: np.ndarray, wrong: np.ndarray) -> tuple[float, ...]:
    """The first wrong point; ``wrong`` is bool and has the points' shape, or one value per point."""
    row = int(np.flatnonzero(wrong.reshape(len(points), -1).any(1))[0])
    return tuple(float(f"{value:.6g}") for value in points[row])
