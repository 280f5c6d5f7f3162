"""velocity: angular velocities from directions in the last images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sap_ros.core.instances import Instances, measure
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Image
from sap_ros.engine.transforms import Stamped, Transform
from sap_ros.engine.velocity import WINDOW, AngularVelocities

OFFSET = 10**18  # ns


class Turning:
    """TF of a camera that rotates in the world: its rotation at a time in s."""

    def __init__(self, at):
        self.at = at

    def lookup(self, target, source, fixed_frame=""):
        assert fixed_frame == "odom"
        then, now = (self.at((s.stamp - OFFSET) / 1e9) for s in (source, target))
        return Transform((now.inv() * then).as_matrix())


def instances(direction, state=True):
    found = measure(np.ones((2, 4), bool) * state, 1, 0.9)
    if state:
        object.__setattr__(found, "direction", direction)
    return Instances(np.zeros((2, 4), np.uint8), (found,))


def image(seconds, frame="camera"):
    return Image((4, 2), lambda: None, OFFSET + round(seconds * 1e9), frame)


def unit(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


axis = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1).map(unit)


@given(axis, axis, axis, st.floats(0.05, 1.5), st.floats(-1, 1), st.booleans())
def test_an_object_on_a_circle_has_its_rate_whatever_the_camera_does(
    around, start, camera_axis, rate, camera_rate, optical
):
    axes = ImageAxes(0.3, "optical" if optical else "body")
    problems = []
    start = start - around * (start @ around)  # on the great circle about the axis
    if np.linalg.norm(start) < 0.1:
        start = np.cross(around, [1.0, 0.3, -0.2])
    start = unit(start)

    def camera(seconds):
        return Rotation.from_rotvec(camera_axis * camera_rate * seconds)

    velocities = AngularVelocities(Turning(camera), problems.append)
    for seconds in np.arange(0, 1.01, 0.1):
        world = Rotation.from_rotvec(around * rate * seconds).apply(start)
        seen = axes.from_frame(camera(seconds).inv().apply(world))
        found = velocities.update(image(seconds), instances(seen), axes, "odom")
        if seconds == 0:
            assert found == {}
            continue
        expected = camera(seconds).inv().apply(around * rate)
        np.testing.assert_allclose(found[1], expected, atol=1e-6)
    assert not problems


def test_without_a_fixed_frame_the_cameras_rotation_is_in_it():
    velocities = AngularVelocities(Turning(None), pytest.fail)
    for seconds in (0.0, 0.2):
        seen = Rotation.from_rotvec([0, 0, -0.5 * seconds]).apply([1.0, 0, 0])
        found = velocities.update(image(seconds), instances(seen), ImageAxes(), "")
    np.testing.assert_allclose(found[1], [0, 0, -0.5], atol=1e-9)


def test_a_velocity_is_of_the_last_half_second_and_starts_anew_after_a_loss():
    ahead, left = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    velocities = AngularVelocities(Turning(None), pytest.fail)

    def update(seconds, direction, state=True):
        return velocities.update(image(seconds), instances(direction, state), ImageAxes(), "")

    update(0.0, ahead)
    assert update(0.0, ahead) == {}  # the same image, answered again
    assert update(0.4, left)[1] == pytest.approx([0, 0, np.pi / 2 / 0.4])
    for seconds in (0.6, 0.8, 1.0):
        found = update(seconds, left)
    assert found[1] == pytest.approx([0, 0, 0])  # it has stood still for longer than the window
    assert WINDOW < 1.0 - 0.4
    assert update(1.2, left, state=False) == {}
    assert update(1.4, ahead) == {}
    assert update(0.5, ahead) == {}  # the clock has jumped back
    velocities.forget(1)
    assert update(0.7, ahead) == {}
    velocities.clear()
    assert update(0.9, ahead) == {}


def test_a_rotation_that_is_missing_is_named():
    class Missing:
        def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
            raise ValueError("no transform")

    problems = []
    velocities = AngularVelocities(Missing(), problems.append)
    for seconds in (0.0, 0.1):
        found = velocities.update(
            image(seconds), instances(np.array([1.0, 0, 0])), ImageAxes(), "odom"
        )
    assert found == {}
    assert problems == ["no angular velocities: no transform"]
