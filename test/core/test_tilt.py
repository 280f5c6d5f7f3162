"""A tilted camera: with the up direction, views and results are those of a level one, rotated."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import sap_ros
from sap_ros.core import sphere
from sap_ros.core.instances import State, measure
from sap_ros.core.loading import load_model
from sap_ros.core.motion import rotation_between, turned
from sap_ros.core.prompts import Prompt
from sap_ros.core.rendering import TorchRenderer, ViewRenderer
from sap_ros.core.scan import Scan, tilted
from sap_ros.core.session import PanoramaSession
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)
UP = np.array(sphere.UP)
rotations = st.tuples(
    st.floats(-np.pi, np.pi), st.floats(-np.pi / 2, np.pi / 2), st.floats(-np.pi, np.pi)
).map(lambda angles: Rotation.from_euler("ZYX", angles))


def _rays(size=SIZE):
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    return sphere.pixel_to_direction(np.stack([u, v], -1), size)


def _waves(rotation):
    """A panorama of a few waves in space, rotated exactly."""
    rng = np.random.default_rng(5)
    waves = np.sin(rotation.inv().apply(_rays().reshape(-1, 3)) @ rng.normal(0, 4, (3, 3)))
    return np.round((waves + 1) * 127).astype(np.uint8).reshape(SIZE[1], SIZE[0], 3)


def _iou(one, other):
    area = sphere.row_solid_angles((one.shape[1], one.shape[0]))[:, None]
    return float((area * (one & other)).sum() / max((area * (one | other)).sum(), 1e-9))


@pytest.fixture(scope="module")
def nano():
    return load_model("sap-nano")


@given(rotations)
@settings(max_examples=20)
@pytest.mark.parametrize("renderer", ["cv2", "torch"])
def test_views_of_a_rotated_panorama_are_those_of_the_level_one(renderer, rotation):
    """All but the heading is taken off, which is a horizontal shift of the level panorama."""
    up = rotation.apply(UP)
    heading = Rotation.from_matrix(sphere.levelling(up)).inv() * rotation
    image, level = _waves(rotation), _waves(heading)

    def make(pixels):
        if renderer == "cv2":
            return ViewRenderer(pixels, 64)
        return TorchRenderer(pixels, 64, torch.device("cpu"))

    one, other = make(image), make(level)
    views = tilted(Scan(), tuple(up.tolist())).views
    for view, plain in list(zip(views, Scan().views, strict=True))[::5]:
        shown, expected = (np.asarray(r.render(v), float) for r, v in ((one, view), (other, plain)))
        assert np.abs(shown - expected).max() < 4


@given(rotations)
@settings(max_examples=20)
def test_a_panorama_is_turned_as_directions_are(rotation):
    level = Rotation.identity()
    assert np.abs(turned(_waves(level), rotation).astype(int) - _waves(rotation)).max() < 6
    labels = (_rays() @ (0.6, 0.0, 0.8) > 0.9).astype(np.uint8)
    true = _rays() @ rotation.apply((0.6, 0.0, 0.8)) > 0.9
    assert _iou(turned(labels, rotation, labels=True) > 0, true) > 0.97


def _clicked(labels):
    """A click in the middle of each object."""
    rays = _rays((labels.shape[1], labels.shape[0]))
    found = {}
    for i in np.unique(labels[labels > 0]):
        on = rays[labels == i]
        found[int(i)] = on[(on @ on.mean(0)).argmax()]
    return found


def _segmented(nano, image, clicks, up=None, strategy="auto"):
    session = PanoramaSession(nano, strategy)
    session.set_image(image, up)
    for i, click in clicks.items():
        session.add_prompt(Prompt(i, click[None], np.array([1])))
    return session.segment()


def _demo():
    """The demo panorama: a lamp by the pole, a ball across the seam, four things near the horizon."""
    folder = Path(sap_ros.__file__).parent / "data" / "demo"
    image = cv2.imread(str(folder / "panorama.jpg"))[..., ::-1]
    labels = cv2.imread(str(folder / "instances.png"), cv2.IMREAD_UNCHANGED)
    # Wide enough that turning it costs no detail in the views.
    size = (2048, 1024)
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8),
    )


def _demo_turned(rotation):
    image, labels = _demo()
    return (image, labels), (turned(image, rotation), turned(labels, rotation, labels=True))


def _room(rotation):
    """A traced room: exact, without interpolation."""
    size = (1024, 512)
    tilt = rotation.inv().as_matrix()
    return MovingScene(0).render(0, size), MovingScene(0, tilt=lambda _: tilt).render(0, size)


@pytest.mark.parametrize("scene", [_demo_turned, _room])
@pytest.mark.parametrize("angles", [(20, 0), (0, 20), (-20, 20)])
def test_a_tilted_robot_finds_what_a_level_one_finds(nano, scene, angles):
    rotation = Rotation.from_euler("xy", angles, degrees=True)
    (image, truth), (tilted_image, tilted_truth) = scene(rotation)
    clicks = _clicked(truth)
    level = _segmented(nano, image, clicks)
    moved = {i: rotation.apply(click) for i, click in clicks.items()}
    found = _segmented(nano, tilted_image, moved, rotation.apply(UP))
    without = _segmented(nano, tilted_image, moved)
    assert len(clicks) >= 5
    for one, other, plain in zip(level.objects, found.objects, without.objects, strict=True):
        i = one.object_id
        before = _iou(level.labels == i, truth == i)
        assert _iou(found.labels == i, tilted_truth == i) > before - 0.02
        true = measure(truth == i, i, 1.0).direction
        off_level, off = (
            np.degrees(sphere.angle_between(direction, true))
            for direction in (one.direction, rotation.inv().apply(other.direction))
        )
        assert off < off_level + 0.3
        assert plain.state == State.TRACKED  # a click is found either way


@pytest.mark.parametrize("strategy", ["auto", "gimbal", "frontier", "scan"])
def test_the_model_is_shown_the_views_of_the_level_robot(nano, strategy):
    """A camera on its side, by a rotation that leaves the level axes' heading as it is."""
    rotation = Rotation.from_euler("x", 60, degrees=True)
    (image, truth), (other, _) = _room(rotation)
    click = _clicked(truth)[2]
    shown = []
    for pixels, at, up in (
        (image, click, None),
        (other, rotation.apply(click), rotation.apply(UP)),
        (other, rotation.apply(click), None),
    ):
        session = PanoramaSession(nano, strategy)
        session.set_image(pixels, up)
        session.add_prompt(Prompt(5, at[None], np.array([1])))
        session.segment()
        (*_, (view, _)) = session.view_masks(5).values()
        shown.append(view.astype(float))
    level, levelled, plain = shown
    assert np.abs(levelled - level).mean() < 2
    assert np.abs(plain - level).mean() > 8


