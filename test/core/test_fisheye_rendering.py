"""fisheye_rendering: views and the panorama, straight from a picture with two lenses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import View, view_to_direction
from sap_ros.core.fisheye import DualFisheye, Lens
from sap_ros.core.fisheye_rendering import (
    FisheyeRenderer,
    TorchFisheyeRenderer,
    view_table,
)
from sap_ros.core.projection import Panorama, TwoFisheyes
from sap_ros.core.scan import Scan


def camera_of(side=320, distance=math.inf, fov=196, **changes):
    """Two lenses side by side, each in a square of ``side`` pixels, turned as those of an Insta360."""
    shared = {
        "focal_length": (0.27 * side, 0.269 * side),
        "fov": math.radians(fov),
        "distortion": (0.04, -0.01, 0.0, 0.0),
    }
    front = Lens(
        "front", (1.5 * side + 1, side / 2), roll=-math.pi / 2, translation=(0.02, 0, 0), **shared
    )
    back = Lens(
        "back", (side / 2, side / 2 - 2), yaw=math.radians(179), pitch=math.radians(1),
        roll=math.pi / 2, translation=(-0.02, 0, 0.01), **shared,
    )  # fmt: skip
    return DualFisheye((front, back), (2 * side, side), distance=distance, **changes)


def position_picture(camera):
    """A float picture whose pixels hold their own direction: what is rendered tells from where."""
    width, height = camera.picture_size
    v, u = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([u, v], -1)
    # A little beyond the circles too, from which pixels on the rim are interpolated.
    wide = replace(
        camera,
        lenses=tuple(replace(lens, fov=lens.fov + 0.05) for lens in camera.lenses),
    )
    picture = np.zeros((height, width, 3), np.float32)
    for lens in (0, 1):
        seen = wide.to_directions(pixels, lens)
        good = np.isfinite(seen[..., 0])
        picture[good] = seen[good]
    return picture


CAMERAS = {d: camera_of(distance=d) for d in (0.6, math.inf)}
PICTURES = {d: position_picture(camera) for d, camera in CAMERAS.items()}
PIXEL = 1 / CAMERAS[math.inf].resolution  # angle of a pixel of the picture, in rad


# Anywhere, and on the border between the lenses, at the poles and straight behind.
views = st.one_of(
    st.builds(View, st.floats(-3.2, 3.2), st.floats(-1.57, 1.57), st.floats(0.3, 1.7)),
    st.sampled_from(Scan().views),
    st.builds(View, st.sampled_from([-1.57, 1.57, 0.0, 3.14]), st.floats(-1.57, 1.57)),
    st.builds(
        View, st.floats(-3.2, 3.2), st.floats(-1.57, 1.57), st.just(1.57), st.floats(-3.2, 3.2)
    ),
)


@given(views, st.sampled_from([0.6, math.inf]))
@settings(max_examples=60)
def test_a_view_shows_each_direction_where_it_is(view, distance):
    side = 140
    shown = FisheyeRenderer(PICTURES[distance], CAMERAS[distance]).render(view, side)
    v, u = np.mgrid[:side, :side] + 0.5
    true = view_to_direction(np.stack([u, v], -1), view, side)
    assert sphere.angle_between(shown, true).max() < 0.05 * PIXEL


@pytest.mark.parametrize("distance", [0.6, math.inf])
def test_the_panorama_shows_each_direction_where_it_is(distance):
    shown = FisheyeRenderer(PICTURES[distance], CAMERAS[distance]).panorama(540)
    v, u = np.mgrid[:270, :540] + 0.5
    true = sphere.pixel_to_direction(np.stack([u, v], -1), (540, 270))
    assert sphere.angle_between(shown, true).max() < 0.05 * PIXEL


@pytest.mark.parametrize("distance", [0.6, math.inf])
@pytest.mark.parametrize("side", [40, 140])  # reduced, as it is
def test_views_are_those_of_the_other_renderer(distance, side):
    waves = np.sin(PICTURES[math.inf] * 20) * (np.abs(PICTURES[math.inf]) > 0)
    picture = np.round(127 + 100 * waves).astype(np.uint8)
    camera = CAMERAS[distance]
    plain = FisheyeRenderer(picture, camera)
    ours = TorchFisheyeRenderer(picture, camera, torch.device("cpu"))
    own = View(1.57, 0.1, 0.5), View(-1.5, 1.5), View(3.1, 0.0, 0.4), View(1.5, 0.2, 1.5, 0.7)
    for view in (*Scan().views, *own):
        shown = ours.render(view, side)
        assert shown.shape == (side, side, 3)
        # cv2.remap's coordinates have steps of 1/32 pixel.
        assert np.abs(plain.render(view, side) - shown.numpy()).max() < 4


@given(views, st.floats(-3.1, 3.1))
@settings(max_examples=20)
def test_a_rotation_of_the_rig_rotates_the_result(view, turn):
    camera = camera_of()
    lenses = tuple(replace(lens, yaw=lens.yaw + turn) for lens in camera.lenses)
    noise = np.random.default_rng(0).integers(0, 256, (320, 640, 3), np.uint8)
    plain = FisheyeRenderer(noise, camera).render(view, 100)
    turned = FisheyeRenderer(noise, replace(camera, lenses=lenses)).render(
        replace(view, yaw=view.yaw + turn), 100
    )
    differ = np.abs(plain.astype(int) - turned).max(-1)
    assert (differ > 16).mean() < 0.001  # cv2.remap's coordinates have steps of 1/32 pixel


@given(views)
@settings(max_examples=20)
def test_a_picture_of_one_colour_has_no_seam(view):
    plain = np.full((320, 640, 3), 200, np.uint8)
    assert (FisheyeRenderer(plain, camera_of()).render(view, 100) == 200).all()


def test_both_lenses_are_blended_over_the_band_and_nowhere_else():
    camera = camera_of(blend=math.radians(6))
    picture = np.zeros((320, 640, 3), np.uint8)
    picture[:, 320:] = 255  # the front lens is white, the back one black
    row = FisheyeRenderer(picture, camera).panorama(720)[180, :, 0]  # half a degree a pixel
    mixed = (row > 2) & (row < 253)
    assert mixed.sum() == pytest.approx(2 * 12, abs=3)
    assert (np.diff(row[90:270].astype(int)) >= 0).all()
    hard = FisheyeRenderer(picture, replace(camera, blend=0.0)).panorama(720)[180, :, 0]
    assert ((hard > 2) & (hard < 253)).sum() <= 2


def test_what_no_lens_sees_is_black():
    camera = camera_of(fov=170)
    shown = FisheyeRenderer(np.full((320, 640, 3), 200, np.uint8), camera).panorama(720)
    assert (shown[180, 175:185] == 0).all()  # to the left, 5 of the 10 degrees of the gap
    assert (shown[180, 300:420] == 200).all()


def test_a_fine_picture_is_reduced_before_a_small_view_is_rendered():
    picture = np.zeros((1280, 2560, 3), np.uint8)
    picture[:, ::2] = 255
    shown = FisheyeRenderer(picture, camera_of(1280)).render(View(0.0, 0.0), 64)
    assert np.abs(shown.astype(int) - 127).max() < 20


def test_a_view_within_one_lens_needs_one_table_and_any_view_little_more():
    camera = camera_of()
    ahead = view_table(camera, View(0.0, 0.0), 256)
    assert [len(band.parts) for band in ahead.bands] == [1]
    tables = [view_table(camera, view, 256) for view in Scan().views]
    for table in tables:
        assert all(1 <= len(band.parts) <= 2 for band in table.bands)
    assert sum(table.nbytes for table in tables) < 1.3 * len(tables) * ahead.nbytes


def test_the_projection_opens_good_pictures_and_names_what_is_wrong_with_others():
    projection = TwoFisheyes(camera_of())
    good = np.full((320, 640, 3), 90, np.uint8)
    picture = projection.open(good)
    assert picture.size == projection.panorama_size((640, 320))
    assert picture.panorama().shape == (picture.size[1], picture.size[0], 3)
    assert picture.panorama(512).shape == (256, 512, 3)
    covered = good.copy()
    covered[:, :320] = 3
    with pytest.raises(ValueError, match="the back lens is black"):
        projection.open(covered)
    with pytest.raises(ValueError, match=r"the picture is 600x300, .* for 640x320"):
        projection.open(good[:300, :600])
    with pytest.raises(ValueError, match=r"uint8, \(H, W, 3\)"):
        projection.open(good[..., 0])


def test_an_equirectangular_picture_is_its_own_panorama(panorama):
    assert Panorama(panorama).panorama() is panorama
    assert Panorama(panorama).panorama(256).shape == (128, 256, 3)
