"""Fits a view to an object: its direction and field of view, from the masks found so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View, level_view, view_to_direction
from sap_ros.core.fusion import ViewMask
from sap_ros.core.motion import check_ranges, grown

if TYPE_CHECKING:
    from sap_ros.core.views import PerspectiveViews

#: Ratio of a followed object's view to the region the object may move in, as the tangent of half the angle.
_MOTION_PADDING = 1.1

#: A mask is cut off by the view's border if it covers more border pixels than this share of a side.
_CUT_SHARE = 0.02

# A view that cuts an object off is widened by this factor.
_WIDEN = 1.5

# Sampled cells along a side of a mask, and the smallest number of directions in a sample.
_CELLS = 32
_LEAST_SAMPLES = 4

# No view holds directions whose angle to the optical axis has a smaller cosine than this.
_LEAST_COSINE = 0.15

# Each step centres the view on its content; the centre moves less with each step. A view is centred if it is off by less
# than this share of half its content.
_CENTRING_STEPS = 4
_CENTRED = 1e-3


@dataclass(frozen=True)
class Framing:
    """How views are chosen for an object.

    Attributes:
        settled: distance to the view's border, as a share of half its side, from which on a part of the
            mask needs no further view; with 1, the view that sees a part best is always visited.
        further: number of views of the scan that are visited beyond those that the mask extends into,
            for objects that are split by an occlusion.
        padding: ratio of a fitted view to the object, as the tangent of half the angle.
        widest_degrees: largest field of view of a fitted view.
        zoom: highest resolution of a fitted view, relative to the panorama.

    Raises:
        ValueError: a value is out of its range.
    """

    settled: float = 0.6
    further: int = 0
    padding: float = 1.8
    widest_degrees: float = 90.0
    zoom: float = 4.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            settled=(0, 1),
            further=(0, 1000),
            padding=(1, 10),
            widest_degrees=(30, 120),
            zoom=(0.1, 16),
        )

    @property
    def widest(self) -> float:
        """``widest_degrees`` in rad."""
        return math.radians(self.widest_degrees)

    def fitted(self, views: PerspectiveViews, directions: np.ndarray) -> View | None:
        """The view that holds directions (P, 3) with the padding; None if it would be too wide."""
        view = framed(directions, self.padding, views.scan.up)
        if view is None or view.fov > self.widest:
            return None
        finest = finest_fov(views.size, views.panorama_size[0], self.zoom)
        return replace(view, fov=max(view.fov, min(finest, self.widest)))

    def following(
        self, views: PerspectiveViews, directions: np.ndarray, motion: float
    ) -> View | None:
        """The same for an object that may have moved by an angle in rad from directions (P, 3)."""
        view = self.fitted(views, directions)
        around = framed(grown(directions, motion), _MOTION_PADDING, views.scan.up)
        if view is None or around is None or around.fov > self.widest:
            return None
        return replace(view, fov=max(view.fov, around.fov))

    def refitted(
        self, views: PerspectiveViews, index: int, mask: ViewMask, on_object: np.ndarray
    ) -> View | None:
        """The view fitted to a mask; wider than the view that the mask was found in if that cuts it off.

        Args:
            views: the views.
            index: the view that the mask was found in.
            mask: the mask.
            on_object: directions (Q, 3) that are known to be on the object; the view holds them, too.

        Returns:
            The view; None if the mask is empty, or if the view would be too wide.
        """
        on_mask = spread(views, index, mask, on_object)
        if not len(on_mask):
            return None
        view = self.fitted(views, np.concatenate([on_mask, on_object]))
        if view is None or not cut_off(mask):
            return view
        wider = min(self.widest, _WIDEN * views.views[index].fov)
        return replace(view, fov=max(view.fov, wider))


def framed(directions: np.ndarray, padding: float, up: sphere.Up = sphere.UP) -> View | None:
    """The view that holds directions (P, 3) with a padding; None if no view holds them.

    The view is upright with regard to ``up``, and centred on their bounding box.
    """
    axis = directions.mean(0)
    for _ in range(_CENTRING_STEPS):
        length = float(np.linalg.norm(axis))
        if length < 1e-6:
            return None
        axis = axis / length
        view = level_view(axis, up=up)
        rays = directions @ view.rotation
        if rays[:, 2].min() < _LEAST_COSINE:
            return None
        x, y = rays[:, 0] / rays[:, 2], rays[:, 1] / rays[:, 2]
        offset = np.array([x.max() + x.min(), y.max() + y.min(), 2.0]) / 2
        half = max(x.max() - x.min(), y.max() - y.min()) / 2
        if max(abs(offset[0]), abs(offset[1])) < _CENTRED * half:
            break
        axis = view.rotation @ offset
    return replace(view, fov=2 * math.atan(half * padding + 1e-6))


def finest_fov(size: int, width: int, zoom: float) -> float:
    """Field of view in rad at which the middle of a view of ``size`` pixels has ``zoom`` times the
    resolution of a panorama of ``width`` pixels."""
    focal = zoom * width / (2 * math.pi)
    return 2 * math.atan((size - 1) / 2 / focal)


def cut_off(mask: ViewMask) -> bool:
    """Whether a mask extends into the border of its view."""
    positive = mask.logits > 0
    border = np.concatenate([positive[0], positive[-1], positive[:, 0], positive[:, -1]])
    return int(border.sum()) > _CUT_SHARE * len(positive)


def spread(
    views: PerspectiveViews, index: int, mask: ViewMask, on_object: np.ndarray
) -> np.ndarray:
    """Directions (P, 3) that sample a mask in a view.

    Args:
        views: the views.
        index: the view that the mask was found in.
        mask: the mask.
        on_object: directions (Q, 3) that are known to be on the object. If any of them lies on the mask,
            only the connected parts of the mask that contain one are sampled.
    """
    positive = (mask.logits > 0).astype(np.uint8)
    count, parts = cv2.connectedComponents(positive, connectivity=8)
    if count > 2 and len(on_object):
        grid = len(positive)
        pixels = views.locate(index, on_object) * (grid / views.size)
        pixels = pixels[np.isfinite(pixels).all(1)].astype(int).clip(0, grid - 1)
        kept = np.unique(parts[pixels[:, 1], pixels[:, 0]])
        if (kept > 0).any():
            positive = np.isin(parts, kept[kept > 0]).astype(np.uint8)
    step = max(1, len(positive) // _CELLS)
    v, u = np.nonzero(positive[step // 2 :: step, step // 2 :: step])
    pixels = np.stack([u, v], -1) * step + step // 2 + 0.5
    # If the mask is small, or lies between the sampled cells, every pixel is taken.
    if len(u) < max(_LEAST_SAMPLES, positive.sum() / (2 * step * step)):
        v, u = np.nonzero(positive)
        pixels = np.stack([u, v], -1) + 0.5
    if not len(u):
        return np.zeros((0, 3))
    scale = views.size / len(positive)
    return view_to_direction(pixels * scale, views.views[index], views.size)


def deepest_pixel(mask: np.ndarray) -> tuple[float, float] | None:
    """The pixel (u, v) of a mask (n, n) that is farthest from its outline; None if the mask is empty."""
    if not mask.any():
        return None
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)
    v, u = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(u) - 0.5, float(v) - 0.5
