"""How a camera's picture shows the sphere: as an equirectangular panorama, or by two fisheye lenses.

A :class:`Projection` opens pictures; what it opens renders the views, and the panorama for whoever asks.
Masks, bearings and pixels refer to the panorama either way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from sap_ros.core.camera import View
from sap_ros.core.fisheye import DualFisheye, Lens
from sap_ros.core.fisheye_rendering import FisheyeRenderer, TorchFisheyeRenderer
from sap_ros.core.panorama import check_panorama
from sap_ros.core.rendering import TorchRenderer, ViewRenderer

# A lens of whose pixels none is brighter is covered, or its half of the picture is missing; the pixels that
# are looked at lie this far apart.
_BLACK = 16
_SAMPLED = 16


class Picture(Protocol):
    """One picture of a camera."""

    #: Width and height of its panorama, in pixels.
    size: tuple[int, int]

    def render(self, view: View, size: int, keep: bool) -> np.ndarray:
        """A view, (size, size, 3) uint8 RGB; ``keep`` as in :class:`ViewRenderer`."""

    def upload(
        self, view: View, size: int, keep: bool, device: torch.device
    ) -> np.ndarray | Tensor:
        """The view as input for a model on a device."""

    def panorama(self, width: int | None = None) -> np.ndarray:
        """The equirectangular panorama, (H, 2H, 3) uint8 RGB, of a smaller width if one is given."""


class Projection(Protocol):
    """How a camera's pictures show the sphere."""

    def panorama_size(self, picture_size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the panorama of a picture with a width and height.

        Raises:
            ValueError: the camera has no pictures of that size.
        """

    def open(self, image: np.ndarray) -> Picture:
        """Opens a picture (H, W, 3) uint8 RGB.

        Raises:
            ValueError: it cannot be used; the message says why.
        """


class Equirectangular:
    """The picture is the panorama, (H, 2H), 512x256 to 8192x4096."""

    def panorama_size(self, picture_size: tuple[int, int]) -> tuple[int, int]:
        return picture_size

    def open(self, image: np.ndarray) -> Picture:
        check_panorama(image)
        return Panorama(image)


class Panorama:
    """A picture that is an equirectangular panorama.

    Args:
        image: (H, 2H, 3) uint8 RGB, or labels (H, 2H).
        labels: the image holds labels: each pixel of a view takes the nearest label.
    """

    def __init__(self, image: np.ndarray, labels: bool = False) -> None:
        self.size = image.shape[1], image.shape[0]
        self._image, self._labels = image, labels
        self._renderers: dict[int, ViewRenderer] = {}
        self._on_device: dict[int, TorchRenderer] = {}

    def render(self, view: View, size: int, keep: bool) -> np.ndarray:
        if size not in self._renderers:
            self._renderers[size] = ViewRenderer(self._image, size, self._labels)
        return self._renderers[size].render(view, keep)

    def upload(
        self, view: View, size: int, keep: bool, device: torch.device
    ) -> np.ndarray | Tensor:
        if device.type == "cpu":
            return self.render(view, size, keep)
        if size not in self._on_device:
            self._on_device[size] = TorchRenderer(self._image, size, device)
        return self._on_device[size].render(view, keep)

    def panorama(self, width: int | None = None) -> np.ndarray:
        if width is None or width >= self.size[0]:
            return self._image
        return cv2.resize(self._image, (width, width // 2), interpolation=cv2.INTER_AREA)


class TwoFisheyes:
    """The pictures of a camera with two fisheye lenses."""

    def __init__(self, camera: DualFisheye) -> None:
        self.camera = camera

    def panorama_size(self, picture_size: tuple[int, int]) -> tuple[int, int]:
        return _of_picture(self.camera, picture_size).panorama_size

    def open(self, image: np.ndarray) -> Picture:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"the picture is {image.dtype} of shape {image.shape}; it must be uint8, (H, W, 3)"
            )
        camera = _of_picture(self.camera, (image.shape[1], image.shape[0]))
        for lens in camera.lenses:
            if is_black(image, lens):
                raise ValueError(
                    f"the {lens.name} lens is black in this picture (no pixel is brighter than {_BLACK} of "
                    "255): is it covered, or switched off?"
                )
        return FisheyePicture(image, camera)


_of_picture = lru_cache(maxsize=8)(DualFisheye.of_picture)


class FisheyePicture:
    """A picture with two lenses, (H, W, 3) uint8 RGB, of a camera for pictures of this size.

    Views are rendered straight from the lenses.
    """

    def __init__(self, image: np.ndarray, camera: DualFisheye) -> None:
        self.size = camera.panorama_size
        self._image, self._camera = image, camera
        self._renderer = FisheyeRenderer(image, camera)
        self._on_device: TorchFisheyeRenderer | None = None
        self._panorama: np.ndarray | None = None

    def render(self, view: View, size: int, keep: bool) -> np.ndarray:
        return self._renderer.render(view, size, keep)

    def upload(
        self, view: View, size: int, keep: bool, device: torch.device
    ) -> np.ndarray | Tensor:
        if device.type == "cpu":
            return self.render(view, size, keep)
        if self._on_device is None:
            self._on_device = TorchFisheyeRenderer(self._image, self._camera, device)
        return self._on_device.render(view, size)

    def panorama(self, width: int | None = None) -> np.ndarray:
        if width is not None and width < self.size[0]:
            return self._renderer.panorama(width)
        if self._panorama is None:
            self._panorama = self._renderer.panorama(self.size[0])
        return self._panorama


def is_black(image: np.ndarray, lens: Lens) -> bool:
    """Whether the middle of a lens's circle is black in a picture (H, W, 3)."""
    half = [radius / 2 for radius in lens.radii]
    left, top = (max(0, int(c - r)) for c, r in zip(lens.centre, half, strict=True))
    right, bottom = (int(c + r) for c, r in zip(lens.centre, half, strict=True))
    return int(image[top:bottom:_SAMPLED, left:right:_SAMPLED].max(initial=0)) <= _BLACK