@pytest.mark.parametrize("strategy", ["direct", "patches"])
def test_the_panorama_itself_is_not_levelled(random_model, panorama, strategy):
    click = {1: np.array([0.8, 0.0, 0.6])}
    plain = _segmented(random_model, panorama, click, strategy=strategy).labels
    other = _segmented(random_model, panorama, click, (0.5, 0, 0.8), strategy).labels
    np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize("strategy", ["auto", "scan"])
def test_a_level_camera_gets_the_same_views_with_and_without_an_imu(
    random_model, panorama, strategy
):
    """An IMU's noise changes nothing: not one bit, and no table."""
    click = {1: np.array([0.8, 0.0, 0.6])}
    plain = _segmented(random_model, panorama, click, strategy=strategy)
    for up in ((0, 0, 9.81), (0.012, -0.01, 1.0)):
        other = _segmented(random_model, panorama, click, up, strategy)
        np.testing.assert_array_equal(plain.labels, other.labels)


def _swaying(period):
    """A robot that sways by up to 20 degrees about both axes."""

    def tilt(time):
        angles = 20 * np.sin([2 * np.pi * time / period, 1.4 * np.pi * time / period + 1.5])
        return Rotation.from_euler("xy", angles, degrees=True).as_matrix()

    return tilt


def _share_tracked(nano, knows_up, period=1.2):
    tilt, session = _swaying(period), PanoramaSession(nano)
    scene, found = MovingScene(2, tilt=tilt), []
    for k in range(12):
        time = 0.2 * k
        image, truth = scene.render(time, SIZE)
        up = tilt(time).T @ UP if knows_up else None
        session.next_image(image, up)
        if not k:
            for i, click in _clicked(truth).items():
                session.add_prompt(Prompt(i, click[None], np.array([1])))
        instances = session.segment()
        for instance in instances.objects if k else ():
            true = truth == instance.object_id
            found.append(_iou(instances.labels == instance.object_id, true))
    return np.array(found)


