"""Evaluates panoramic videos: objects are prompted in the first frame and tracked to the end.

J and F are measured in every later frame, on the panorama and on the sphere, as in DAVIS' semi-supervised
protocol (the first frame is prompted and not scored). Wrong takes, and the times until a hidden object is found
again, are those of :mod:`sap_ros.evaluation.returns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sap_ros.core.model import Model
from sap_ros.core.prompts import Prompt
from sap_ros.evaluation.benchmark import Method, first_prompt
from sap_ros.evaluation.cost import measured
from sap_ros.evaluation.datasets import Sequence as Video
from sap_ros.evaluation.metrics import boundary_f, iou, sphere_boundary_f, sphere_iou
from sap_ros.evaluation.returns import SOON, Sight, sight, waits, wrong_takes


@dataclass(frozen=True)
class Track:
    """Scores of one object tracked through a video: means over all frames but the first.

    Attributes:
        method, video, instance: what was tracked, and how.
        frames: number of averaged frames.
        j, f: IoU and boundary F on the panorama.
        sphere_j, sphere_f: the same on the sphere.
        views: views encoded per panorama, for all objects.
        seconds: time per panorama, for all objects.
        duration: time that the averaged frames cover, in s.
        wrong_takes: how many times it was mistaken for something else.
        waits: seconds until it was found again, each time that it was visible again; None: it was not.
    """

    method: Method
    video: str
    instance: int
    frames: int
    j: float
    f: float
    sphere_j: float
    sphere_f: float
    views: float
    seconds: float
    duration: float
    wrong_takes: int
    waits: list[float | None]


def followed(model: Model, method: Method, video: Video, rate: float = 4.0) -> list[Track]:
    """Tracks the objects of the first annotated frame of a video.

    Args:
        model: the model.
        method: how it is used; ``prompt`` selects one click, the object's box or its mask.
        video: the video.
        rate: frames per second of the video.
    """
    first = video.frames[0]
    labels = first.labels()
    values = [int(i) for i in np.unique(labels[labels > 0])]
    together = [[value] for value in values] if method.alone else [values]
    sessions = [method.session(model) for _ in together]
    figures: dict[int, list[tuple[float, ...]]] = {value: [] for value in values}
    sights: dict[int, list[Sight]] = {value: [] for value in values}
    views, seconds = [], []
    for k, frame in enumerate(video.frames):
        image, labels = frame.image(), frame.labels()
        answers: dict[int, np.ndarray] = {}
        with measured(model.device) as cost:
            for session, members in zip(sessions, together, strict=True):
                if k:
                    session.next_image(image)
                else:
                    session.set_image(image)
                    for number, value in enumerate(members, 1):
                        prompt = first_prompt(labels == value, method.prompt)
                        session.add_prompt(
                            Prompt(
                                number, prompt.directions, prompt.labels, prompt.box, prompt.mask
                            )
                        )
                answer = session.segment().labels
                answers |= {value: answer == i for i, value in enumerate(members, 1)}
        views.append(sum(session.encoded for session in sessions))
        seconds.append(cost.seconds)
        for value in values:
            pair = answers[value], labels == value
            sights[value].append(sight(answers[value], labels, value))
            if k:
                figures[value].append(
                    (iou(*pair), boundary_f(*pair), sphere_iou(*pair), sphere_boundary_f(*pair))
                )
    tracks = []
    for value, rows in figures.items():
        if rows:
            j, f, sphere_j, sphere_f = (round(float(mean), 5) for mean in np.mean(rows, axis=0))
            tracks.append(
                Track(
                    method,
                    video.name,
                    value,
                    len(rows),
                    j,
                    f,
                    sphere_j,
                    sphere_f,
                    round(float(np.mean(views)), 2),
                    round(float(np.mean(seconds)), 3),
                    len(rows) / rate,
                    wrong_takes(sights[value][1:]),
                    waits(sights[value], rate),
                )
            )
    return tracks


def append_tracks(results: Path, tracks: Sequence[Track]) -> None:
    """Appends the tracks of a video to a file, see :func:`read_tracks`."""
    with results.open("a") as file:
        # The leading newline ends a line that was truncated when an earlier run was killed.
        file.write("\n" + json.dumps([asdict(track) for track in tracks]) + "\n")


def read_tracks(files: Iterable[Path]) -> list[Track]:
    """Reads tracks, one per method and object. Truncated lines are skipped."""
    tracks: dict[tuple[Method, str, int], Track] = {}
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                rows = [Track(**{**r, "method": Method(**r["method"])}) for r in json.loads(line)]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            tracks.update({(t.method, t.video, t.instance): t for t in rows})
    return list(tracks.values())


def track_columns(method: Method, tracks: Sequence[Track]) -> dict[str, str]:
    """A method's row of the table: text by column name."""

    def mean(name: str, digits: int = 3) -> str:
        return f"{np.mean([getattr(t, name) for t in tracks]):.{digits}f}"

    return {
        "prompt": method.prompt,
        "objects": str(len(tracks)),
        "J": mean("j"),
        "F": mean("f"),
        "J&F": f"{np.mean([(t.j + t.f) / 2 for t in tracks]):.3f}",
        "sphere J": mean("sphere_j"),
        "sphere F": mean("sphere_f"),
        "views": mean("views", 1),
        "s": mean("seconds", 2),
    }


def return_columns(tracks: Sequence[Track]) -> dict[str, str]:
    """A method's row of the table of wrong takes and returns: text by column name."""
    minutes = sum(track.duration for track in tracks) / 60
    returns = [wait for track in tracks for wait in track.waits]
    found = [wait for wait in returns if wait is not None]
    soon = sum(wait <= SOON for wait in found)
    return {
        "wrong takes/min": f"{sum(track.wrong_takes for track in tracks) / minutes:.2f}",
        "returns": str(len(returns)),
        f"found in {SOON:g} s": f"{soon / len(returns):.2f}" if returns else "-",
        "ever": f"{len(found) / len(returns):.2f}" if returns else "-",
        "after s": f"{np.mean(found):.2f}" if found else "-",
    }
