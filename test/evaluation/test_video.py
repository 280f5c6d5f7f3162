"""Videos: the first frame is given, the others count."""

import numpy as np
import pytest
from PIL import Image

from sap_ros.core import sphere
from sap_ros.core.loading import load_model
from sap_ros.evaluation.benchmark import Method
from sap_ros.evaluation.datasets import read_sequences
from sap_ros.evaluation.video import evaluate_videos, read_tracks, track_columns


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
def test_objects_are_followed_and_a_killed_run_goes_on(videos, tmp_path, prompt):
    model, results = load_model("sap-nano"), tmp_path / "tracks.jsonl"
    method, frames = Method("nano", prompt=prompt), []
    tracks = evaluate_videos(model, method, videos, results, lambda: frames.append(1))
    assert len(frames) == 4
    assert [(t.instance, t.frames) for t in tracks] == [(1, 3), (2, 3)]
    assert all(t.sphere_j > 0.5 for t in tracks)
    assert tracks[0].views < 24
    row = track_columns(method, tracks)
    assert float(row["J&F"]) == pytest.approx((float(row["J"]) + float(row["F"])) / 2, abs=1e-3)
    again = evaluate_videos(model, method, videos, results, lambda: frames.append(1))
    assert again == tracks == read_tracks([results, results])
    assert len(frames) == 8