def test_a_change_of_the_tilt_loses_no_object(nano):
    """Up to 18 degrees from image to image, where objects may move by 8."""
    assert np.degrees(max(
        sphere.angle_between(_swaying(1.2)(0.2 * k).T @ UP, _swaying(1.2)(0.2 * k + 0.2).T @ UP)
        for k in range(11)
    )) > 16  # fmt: skip
    found, without = (_share_tracked(nano, knows_up) for knows_up in (True, False))
    assert found.min() > 0.9
    assert (without < 0.5).mean() > 0.2


def test_an_unknown_tilt_between_known_ones_moves_nothing(nano):
    """An image without a transform: objects are where they were seen, the robot has not moved."""
    tilt = Rotation.from_euler("y", 20, degrees=True)
    scene = MovingScene(2, tilt=lambda _: tilt.as_matrix())
    session, up = PanoramaSession(nano), tilt.inv().apply(UP)
    for k, known in enumerate((up, None, None, up)):
        image, truth = scene.render(0.1 * k, SIZE)
        session.next_image(image, known)
        if not k:
            for i, click in _clicked(truth).items():
                session.add_prompt(Prompt(i, click[None], np.array([1])))
        instances = session.segment()
        assert all(instance.state == State.TRACKED for instance in instances.objects)


def test_a_lost_object_is_expected_where_the_camera_has_turned_it_to(nano):
    """It was lost in a level panorama; the camera turns left and is pitched."""
    session, scene = PanoramaSession(nano), MovingScene(2)
    image, truth = scene.render(0, SIZE)
    session.set_image(image, UP)
    session.add_prompt(Prompt(1, _clicked(truth)[5][None], np.array([1])))
    session.segment()
    before = session._objects[1].track.directions
    session.next_image(image, UP)
    session.give_up(1)
    session.instances()
    assert session._objects[1].lost_for == 1
    turn = Rotation.from_euler("ZY", [30, 25], degrees=True)
    session.next_image(turned(image, turn), turn.apply(UP))
    after = session._objects[1].track.directions
    # Of both, the heading is known to a degree, and the tilt to a step of two.
    assert np.degrees(sphere.angle_between(after, turn.apply(before))).max() < 3


def test_an_object_of_an_earlier_tilt_is_adopted_where_it_is_now(nano):
    scene = MovingScene(2)
    image, truth = scene.render(0, SIZE)
    turn = rotation_between(UP, np.array([0.5, -0.2, 0.8]))
    session = PanoramaSession(nano)
    session.next_image(turned(image, turn), turn.apply(UP))
    past = session.sibling()
    past.set_image(image, UP)
    click = _clicked(truth)[5]
    past.add_prompt(Prompt(5, click[None], np.array([1])))
    past.segment()
    session.adopt(past, 5)
    found = session.segment()
    (instance,) = found.objects
    assert instance.state == State.TRACKED
    assert _iou(found.labels == 5, turned(truth, turn, labels=True) == 5) > 0.9


@pytest.mark.parametrize("up", [(0, 0, 0), (np.nan, 0, 1), (0, 0, np.inf), (0, 1)])
def test_an_up_direction_that_is_none_is_refused_and_the_image_before_is_kept(
    random_model, panorama, up
):
    session = PanoramaSession(random_model)
    session.set_image(panorama)
    for give in (session.set_image, session.next_image):
        with pytest.raises(ValueError, match="it must be a vector"):
            give(panorama[:, ::-1].copy(), up)
    assert session.picture.panorama() is panorama
