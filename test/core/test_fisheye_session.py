"""Sessions on pictures with two fisheye lenses: masks and bearings as on the panorama of the same scene."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sap_ros.camera_files import read_camera
from sap_ros.core import sphere
from sap_ros.core.instances import measure
from sap_ros.core.loading import load_model
from sap_ros.core.projection import TwoFisheyes
from sap_ros.core.prompts import from_pixels
from sap_ros.core.search import STRATEGIES
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.metrics import iou
from sap_ros.synthesis.moving import MovingScene


@pytest.fixture(scope="module")
def camera():
    """A camera like an Insta360 with lenses that are 2.6 cm apart, for pictures of 1024x512."""
    known = read_camera("insta360").of_picture((1024, 512))
    front, back = known.lenses
    lenses = (
        replace(
            front, translation=(0.013, 0.0, 0.0), distortion=(0.02, -0.004, 0.0, 0.0), fov=3.25
        ),
        replace(
            back, translation=(-0.013, 0.0, 0.0), yaw=math.radians(179), pitch=math.radians(-1)
        ),
    )
    return replace(known, lenses=lenses, distance=3.0, any_size=False)


@pytest.fixture(scope="module")
def scene(camera):
    """By seed: the picture, the panorama of the same scene, and its true labels."""
    size = TwoFisheyes(camera).panorama_size(camera.picture_size)
    made = {}
    for seed in (0, 1):
        room = MovingScene(seed)
        made[seed] = (room.render_fisheye(0.0, camera), *room.render(0.0, size))
    return made


def _clicked(session, labels, count=6):
    for i in range(1, count + 1):
        pixel = sphere.direction_to_pixel(centre_click(labels == i), session.size)
        session.add_prompt(from_pixels(i, [tuple(pixel)], session.size))
    return session


def test_masks_and_bearings_are_those_on_the_panorama(camera, scene):
    model = load_model()
    overlaps, off = {"fisheyes": [], "panorama": []}, []
    for picture, panorama, labels in scene.values():
        for name, projection, image in (
            ("fisheyes", TwoFisheyes(camera), picture),
            ("panorama", None, panorama),
        ):
            session = PanoramaSession(model, projection=projection)
            session.set_image(image)
            found = _clicked(session, labels).segment()
            assert found.labels.shape == labels.shape
            overlaps[name] += [iou(found.labels == i, labels == i) for i in range(1, 7)]
            if name == "fisheyes":
                for instance in found.objects:
                    true = measure(labels == instance.object_id, instance.object_id, 1.0)
                    seen, right = (
                        sphere.angles_to_direction(o.azimuth, o.elevation) for o in (instance, true)
                    )
                    off.append(math.degrees(sphere.angle_between(seen, right)))
    assert np.mean(overlaps["fisheyes"]) > np.mean(overlaps["panorama"]) - 0.01
    assert np.mean(off) < 0.2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_fisheyes(random_model, camera, scene, strategy):
    picture, _, labels = scene[0]
    session = PanoramaSession(random_model, strategy, projection=TwoFisheyes(camera))
    session.set_image(picture)
    found = _clicked(session, labels, 1).segment()
    assert found.labels.shape == labels.shape
    assert found.labels.any()
    session.next_image(picture)
    assert session.segment().labels.shape == labels.shape


def test_a_picture_that_cannot_be_used_leaves_the_session_as_it_was(random_model, camera, scene):
    picture, _, labels = scene[0]
    session = PanoramaSession(random_model, projection=TwoFisheyes(camera))
    session.set_image(picture)
    before = _clicked(session, labels, 1).segment()
    with pytest.raises(ValueError, match="the picture is 512x256"):
        session.next_image(picture[:256, :512])
    covered = picture.copy()
    covered[:, 512:] = 0
    with pytest.raises(ValueError, match="the front lens is black"):
        session.next_image(covered)
    np.testing.assert_array_equal(session.instances().labels, before.labels)
    other = session.sibling()
    other.set_image(picture)
    assert other.size == session.size
