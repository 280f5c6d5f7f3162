"""Videos: the first frame is given, the others count."""

import numpy as np
import pytest
from PIL import Image

from sap_ros.core import sphere
from sap_ros.core.loading import load_model
from sap_ros.evaluation.benchmark import Method
from sap_ros.evaluation.datasets import read_sequences
from sap_ros.evaluation.video import (
    Track,
    append_tracks,
    followed,
    read_tracks,
    return_columns,
    track_columns,
)


@pytest.fixture
def videos(tmp_path, disks):
    """A disk that moves across the seam, and one that stays."""
    for k in range(4):
        places = [sphere.angles_to_direction(a, 0.1) for a in (np.pi + 0.06 * (k - 2), 0.5)]
        image, labels = disks(places)
        for part, pixels, end in (
            ("JPEGImages", image, "jpg"),
            ("Annotations", labels.astype(np.uint8), "png"),
        ):
            folder = tmp_path / part / "walk"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{k:05d}.{end}")
    return read_sequences(tmp_path)


@pytest.mark.parametrize("prompt", ["clicks", "mask"])
def test_objects_are_followed(videos, tmp_path, prompt):
    model, results = load_model("sap-nano"), tmp_path / "tracks.jsonl"
    method = Method("nano", prompt=prompt)
    (video,) = videos
    tracks = followed(model, method, video)
    append_tracks(results, tracks)
    assert [(t.instance, t.frames) for t in tracks] == [(1, 3), (2, 3)]
    assert all(t.sphere_j > 0.5 for t in tracks)
    assert tracks[0].views < 24
    row = track_columns(method, tracks)
    assert float(row["J&F"]) == pytest.approx((float(row["J"]) + float(row["F"])) / 2, abs=1e-3)
    with results.open("a") as file:
        file.write('[{"method"')  # killed while it wrote
    append_tracks(results, tracks)
    assert read_tracks([results, results]) == tracks
    assert [(t.duration, t.wrong_takes, t.waits) for t in tracks] == [(0.75, 0, []), (0.75, 0, [])]
    assert return_columns(tracks)["found in 1 s"] == "-"


def test_an_object_tracked_alone_gives_the_same_answer_as_one_of_two_that_are_apart(videos):
    model = load_model("sap-nano")
    (video,) = videos
    both = followed(model, Method("nano"), video)
    alone = followed(model, Method("nano", alone=True), video)
    assert [t.j for t in alone] == pytest.approx([t.j for t in both], abs=0.02)
    assert len(alone) == 2


def test_wrong_takes_and_returns_are_summed_over_objects():
    def track(takes, waits):
        return Track(Method("nano"), "a", 1, 120, 0, 0, 0, 0, 0, 0, 30.0, takes, waits)

    row = return_columns([track(1, [0.5, None]), track(2, [1.5]), track(0, [0.0])])
    assert row == {
        "wrong takes/min": "2.00",
        "returns": "4",
        "found in 1 s": "0.50",
        "ever": "0.75",
        "after s": "0.67",
    }
