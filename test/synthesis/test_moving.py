"""moving: exact masks, and an image that agrees with its point cloud."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from sap_ros.camera_files import read_camera
from sap_ros.core import sphere
from sap_ros.files import read_panorama
from sap_ros.synthesis.moving import MovingScene, video_writer

SIZE = (512, 256)


def test_all_objects_are_seen_and_the_same_seed_gives_the_same_scene():
    image, truth = MovingScene(3).render(1.0, SIZE)
    assert set(np.unique(truth)) == {0, 1, 2, 3, 4, 5, 6}
    again, _ = MovingScene(3).render(1.0, SIZE)
    np.testing.assert_array_equal(image, again)
    other, _ = MovingScene(4).render(1.0, SIZE)
    assert (image != other).any()


def test_objects_and_the_robot_move():
    scene = MovingScene(0)
    first, later = scene.render(0, SIZE)[1], scene.render(1.0, SIZE)[1]
    assert all(((first == i) != (later == i)).any() for i in range(1, 7))


def test_the_lidar_sees_what_the_camera_sees():
    scene = MovingScene(0)
    _, truth = scene.render(2.0, SIZE)
    points, ids = scene.scan(2.0)
    pixels = sphere.direction_to_pixel(points, SIZE).astype(int)
    agree = truth[pixels[:, 1].clip(0, 255), pixels[:, 0].clip(0, 511)] == ids
    assert agree.mean() > 0.98
    assert len(set(ids.tolist()) - {0}) >= 3
    for i, solid in enumerate(scene.solids, 1):
        eye, _ = scene.pose(2.0)
        away = np.linalg.norm(points[ids == i], axis=1)
        to_centre = np.linalg.norm(solid.centre(2.0) - eye)
        assert (away < to_centre + solid.half.max() * 2).all()
        assert (away > to_centre - solid.half.max() * 2).all()


@pytest.fixture
def camera():
    known = read_camera("insta360").of_picture((512, 256))
    front, back = known.lenses
    lenses = (
        replace(front, translation=(0.02, 0, 0)),
        replace(back, translation=(-0.02, 0, 0), pitch=0.02),
    )
    return replace(known, lenses=lenses, any_size=False)


def test_the_lenses_see_the_scene_from_where_they_are(camera):
    """Each pixel has the colour of the scene along its ray from its lens."""
    scene = MovingScene(0)
    picture = scene.render_fisheye(2.0, camera)
    _, ids = scene.scan(2.0)
    points, _ = scene.scan(2.0)
    for lens in camera.lenses:
        towards = points - np.array(lens.translation)
        pixels = lens.project(towards @ lens.rotation)
        seen = np.isfinite(pixels[:, 0])
        assert 0.4 < seen.mean() < 0.6
        u, v = (pixels[seen] - 0.5).round().astype(int).T
        on_object = ids[seen] > 0
        saturation = np.ptp(picture[v, u].astype(int), axis=1)
        assert (
            np.median(saturation[on_object]) > 80
        )  # the objects are colourful, the walls are pale
        assert np.median(saturation[~on_object]) < 60
    assert (picture[:5, :5] == 0).all()


def test_a_camera_gets_its_pictures_beside_the_video(tmp_path, camera):
    video_writer(tmp_path, (512, 256), 1, 4.0, camera=camera)(5)
    shown = cv2.imread(str(tmp_path / "Fisheyes" / "00000005" / "00000.png"))[..., ::-1]
    np.testing.assert_array_equal(shown, MovingScene(5).render_fisheye(0.0, camera))
    assert read_camera(tmp_path / "camera.yaml").picture_size == (512, 256)


def test_videos_are_written_and_gone_on_with(tmp_path):
    video_writer(tmp_path, (512, 256), 2, 4.0)(5)
    first = tmp_path / "JPEGImages" / "00000005" / "00000.jpg"
    labels = cv2.imread(str(tmp_path / "Annotations" / "00000005" / "00001.png"), -1)
    image, true = MovingScene(5).render(0.25, (512, 256))
    assert (labels == true).all()
    shown = read_panorama(first.with_name("00001.jpg")).astype(int)
    assert np.abs(shown - image).mean() < 4  # JPEG
    assert np.abs(shown - image[..., ::-1]).mean() > 8  # the channels are in their places
    before = first.stat().st_mtime_ns
    video_writer(tmp_path, (512, 256), 3, 4.0)(5)
    assert first.stat().st_mtime_ns == before
    assert len(list(first.parent.iterdir())) == 3


def _areas(scene, times):
    """The solid angle of each object at some times (T, 6)."""
    size = 128, 64
    weights = sphere.row_solid_angles(size)
    shown = [scene.render(t, size)[1] for t in times]
    return np.array([[weights @ (ids == i).sum(1) for i in range(1, 7)] for ids in shown])


def test_pillars_hide_an_object_for_seconds_and_change_nothing_else():
    hidden, bare = MovingScene(3, occluders=1), MovingScene(3, occluders=1)
    assert len(hidden.pillars) == 1
    bare.pillars, times = (), np.arange(2, 17, 0.5)
    with_pillar, without = _areas(hidden, times), _areas(bare, times)
    assert (with_pillar <= without + 1e-9).all()
    share = with_pillar / np.maximum(without, 1e-9)
    seconds = 0.5 * ((share < 0.25) & (without > 0.005)).sum(0)
    assert 1 <= seconds.max() <= 8  # of the object that the pillar is for; it may pass twice
    image, ids = hidden.render(float(times[share.min(1).argmin()]), SIZE)
    clear, true = bare.render(float(times[share.min(1).argmin()]), SIZE)
    same = ids == true
    assert set(np.unique(ids[~same])) == {0}  # a pillar is background
    assert (image[ids > 0] == clear[ids > 0]).all()


def test_twins_look_alike_and_have_ids_of_their_own():
    scene = MovingScene(1, twins=True)
    for one, twin in zip(scene.solids[:3], scene.solids[3:], strict=True):
        assert (one.kind, one.colour) == (twin.kind, twin.colour)
        np.testing.assert_array_equal(one.half, twin.half)
        apart = sphere.angle_between(one.home * [1, 1, 0], twin.home * [1, 1, 0])
        assert np.radians(30) <= apart <= np.radians(60)
        assert (one.swing != twin.swing).any()
    image, ids = scene.render(0.0, SIZE)
    assert set(np.unique(ids)) == set(range(7))
    for i in (1, 2, 3):  # the same hue: light and distance differ
        one, twin = (image[ids == k].astype(float).mean(0) for k in (i, i + 3))
        assert np.abs(one / one.sum() - twin / twin.sum()).max() < 0.02


def test_without_pillars_and_twins_the_drives_are_as_before():
    plain, scene = MovingScene(5), MovingScene(5, occluders=0, twins=False)
    np.testing.assert_array_equal(plain.render(2.0, SIZE)[0], scene.render(2.0, SIZE)[0])
    assert not plain.pillars
    with pytest.raises(ValueError, match="-1"):
        MovingScene(0, occluders=-1)
