"""lenses: the images of two lenses on two topics, put together by their stamps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.camera_files import read_camera
from sap_ros.core.projection import Equirectangular
from sap_ros.engine.events import Image
from sap_ros.lenses import LensPairs, TopicReader

CAMERA = read_camera("side_by_side").of_picture((640, 320))
MS = 10**6


def image(stamp, shade=0, size=(320, 320), frame="front_link"):
    return Image(size, lambda: np.full((size[1], size[0], 3), shade, np.uint8), stamp, frame)


def pairs_of(arrivals, tolerance=0.02, tell=pytest.fail):
    """The pairs of images (lens, stamp), as the stamps of both."""
    pairs, found = LensPairs(CAMERA, tell, tolerance), []
    for lens, stamp in arrivals:
        # Its half of the picture shows which image was taken: its stamp in ms.
        pair = pairs.put(lens, image(stamp, stamp // MS % 256))
        if pair is not None:
            picture = pair.read()
            found.append((picture[0, 0, 0], picture[0, -1, 0]))
            assert pair.stamp // MS % 256 == picture[0, 0, 0]
    return found, pairs


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_lost_and_late_images_never_pair_their_partner_with_a_neighbour(data):
    period, shots = 40, 60
    offset = data.draw(st.integers(-12, 12))
    lost = data.draw(st.sets(st.tuples(st.integers(0, 1), st.integers(6, shots - 1)), max_size=30))
    late = data.draw(st.dictionaries(st.integers(0, shots - 1), st.integers(0, 150), max_size=10))
    jitter = data.draw(st.lists(st.integers(-2, 2), min_size=2 * shots, max_size=2 * shots))
    arrivals, at = [], [0.0, 0.0]
    for k in range(shots):
        for lens in (0, 1):
            if (lens, k) in lost:
                continue
            stamp = 1000 + k * period + lens * offset + jitter[2 * k + lens]
            # A topic's messages keep their order, so those behind a late one are late as well.
            at[lens] = max(at[lens], stamp + (late.get(k, 0) if lens else 0))
            arrivals.append((at[lens], lens, k, stamp))
    shot_of = {(lens, stamp): k for _, lens, k, stamp in arrivals}
    pairs = LensPairs(CAMERA, pytest.fail, tolerance=1.0)
    found = []
    for _, lens, _, stamp in sorted(arrivals):
        pair = pairs.put(
            lens, replace(image(stamp * MS), read=lambda s=stamp: np.full((1, 1, 1), s))
        )
        if pair is not None:
            first, second = pair.read().ravel()
            assert shot_of[0, first] == shot_of[1, second]
            found.append(shot_of[0, first])
    assert found == sorted(set(found))
    assert found == [k for k in range(shots) if (0, k) not in lost and (1, k) not in lost]


def test_the_first_images_wait_for_no_estimate_of_the_period():
    assert pairs_of([(0, 0), (1, 5 * MS)])[0] == [(0, 5)]
    found, pairs = pairs_of([(1, 5 * MS), (0, 40 * MS), (1, 45 * MS)])  # joined in the middle
    assert found == [(40, 45)]
    assert pairs.unpaired == 1


def test_stamps_that_are_too_far_apart_are_told_once():
    said = []
    arrivals = [(lens, (1000 + 40 * k + 500 * lens) * MS) for k in range(30) for lens in (0, 1)]
    found, _ = pairs_of(arrivals, tolerance=0.01, tell=said.append)
    assert not found
    assert len(said) == 1
    assert "at most 0.010 s" in said[0]
    assert "lens_tolerance" in said[0]


def test_a_silent_lens_keeps_few_images():
    _, pairs = pairs_of([(0, k * MS) for k in range(1000)])
    assert len(pairs._waiting[0]) <= 10


@pytest.mark.parametrize(
    ("camera", "size", "first"),
    [
        ("side_by_side", (320, 320), np.s_[:, :320]),
        ("insta360", (320, 320), np.s_[:, 320:]),  # its front lens is in the right half
        ("stacked", (320, 320), np.s_[:320]),
    ],
)
def test_each_lens_is_where_the_camera_file_has_it(camera, size, first):
    camera = read_camera(camera)
    pairs = LensPairs(camera, pytest.fail)
    assert pairs.put(1, image(7 * MS, 200, frame="back_link")) is None
    pair = pairs.put(0, image(5 * MS, 100))
    picture = pair.read()
    assert picture[first].max() == 100
    assert (picture == 100).mean() == 0.5
    assert (pair.stamp, pair.frame_id) == (5 * MS, "front_link")
    assert pair.size == camera.of_picture(picture.shape[1::-1]).panorama_size


def test_images_that_do_not_fit_are_one_line_and_the_next_pair_is_complete():
    pairs = LensPairs(CAMERA, pytest.fail)
    pairs.put(0, image(0))
    with pytest.raises(ValueError, match="front lens is 320x320, that of the back lens 320x160"):
        pairs.put(1, image(0, size=(320, 160)))
    pairs.put(0, image(40 * MS, size=(100, 60)))
    with pytest.raises(ValueError, match="the picture is 200x60"):
        pairs.put(1, image(40 * MS, size=(100, 60)))
    pairs.put(0, image(80 * MS))
    assert pairs.put(1, image(80 * MS)) is not None


def test_a_lens_that_cannot_be_read_is_named():
    def broken():
        raise ValueError("the image's encoding is 'yuv422'")

    pairs = LensPairs(CAMERA, pytest.fail)
    pairs.put(0, image(0))
    pair = pairs.put(1, replace(image(0), read=broken))
    with pytest.raises(ValueError, match="the back lens: the image's encoding is 'yuv422'"):
        pair.read()


def test_two_topics_need_two_lenses():
    with pytest.raises(ValueError, match="dual_fisheye"):
        TopicReader(("/a", "/b"), Equirectangular(), pytest.fail)
    with pytest.raises(ValueError, match="lens_tolerance is -1"):
        LensPairs(CAMERA, pytest.fail, -1)
