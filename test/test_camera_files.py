"""camera_files: presets, what is written is read, and files with mistakes."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import yaml

from sap_ros.camera_files import presets, projection_of, read_camera, write_camera
from sap_ros.core import sphere
from sap_ros.core.projection import Equirectangular, TwoFisheyes
from sap_ros.synthesis.fisheyes import fisheyes_of


def test_the_presets_see_everything_and_look_forward_and_back():
    assert set(presets()) == {"insta360", "theta_s", "side_by_side", "stacked"}
    for name in presets():
        camera = read_camera(name)
        assert math.degrees(camera.overlap) == pytest.approx(10)
        half = camera.of_picture(tuple(side // 2 for side in camera.picture_size))
        assert half.panorama_size[0] == pytest.approx(camera.panorama_size[0] / 2, abs=2)
        for lens, forward in zip(camera.lenses, (1, -1), strict=True):
            assert lens.axis[0] == pytest.approx(forward)
            # The roll turns the picture upright: up in the picture so turned is up.
            up = lens.project(lens.rotation.T @ sphere.angles_to_direction(lens.yaw, 0.3))
            across, down = up[0] - lens.centre[0], up[1] - lens.centre[1]
            turned = math.sin(lens.roll) * across + math.cos(lens.roll) * down
            assert turned < -0.25 * lens.focal_length[1]


@pytest.mark.parametrize("name", ["insta360", "theta_s", "side_by_side", "stacked"])
def test_a_picture_in_a_presets_layout_gives_the_panorama_again(name, panorama):
    camera = read_camera(name)
    camera = camera.of_picture(tuple(side // 3 for side in camera.picture_size))
    again = TwoFisheyes(camera).open(fisheyes_of(panorama, camera)).panorama(512)
    assert np.abs(again.astype(int) - panorama).mean() < 2


def test_the_layout_of_the_insta360_driver():
    """Its equirectangular node turns the right half counter-clockwise to get the front, and the left half
    clockwise to get the back."""
    front, back = read_camera("insta360").lenses
    assert (front.name, back.name) == ("front", "back")
    assert front.centre[0] > back.centre[0]
    assert (math.degrees(front.roll), math.degrees(back.roll)) == (-90, 90)


def test_what_is_written_is_read(tmp_path):
    camera = read_camera("insta360")
    front, back = camera.lenses
    back = replace(
        back, pitch=0.01, translation=(-0.02, 0, 0), distortion=(-0.01, 0, 0, 0), fov=3.2
    )
    camera = replace(
        camera, lenses=(front, back), distance=3.5, any_size=False, panorama_width=2048, blend=0.05
    )
    path = tmp_path / "camera.yaml"
    write_camera(path, camera, "made by a test\nin two lines")
    again = read_camera(path)
    assert path.read_text().startswith("# made by a test\n# in two lines\n")
    assert list(tmp_path.iterdir()) == [path]
    for one, other in zip(camera.lenses, again.lenses, strict=True):
        for field in fields(one):
            was, is_now = getattr(one, field.name), getattr(other, field.name)
            assert is_now == (was if field.name == "name" else pytest.approx(was, abs=1e-6))
    assert (again.distance, again.panorama_width, again.any_size) == (3.5, 2048, False)
    assert again.blend == pytest.approx(0.05, abs=1e-6)
    write_camera(path, replace(camera, distance=math.inf))
    assert math.isinf(read_camera(path).distance)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("picture_size"), "the camera has no picture_size"),
        (lambda c: c.update(size=3), "the camera has the unknown key size"),
        (lambda c: c["lenses"].pop(), "lenses must be a list of two lenses"),
        (
            lambda c: c.update(distance="far"),
            "distance of the camera is 'far'; it must be a number",
        ),
        (lambda c: c.update(any_size="no"), "any_size is 'no'"),
        (lambda c: c.update(picture_size=[10.5, 4]), "picture_size is 10.5; it must be a whole"),
        (lambda c: c["lenses"][0].pop("centre"), "the first lens has no centre"),
        (lambda c: c["lenses"][1].update(fov=3), "the second lens has the unknown key fov"),
        (
            lambda c: c["lenses"][1].update(distortion=[0.1]),
            r"distortion of the second lens is \[0.1\]; it must be a list of 4 numbers",
        ),
        (
            lambda c: c["lenses"][1].update(focal_length=[-1, 5]),
            r"focal_length of the back lens is \[-1, 5\]; it must be above 0",
        ),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, change, named):
    values = yaml.safe_load(presets()["insta360"].read_text())
    change(values)
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=f"camera.yaml: {named}"):
        read_camera(path)


def test_files_that_are_no_camera_files(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text("a: [1")
    with pytest.raises(ValueError, match=r"camera.yaml is not valid yaml"):
        read_camera(path)
    path.write_text("3")
    with pytest.raises(ValueError, match="the camera must have the keys picture_size"):
        read_camera(path)
    with pytest.raises(ValueError, match=r"no camera file nothing.yaml, .* there are insta360"):
        read_camera("nothing.yaml")


def test_the_projection_of_a_name():
    assert isinstance(projection_of("equirectangular", ""), Equirectangular)
    assert isinstance(projection_of("dual_fisheye", "theta_s"), TwoFisheyes)
    for name, file, named in (
        ("cubemap", "", "projection is 'cubemap'; it must be one of equirectangular, dual_fisheye"),
        ("equirectangular", "theta_s", "projection is equirectangular; set it to dual_fisheye"),
        ("dual_fisheye", "", "it needs a camera file, or one of the presets insta360"),
    ):
        with pytest.raises(ValueError, match=named):
            projection_of(name, file)
