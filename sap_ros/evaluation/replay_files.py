"""The files of a replay besides its bag: a table and a video."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core.instances import State
from sap_ros.core.overlay import draw_overlay
from sap_ros.engine.answers import Answer


class ReplayFiles:
    """``images.csv`` and ``overlay.mp4``, written image by image; a context manager.

    Args:
        out: their folder.
        rate: images per second of the video; 0: computed from the times of the first two images.
    """

    _WIDTH = 1280  # maximum width of the video

    def __init__(self, out: Path, rate: float) -> None:
        self.out, self.rate = out, rate
        self._video: Any = None
        self._first: tuple[int, np.ndarray] | None = None

    def __enter__(self) -> ReplayFiles:
        self._file = (self.out / "images.csv").open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(
            ["stamp_ns", "object", "state", "azimuth_deg", "elevation_deg", "solid_angle_sr",
             "score", "J", "F", "sphere_J", "sphere_F", "seconds"]
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._first is not None:
            self._open(self._first[1], 10.0)
        if self._video is not None:
            self._video.release()

    def write(
        self,
        time: int,
        answer: Answer,
        scores: Mapping[int, tuple[float, float, float, float] | None],
        seconds: float,
    ) -> None:
        """Writes an image.

        Args:
            time: time of recording, in ns.
            answer: the last answer to the image.
            scores: J, F, sphere J and sphere F, by object.
            seconds: processing time.
        """
        for instance in answer.instances.objects:
            score = scores[instance.object_id]
            self._rows.writerow(
                [
                    answer.stamp,
                    instance.object_id,
                    State(instance.state).name,
                    *(round(math.degrees(a), 3) for a in (instance.azimuth, instance.elevation)),
                    round(instance.solid_angle, 6),
                    round(instance.score, 4),
                    *(("", "", "", "") if score is None else (round(v, 5) for v in score)),
                    round(seconds, 4),
                ]
            )
        width = min(self._WIDTH, answer.picture.size[0])
        size = (width, width // 2)
        drawn = draw_overlay(answer.picture.panorama(), answer.instances)
        overlay = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        picture = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
        if self._video is not None:
            self._video.write(picture)
        elif self.rate:
            self._open(picture, self.rate)
        elif self._first is None:
            self._first = time, picture
        else:  # the second image determines the rate
            between = (time - self._first[0]) / 1e9
            rate = min(60.0, max(1.0, 1 / between)) if between > 0 else 10.0
            self._open(self._first[1], rate).write(picture)

    def _open(self, picture: np.ndarray, rate: float) -> Any:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        path = str(self.out / "overlay.mp4")
        self._video = cv2.VideoWriter(path, code, rate, picture.shape[1::-1])
        self._video.write(picture)
        self._first = None
        return self._video
