"""Pixels of an ordinary camera to directions, by its sensor_msgs/CameraInfo. ROS is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# Distortion models of sensor_msgs, and whether it is cv2.fisheye's.
_MODELS = {"": False, "plumb_bob": False, "rational_polynomial": False, "equidistant": True}


_COUNTS = (0, 4, 5, 8, 12, 14)  # of coefficients, as cv2.undistortPoints takes them
_WIDEST = np.tan(np.radians(89))  # tangent of the largest angle from the optical axis


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera.

    Attributes:
        size: width and height of its images.
        matrix: (3, 3) camera matrix K.
        distortion: (N,) distortion coefficients D.
        fisheye: whether D are those of cv2.fisheye (``equidistant``).
    """

    size: tuple[int, int]
    matrix: np.ndarray
    distortion: np.ndarray
    fisheye: bool

    @classmethod
    def from_message(cls, message: Any) -> CameraModel:
        """Reads a sensor_msgs/CameraInfo.

        Raises:
            ValueError: the camera is not calibrated, or its distortion model is not supported.
        """
        name, matrix = message.header.frame_id, np.array(message.k, np.float64).reshape(3, 3)
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise ValueError(
                f"the CameraInfo of {name!r} has the focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}; "
                "the camera must be calibrated, with positive ones"
            )
        model = message.distortion_model
        if model not in _MODELS:
            raise ValueError(
                f"the CameraInfo of {name!r} has the distortion model {model!r}; it must be one of "
                f"{', '.join(filter(None, _MODELS))}"
            )
        distortion = np.array(message.d, np.float64)
        fisheye = _MODELS[model] and len(distortion) > 0
        counts = (4,) if fisheye else _COUNTS
        if len(distortion) not in counts:
            raise ValueError(
                f"the CameraInfo of {name!r} has {len(distortion)} distortion coefficients; "
                f"{model or 'a camera without a model'} has {' or '.join(map(str, counts))}"
            )
        if not (message.width > 0 and message.height > 0):
            raise ValueError(
                f"the CameraInfo of {name!r} is of {message.width}x{message.height} pixels; it must have the "
                "size of the images"
            )
        return cls((message.width, message.height), matrix, distortion, fisheye)

    def directions(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) to directions (N, 3) in the optical frame: x right, y down, z forward.

        NaN for a pixel that sees 89 degrees or more from the optical axis. Pixels are those of the image as the
        camera takes it: not rectified, and of its full size.
        """
        points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if self.fisheye:
            flat = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion)
            # cv2 gives tan(angle), which changes its sign at 90 degrees.
            focal, centre = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
            outward = ((points - centre) / focal * flat).sum(-1) >= 0
            seen = outward & (np.linalg.norm(flat, axis=-1) < _WIDEST)
            flat = np.where(seen[..., None], flat, np.nan)
        else:
            flat = cv2.undistortPoints(points, self.matrix, self.distortion)
        return np.concatenate([flat.reshape(-1, 2), np.ones((len(points), 1))], -1)
