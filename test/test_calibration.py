"""calibration: a camera file that is wrong gets right, from pictures with known lenses."""

import math
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sap_ros.calibration import calibrate, residual
from sap_ros.camera_files import read_camera, write_camera
from sap_ros.cli.calibrate import _evenly, _images
from sap_ros.core import sphere
from sap_ros.core.fisheye import DualFisheye, Lens
from sap_ros.files import write_image
from sap_ros.synthesis.fisheyes import fisheyes_of
from sap_ros.synthesis.moving import MovingScene

SIDE = 480
FOCAL = 134.0


@pytest.fixture(scope="module")
def true():
    """Two lenses of 196 degrees, exactly opposite."""
    shared = {
        "focal_length": (FOCAL, FOCAL),
        "fov": math.radians(196),
        "distortion": (0.03, -0.005, 0.0, 0.0),
    }
    front = Lens("front", (1.5 * SIDE, SIDE / 2), roll=-math.pi / 2, **shared)
    back = Lens("back", (SIDE / 2, SIDE / 2), yaw=math.pi, roll=math.pi / 2, **shared)
    return DualFisheye((front, back), (2 * SIDE, SIDE))


@pytest.fixture(scope="module")
def pictures(true):
    return [MovingScene(seed).render_fisheye(0.0, true) for seed in range(4)]


def _wrong(true, focal, **degrees):
    """The camera with both focal lengths wrong by a share, and the second lens turned by degrees."""
    lenses = [
        replace(
            lens, focal_length=(FOCAL * (1 + focal),) * 2, fov=lens.fov / max(1.0, 1 + focal) - 0.01
        )
        for lens in true.lenses
    ]
    turned = {k: getattr(lenses[1], k) + math.radians(v) for k, v in degrees.items()}
    return replace(true, lenses=(lenses[0], replace(lenses[1], **turned)))


