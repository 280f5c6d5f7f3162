"""Estimates how late a camera's stamps are, from a bag: rotation seen in the panoramas against a gyroscope.

The rotation between consecutive panoramas is that which best moves tracked corners from one sphere to the next
(Wahba's problem, solved robustly). For each assumed delay, the gyroscope's rate is averaged over the same
intervals, and the two rates are compared after the rotation between both sensors' axes that suits them best, so
that no calibration is needed. The delay with the highest correlation is the estimate; it is refined by a
parabola.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.projection import Equirectangular, Projection
from sap_ros.evaluation.bags import Bag
from sap_ros.evaluation.replay import IMAGES
from sap_ros.messages import ImageReader, nanoseconds

IMU, ODOMETRY = "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry"

_WIDTH = 512  # of the panoramas in which corners are tracked
_CORNERS = 400
_LEAST_CORNERS = 20
_ROUNDS = 10  # of the robust fit
_STEP = 0.005  # between the delays that are compared, in s
_LONGEST_GAP = 0.5  # between images that are compared, in s
#: What the motion must give for an estimate: images, correlation, and standard deviation in s.
LEAST_INTERVALS = 20
LEAST_CORRELATION = 0.7
MOST_STDDEV = 0.02
#: Another delay with a correlation as near to the best one's as this makes the estimate ambiguous.
_RIVAL = 0.98


@dataclass(frozen=True)
class Delay:
    """By how much stamps of images are later than those of a gyroscope.

    Attributes:
        seconds: the delay, to be set as the node's ``stamp_offset``.
        stddev: its standard deviation, from the residual and the changes of the rate, in s.
        residual: root mean square of the difference of the rates, in rad/s.
        correlation: of the rates at this delay, 0 to 1.
        intervals: number of pairs of images that were compared.
    """

    seconds: float
    stddev: float
    residual: float
    correlation: float
    intervals: int


def rotation_of(former: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """The camera's rotation from one panorama (H, W) uint8 to the next: a rotation vector (3,) in the panorama's
    axes; None if too few corners are found in both."""
    size = former.shape[1], former.shape[0]
    corners = cv2.goodFeaturesToTrack(former, _CORNERS, 0.01, 5)
    if corners is None or len(corners) < _LEAST_CORNERS:
        return None
    moved, good, _ = cv2.calcOpticalFlowPyrLK(former, image, corners, None)
    back, there, _ = cv2.calcOpticalFlowPyrLK(image, former, moved, None)
    kept = (good & there).ravel().astype(bool)
    kept &= np.linalg.norm(back - corners, axis=2).ravel() < 0.5
    if kept.sum() < _LEAST_CORNERS:
        return None
    before, after = (
        sphere.pixel_to_direction(points.reshape(-1, 2)[kept].astype(np.float64) + 0.5, size)
        for points in (corners, moved)
    )
    weights = np.ones(len(before))
    for _ in range(_ROUNDS):
        # What is fixed in the world moves against the camera.
        rotation, _ = Rotation.align_vectors(before, after, weights)
        off = np.linalg.norm(rotation.apply(after) - before, axis=1)
        weights = 1 / (1 + (off / max(float(np.median(off)), 1e-6)) ** 2)  # Cauchy's
    return np.asarray(rotation.as_rotvec())


def find_delay(
    stamps: np.ndarray,
    rotations: np.ndarray,
    times: np.ndarray,
    rates: np.ndarray,
    longest: float,
) -> Delay:
    """The delay of images against a gyroscope.

    Args:
        stamps: (N, 2) stamps of both images of each interval, in s.
        rotations: (N, 3) rotation vectors between them, in rad, in the camera's axes.
        times: (M,) ascending, in s.
        rates: (M, 3) rotation rates at these times, in rad/s, in the gyroscope's axes.
        longest: the largest delay that is looked for, to both sides, in s.

    Raises:
        ValueError: the motion does not determine it.
    """
    delays = np.arange(-longest, longest + _STEP / 2, _STEP)
    inside = (stamps[:, 0] - longest >= times[0]) & (stamps[:, 1] + longest <= times[-1])
    stamps, rotations = stamps[inside], rotations[inside]
    if len(stamps) < LEAST_INTERVALS:
        raise ValueError(
            f"{len(stamps)} pairs of images have rotation rates up to {longest:g} s before and after them; at "
            f"least {LEAST_INTERVALS} are needed: record for longer, or give a smaller --longest"
        )
    lengths = np.diff(stamps, axis=1)
    seen = rotations / lengths
    seen = seen - seen.mean(0)
    steps = np.diff(times)[:, None] * (rates[1:] + rates[:-1]) / 2
    angle = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)])

    def felt(delay: float) -> np.ndarray:
        ends = [
            np.stack([np.interp(stamps[:, k] - delay, times, angle[:, i]) for i in range(3)], -1)
            for k in (0, 1)
        ]
        rate = (ends[1] - ends[0]) / lengths
        return np.asarray(rate - rate.mean(0))  # without the gyroscope's bias

    power = float((seen**2).sum())
    found = np.array([_alignment(seen, felt(delay))[0] for delay in delays])
    best = int(found.argmax())
    if power == 0 or found[best] < LEAST_CORRELATION:
        raise ValueError(
            f"the rotation in the images and that of the gyroscope have a correlation of {found[best]:.2f}; "
            f"at least {LEAST_CORRELATION} is needed: turn the robot or the camera to and fro while recording"
        )
    if best in (0, len(delays) - 1):
        raise ValueError(
            f"the delay is {longest:g} s or more, or the motion does not determine it: give a larger "
            "--longest, or turn to and fro at changing speeds"
        )
    low, top, high = found[best - 1 : best + 2]
    delay = float(delays[best] + _STEP * 0.5 * (low - high) / (low - 2 * top + high))
    _, rotated = _alignment(seen, felt(delay))
    residual = seen - rotated
    variance = float((residual**2).sum()) / (3 * len(seen) - 3)
    slope = (felt(delay + _STEP) - felt(delay - _STEP)) / (2 * _STEP)
    stddev = float(np.sqrt(variance / max((slope**2).sum(), 1e-12)))
    peaks = (found[1:-1] > found[:-2]) & (found[1:-1] >= found[2:])
    rivals = [i + 1 for i in np.flatnonzero(peaks) if i + 1 != best]
    rival = next((i for i in rivals if found[i] > _RIVAL * found[best]), None)
    if rival is not None:
        raise ValueError(
            f"the motion repeats itself: {delays[rival]:.2f} s suits it as well as {delay:.2f} s; turn at "
            "changing speeds, or give a smaller --longest"
        )
    if stddev > MOST_STDDEV:
        raise ValueError(
            f"the motion determines the delay to only {stddev:.3f} s, and {MOST_STDDEV} s is needed: turn to "
            "and fro faster, or record for longer"
        )
    rms = float(np.sqrt((residual**2).sum(1).mean()))
    return Delay(delay, stddev, rms, float(found[best]), len(seen))


def _alignment(seen: np.ndarray, felt: np.ndarray) -> tuple[float, np.ndarray]:
    """Correlation of two series (N, 3) after the best rotation of the second, and the second, rotated."""
    u, s, vt = np.linalg.svd(seen.T @ felt)
    handed = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    power = float(np.sqrt((seen**2).sum() * (felt**2).sum()))
    rotation = u @ np.diag(handed) @ vt
    return float((s * handed).sum()) / power if power > 0 else 0.0, felt @ rotation.T


def camera_delay(
    bag: Bag,
    images: str = "",
    rates: str = "",
    longest: float = 1.0,
    projection: Projection | None = None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Delay, list[str]]:
    """The delay of a bag's images, and notes about what could not be used.

    Args:
        bag: the recording.
        images: topic of the panoramas; empty: the only one there is.
        rates: topic of a sensor_msgs/Imu or nav_msgs/Odometry; empty: the only IMU, else the only odometry.
        longest: the largest delay that is looked for, in s.
        projection: of the images; None: equirectangular.
        progress: called after each image.

    Raises:
        ValueError: a topic is missing or ambiguous, or the motion does not determine the delay.
    """
    images = images or _only(bag, IMAGES, "image topic, --image")
    kinds = next((kinds for kinds in ([IMU], [ODOMETRY]) if bag.of_kind(kinds)), [IMU, ODOMETRY])
    rates = rates or _only(bag, kinds, "IMU or odometry, --rates")
    bag.need(images, IMAGES)
    bag.need(rates, [IMU, ODOMETRY])
    is_odometry = bag.topics[rates] == ODOMETRY
    notes: list[str] = []
    projection = projection or Equirectangular()
    reader = ImageReader(projection, notes.append)
    stamps: list[tuple[float, float]] = []
    rotations: list[np.ndarray] = []
    measured: list[tuple[float, float, float, float]] = []
    former: tuple[float, np.ndarray] | None = None
    for topic, _, message in bag.messages([images, rates]):
        if topic == rates:
            w = message.twist.twist.angular if is_odometry else message.angular_velocity
            measured.append((nanoseconds(message.header.stamp) / 1e9, w.x, w.y, w.z))
            continue
        try:
            found = reader.read(message)
            for image in found:
                panorama = projection.open(image.read()).panorama(min(_WIDTH, image.size[0]))
                small = cv2.cvtColor(panorama, cv2.COLOR_RGB2GRAY)
                now = image.stamp / 1e9, small
                if former is not None and 0 < now[0] - former[0] < _LONGEST_GAP:
                    rotation = rotation_of(former[1], small)
                    if rotation is not None:
                        stamps.append((former[0], now[0]))
                        rotations.append(rotation)
                former = now
                progress()
        except ValueError as error:
            if str(error) not in notes:
                notes.append(str(error))
    table = np.array(sorted(measured))
    table = table[np.isfinite(table).all(1)] if len(table) else np.zeros((0, 4))
    table = table[np.append(True, np.diff(table[:, 0]) > 0)] if len(table) else table
    if len(table) < 2 or not stamps:
        raise ValueError(
            f"{bag.path} has {len(stamps)} pairs of images with corners in both, and {len(table)} rotation "
            f"rates on {rates}; both are needed" + "".join(f"; {note}" for note in notes[:1])
        )
    # Seconds since 1970 have too few digits left for the sums.
    pairs = np.array(stamps) - table[0, 0]
    times = table[:, 0] - table[0, 0]
    return find_delay(pairs, np.array(rotations), times, table[:, 1:], longest), notes


def _only(bag: Bag, kinds: list[str] | tuple[str, ...], what: str) -> str:
    found = bag.of_kind(kinds)
    if len(found) != 1:
        raise ValueError(f"{bag.path}: name the {what}; there are {', '.join(found) or 'none'}")
    return found[0]
