"""Renders views on a torch device, from a panorama that stays there: for a GPU.

The same views as :class:`sap_ros.core.projection.ViewRenderer` gives, by ``grid_sample``; nothing waits for
the host.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sap_ros.core.trajectory import View, focal_length


class TorchRenderer:
    """Renders views of one panorama on a device.

    Args:
        image: panorama, (H, 2H, 3) uint8.
        size: side of a view, in pixels.
        device: where the panorama is kept; to a GPU it is copied while the host goes on.
    """

    def __init__(self, image: np.ndarray, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        self._pixels = pixels.to(device, non_blocking=True)
        self._levels: dict[int, Tensor] = {}

    def render(self, view: View, keep: bool = True) -> Tensor:
        """The view, (S, S, 3) float32, 0 to 255, on the device; ``keep`` as in the other renderer."""
        level = self._level(view.fov)
        height, width = level.shape[-2] - 2, level.shape[-1] - 2
        table = _grid if keep else _grid.__wrapped__
        x, y = table(view.pitch, self.size, view.fov, (width, height), self.device)
        x = torch.remainder(x - view.yaw / (2 * math.pi) * width, width)
        # To grid_sample's -1 to 1 over the pixels' centres; a pixel is added all round.
        grid = torch.stack([(x + 0.5) / (width + 1), (y + 0.5) / (height + 1)], -1) * 2 - 1
        shown = F.grid_sample(level, grid[None], align_corners=True)
        return shown[0].permute(1, 2, 0)

    def _level(self, fov: float) -> Tensor:
        """The panorama (1, 3, H + 2, W + 2) at the resolution that suits a field of view."""
        width = self._pixels.shape[1]
        halvings = max(0, math.floor(math.log2(width / (self.size * 360 / fov)) + 1e-6))
        if halvings not in self._levels:
            image = self._pixels.permute(2, 0, 1)[None].float()
            height = image.shape[-2] >> halvings
            if halvings:
                image = F.interpolate(image, size=(height, 2 * height), mode="area")
            # Beyond a pole the image goes on on the opposite meridian, beyond a side on the other.
            poles = [torch.roll(image[..., row, :], height, -1)[..., None, :] for row in (0, -1)]
            image = torch.cat([poles[0], image, poles[1]], dim=-2)
            self._levels[halvings] = F.pad(image, (1, 1, 0, 0), mode="circular")
        return self._levels[halvings]


@lru_cache(maxsize=16)
def _grid(
    pitch: float, size: int, fov: float, panorama: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Panorama pixels (x, y), (S, S) each, of a view at yaw 0."""
    offset = (torch.arange(size, device=device) + 0.5 - size / 2) / focal_length(size, fov)
    sine, cosine = math.sin(pitch), math.cos(pitch)
    # Rays of any length; their pixels as sphere.direction_to_pixel has them, on the device.
    forward, up = cosine + sine * offset, sine - cosine * offset
    level = torch.hypot(forward[:, None], offset[None])
    x = 0.5 + torch.atan2(offset[None], forward[:, None]) / (2 * math.pi)
    y = 0.5 - torch.atan2(up[:, None], level) / math.pi
    return x * panorama[0], y * panorama[1]
