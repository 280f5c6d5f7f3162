"""The files of a replay besides its bag: a table, a video, and pictures of each object's worst moment."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sap_ros.core.instances import State
from sap_ros.core.overlay import draw_overlay
from sap_ros.engine.answers import Answer
from sap_ros.places import write_whole

_MOMENT_WIDTH = 640  # of a picture of a moment


@dataclass(frozen=True)
class Moment:
    """The worst image of an object.

    Attributes:
        object_id, stamp: the object, and the image's stamp in ns.
        image: number of the image, from 0.
        badness: 0 to 1: 1 - IoU where there is a true mask; else 1 where it was lost, or 1 - its score.
        what: what is bad, in words.
        picture: file of the picture, relative to the replay's folder.
    """

    object_id: int
    stamp: int
    image: int
    badness: float
    what: str
    picture: str


class ReplayFiles:
    """``images.csv``, ``overlay.mp4`` and ``moments/``, written image by image; a context manager.

    Args:
        out: their folder.
        rate: images per second of the video; 0: computed from the times of the first two images.

    Attributes:
        lost, regained: how many times an object that had been tracked was lost, and was found again.
        moments: of each object, the worst.
    """

    _WIDTH = 1280  # maximum width of the video

    def __init__(self, out: Path, rate: float) -> None:
        self.out, self.rate = out, rate
        self._video: Any = None
        self._first: tuple[int, np.ndarray] | None = None
        self.lost = self.regained = 0
        self._images = 0
        self._states: dict[int, State] = {}
        self._moments: dict[int, tuple[Moment, bytes]] = {}

    @property
    def moments(self) -> list[Moment]:
        return [self._moments[i][0] for i in sorted(self._moments)]

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
        (self.out / "moments").mkdir(exist_ok=True)
        for moment, picture in self._moments.values():
            write_whole(self.out / moment.picture, picture)

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
        self._judge(answer, scores, picture)
        self._images += 1
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

    def _judge(
        self,
        answer: Answer,
        scores: Mapping[int, tuple[float, float, float, float] | None],
        picture: np.ndarray,
    ) -> None:
        """Counts losses and returns, and keeps each object's worst image."""
        small: bytes | None = None
        for instance in answer.instances.objects:
            i, state = instance.object_id, State(instance.state)
            if state not in (State.TRACKED, State.LOST):
                continue
            before = self._states.get(i)
            self._states[i] = state
            newly_lost = (before, state) == (State.TRACKED, State.LOST)
            self.lost += newly_lost
            self.regained += (before, state) == (State.LOST, State.TRACKED)
            score = scores[i]
            if score is not None:
                badness, what = 1 - score[0], f"IoU {score[0]:.2f}"
            elif state == State.LOST:
                badness, what = 1.0, "lost"
            else:
                badness, what = 1 - instance.score, f"score {instance.score:.2f}"
            if i in self._moments and badness <= self._moments[i][0].badness:
                continue
            if small is None:
                size = (_MOMENT_WIDTH, _MOMENT_WIDTH // 2)
                shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                small = cv2.imencode(".jpg", shrunk)[1].tobytes()
            moment = Moment(
                i, answer.stamp, self._images, round(badness, 4), what, f"moments/{i}.jpg"
            )
            self._moments[i] = moment, small

    def _open(self, picture: np.ndarray, rate: float) -> Any:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        path = str(self.out / "overlay.mp4")
        self._video = cv2.VideoWriter(path, code, rate, picture.shape[1::-1])
        self._video.write(picture)
        self._first = None
        return self._video
