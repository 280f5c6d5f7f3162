"""Pixels of an ordinary camera to directions, by its sensor_msgs/CameraInfo. ROS is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# Distortion models of sensor_msgs, and whether it is cv2.fisheye's.
_MODELS = {"": False, "plumb_bob": False, "rational_polynomial": False, "equidistant": True}


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
        if fisheye and len(distortion) != 4:
            raise ValueError(
                f"the CameraInfo of {name!r} has {len(distortion)} coefficients; equidistant has 4"
            )
        return cls((message.width, message.height), matrix, distortion, fisheye)

    def directions(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) to directions (N, 3) in the optical frame: x right, y down, z forward."""
        points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if self.fisheye:
            flat = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion)
        else:
            flat = cv2.undistortPoints(points, self.matrix, self.distortion)
        return np.concatenate([flat.reshape(-1, 2), np.ones((len(points), 1))], -1)