def _off(camera, true):
    """Mean error of directions through both lenses, and the second lens's rotation error, in degrees."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3000, 3))
    errors = []
    for lens in (0, 1):
        shown = camera.to_directions(true.to_pixels(directions, lens), lens)
        apart = sphere.angle_between(shown, directions)
        errors.append(apart[np.isfinite(apart)])
    between = camera.lenses[1].rotation.T @ true.lenses[1].rotation
    turn = np.linalg.norm(Rotation.from_matrix(between).as_rotvec())
    return math.degrees(np.concatenate(errors).mean()), math.degrees(turn)


@pytest.mark.parametrize(
    ("focal", "turn"),
    [
        (0.02, {"yaw": 2.0}),
        (0.02, {"pitch": 2.0}),
        (-0.02, {"roll": 2.0}),
        (-0.02, {"yaw": -1.2, "pitch": 1.2, "roll": -1.0}),
    ],
)
def test_two_degrees_and_two_percent_are_found(pictures, true, focal, turn):
    start = _wrong(true, focal, **turn)
    assert _off(start, true)[0] > 1
    found = calibrate(pictures, start)
    mean, rotation = _off(found.camera, true)
    assert mean < 0.2
    assert rotation < 0.2
    assert found.before.degrees > 2
    assert found.after.degrees < 0.3
    assert found.after.pixels == pytest.approx(math.radians(found.after.degrees) * FOCAL, rel=0.02)
    for lens, before in zip(found.camera.lenses, start.lenses, strict=True):
        assert lens.radii == pytest.approx(before.radii)  # the circle in the picture is what it was
    # What the picture of the seam shows: the step between its halves is gone.
    height = found.seam.shape[0] // 2
    steps = [_step(part) for part in (found.seam[:height], found.seam[height:])]
    assert steps[1] < 0.6 * steps[0]


def _step(part):
    """Mean step in the middle of the two strips of a seam's picture."""
    rows = (part.shape[0] - 8) // 2
    found = []
    for top in (0, rows + 4):
        strip = part[top : top + rows].astype(float)
        found.append(np.abs(strip[rows // 2] - strip[rows // 2 - 1]).mean())
    return np.mean(found)


def test_with_much_to_see_the_centres_are_found_too(true):
    """Waves of many lengths all around, down to a few pixels, and without edges."""
    v, u = np.mgrid[:512, :1024] + 0.5
    directions = sphere.pixel_to_direction(np.stack([u, v], -1), (1024, 512)).astype(np.float32)
    shown = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        lengths = rng.normal(0, 25, (3, 60)).astype(np.float32)
        waves = np.sin(directions @ lengths + rng.uniform(0, 6, 60).astype(np.float32)).mean(-1)
        grey = np.round(127 + 400 * waves).clip(0, 255).astype(np.uint8)
        shown.append(fisheyes_of(np.repeat(grey[..., None], 3, -1), true))
    start = _wrong(true, 0.01, yaw=1.0, roll=1.0)
    moved = [
        replace(lens, centre=(lens.centre[0] + 1.5, lens.centre[1] - 1.5)) for lens in start.lenses
    ]
    found = calibrate(shown, replace(start, lenses=tuple(moved)))
    for lens, right in zip(found.camera.lenses, true.lenses, strict=True):
        np.testing.assert_allclose(lens.centre, right.centre, atol=0.5)
    assert max(_off(found.camera, true)) < 0.2
    assert found.after.pixels < 0.15


def test_a_right_camera_stays_right(pictures, true):
    found = calibrate(pictures, true)
    assert max(_off(found.camera, true)) < 0.2
    assert found.after.degrees < 0.3
    assert found.matches > 100


def test_lenses_that_do_not_overlap_and_pictures_without_matches(pictures, true):
    narrow = replace(true, lenses=tuple(replace(lens, fov=3.15) for lens in true.lenses))
    with pytest.raises(ValueError, match=r"overlap by 0.5 degrees; a calibration needs 3"):
        calibrate(pictures, narrow)
    with pytest.raises(ValueError, match="too few matches: 0 were found"):
        calibrate([np.full_like(pictures[0], 128)], true)
    # A layout that is wrong: both lenses upside down to each other.
    one, other = true.lenses
    swapped = replace(true, lenses=(one, replace(other, roll=other.roll + math.pi)))
    with pytest.raises(ValueError, match="too few matches"):
        calibrate(pictures, swapped)


def test_the_residual_ignores_a_tenth_that_is_wrong(true):
    rng = np.random.default_rng(0)
    around = rng.uniform(0, 2 * math.pi, 200)
    directions = np.stack([np.zeros(200), np.cos(around), np.sin(around)], -1)
    pixels = [true.to_pixels(directions, lens) for lens in (0, 1)]
    assert residual(true, pixels).degrees < 1e-6
    pixels[0][:19] += 20
    assert residual(true, pixels).degrees < 1e-6


def test_the_command_writes_a_camera_file_and_the_seam(pictures, true, tmp_path):
    folder, start, out = tmp_path / "pictures", tmp_path / "start.yaml", tmp_path / "new" / "a.yaml"
    folder.mkdir()
    for i, picture in enumerate(pictures):
        write_image(folder / f"{i}.png", picture)
    write_camera(start, _wrong(true, 0.02, yaw=2.0))
    command = [sys.executable, "-m", "sap_ros.cli", "calibrate"]
    options = ["--camera", str(start), "--out", str(out)]
    done = subprocess.run(
        [*command, str(folder), *options], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "residual before: " in done.stdout
    assert "degrees" in done.stdout
    assert max(_off(read_camera(out), true)) < 0.25
    assert "residual after: " in out.read_text()
    assert {p.name for p in out.parent.iterdir()} == {"a.yaml", "a.seam.png"}
    write_image(folder / "z.png", pictures[0][::2, ::2])
    done = subprocess.run(
        [*command, str(folder), *options], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sap: ")
    assert done.stderr.count("\n") == 1
    assert "several sizes" in done.stderr


def test_pictures_come_from_a_video_and_from_a_bag(pictures, tmp_path):
    pytest.importorskip("rosbags")
    pytest.importorskip("mcap")
    from sap_ros.evaluation.make_bag import write_bag

    folder = tmp_path / "pictures"
    folder.mkdir()
    video = cv2.VideoWriter(
        str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (2 * SIDE, SIDE)
    )
    for i, picture in enumerate(pictures):
        write_image(folder / f"{i}.png", picture)
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    video.release()
    write_bag(folder, tmp_path / "bag", compressed=False)
    for source in (folder, tmp_path / "a.mp4", tmp_path / "bag"):
        found = list(_images(source, ""))
        assert len(found) == 4
        assert np.abs(found[2].astype(int) - pictures[2]).mean() < 8
    with pytest.raises(ValueError, match="there is no file or folder"):
        list(_images(tmp_path / "none.mp4", ""))


@pytest.mark.parametrize(("there", "wanted"), [(0, 5), (3, 5), (5, 5), (11, 5), (100, 20), (7, 1)])
def test_pictures_are_taken_evenly(there, wanted):
    kept = _evenly((np.array(i) for i in range(there)), wanted)
    assert len(kept) == min(there, wanted)
    steps = np.diff([int(k) for k in kept])
    assert len(steps) == 0 or (steps.min() >= 1 and steps.max() <= 2 * max(1, there // wanted) + 1)
