"""traversal: which views an object is looked for in; the views that hold it; no special place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view, warp_mask
from sap_ros.core.exploration import Frontier, ObjectViews
from sap_ros.core.framing import Framing, deepest_pixel, finest_fov, framed, spread
from sap_ros.core.fusion import ViewMask
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import Prompt, ViewPrompts
from sap_ros.core.scan import Scan
from sap_ros.core.views import PerspectiveViews, nearness

SIDE = 64
directions = st.tuples(st.floats(-np.pi, np.pi), st.floats(-np.pi / 2, np.pi / 2)).map(
    lambda angles: sphere.angles_to_direction(*angles)
)


def _frames():
    return PerspectiveViews(Panorama(np.zeros((512, 1024, 3), np.uint8)), SIDE, Scan())


def _disk(frames, frame, centre, radius):
    """What a perfect model finds of a disk on the sphere in a frame."""
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    view = frames.views[frame]
    offset = (np.stack([u, v], -1) - SIDE / 2) * (2 * np.tan(view.fov / 2) / (SIDE - 1))
    rays = np.concatenate([offset, np.ones((SIDE, SIDE, 1))], -1) @ view.rotation.T
    inside = sphere.angle_between(rays, np.broadcast_to(centre, rays.shape)) < radius
    return ViewMask(np.where(inside, 5.0, -5.0).astype(np.float32), 0.9, 5.0)


def _walk(traversal, frames, centre, radius):
    found = {}
    while (step := traversal.next(found)) is not None:
        assert step.view not in found, "a view was visited twice"
        found[step.view] = _disk(frames, step.view, centre, radius)
        assert len(found) <= 40
    return found


def _click(direction):
    return Prompt(1, np.asarray(direction)[None], np.array([1]))


@given(directions, st.floats(0.02, 0.3))
@settings(max_examples=25)
def test_the_frontier_sees_all_of_an_object_well_and_stops(direction, radius):
    frames = _frames()
    walk = Frontier(frames, ViewPrompts(frames, _click(direction)), Framing(), carry=True)
    found = _walk(walk, frames, direction, radius)
    assert set(walk.kept(found)) == set(found)
    assert len(found) <= 14  # at a pole all eight views of its row see the object alike
    rng = np.random.default_rng(0)
    spots = direction + 0.9 * radius / 2 * rng.normal(size=(100, 3)) / np.sqrt(3)
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    near = nearness(frames, spots)
    assert (near[list(found)].max(0) > np.minimum(0.55, near.max(0) - 0.1)).all()


def test_a_small_object_takes_one_view_and_one_all_over_the_sphere_takes_enough_to_cover_it():
    frames = _frames()
    ahead = np.array([1.0, 0, 0])
    pointing = ViewPrompts(frames, _click(ahead))
    assert len(_walk(Frontier(frames, pointing, Framing(), True), frames, ahead, 0.05)) == 1
    everywhere = _walk(Frontier(frames, pointing, Framing(settled=1.0), True), frames, ahead, 4.0)
    assert len(everywhere) == 24
    some = _walk(Frontier(frames, pointing, Framing(), True), frames, ahead, 4.0)
    rng = np.random.default_rng(0)
    spots = rng.normal(size=(500, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    assert (nearness(frames, spots)[list(some)].max(0) > 0).all()


def test_further_views_are_visited_beyond_the_frontier():
    frames = _frames()
    ahead = np.array([1.0, 0, 0])
    walk = Frontier(frames, ViewPrompts(frames, _click(ahead)), Framing(further=3), True)
    assert len(_walk(walk, frames, ahead, 0.05)) == 4


@given(directions, st.floats(0.04, 0.4), st.floats(0, 0.9), st.floats(0, 2 * np.pi))
@settings(max_examples=30)
def test_a_view_of_its_own_holds_an_object_whole(direction, radius, off, turn):
    """Wherever it is, and wherever on it the click is: not cut, in the middle, a few views at most."""
    frames = _frames()
    side = np.cross(direction, [0.0, 0, 1] if abs(direction[2]) < 0.9 else [1.0, 0, 0])
    side /= np.linalg.norm(side)
    side = np.cos(turn) * side + np.sin(turn) * np.cross(direction, side)
    click = np.cos(off * radius) * direction + np.sin(off * radius) * side
    walk = ObjectViews(frames, ViewPrompts(frames, _click(click)), Framing(zoom=16), carry=True)
    found = _walk(walk, frames, direction, radius)
    assert len(found) <= ObjectViews.MOST
    ((frame, mask),) = walk.kept(found).items()
    positive = mask.logits > 0
    assert positive.any()
    assert not positive[[0, -1]].any()
    assert not positive[:, [0, -1]].any()
    view = frames.views[frame]
    assert sphere.angle_between(view.rotation[:, 2], direction) < view.fov / 3


def test_an_object_too_wide_for_a_view_goes_on_over_the_scan():
    frames = _frames()
    ahead = np.array([1.0, 0, 0])
    walk = ObjectViews(frames, ViewPrompts(frames, _click(ahead)), Framing(), carry=True)
    found = _walk(walk, frames, ahead, 1.2)
    kept = walk.kept(found)
    assert len(kept) > 4
    assert all(frame < 24 for frame in kept)


@given(directions, st.floats(0.01, 0.9))
@settings(max_examples=30)
def test_a_framed_view_holds_what_it_is_given_with_the_margin(direction, spread):
    rng = np.random.default_rng(1)
    around = direction + spread / 2 * rng.uniform(-1, 1, (200, 3)) / np.sqrt(3)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    view = framed(around, 1.5)
    assert view is not None
    off = np.abs(direction_to_view(around, view, SIDE) - SIDE / 2).max() / ((SIDE - 1) / 2)
    assert off == pytest.approx(1 / 1.5, rel=0.05)


def test_what_lies_all_round_has_no_view():
    everywhere = np.concatenate([np.eye(3), -np.eye(3)])
    assert framed(everywhere, 1.5) is None
    assert framed(everywhere[[0, 3]], 1.5) is None


def test_zoom_ends_at_the_panoramas_resolution():
    fov = finest_fov(256, 4096, 1.0)
    assert 4096 / (2 * np.pi) == pytest.approx(255 / 2 / np.tan(fov / 2))
    frames = _frames()
    ahead = np.array([1.0, 0, 0])
    walk = ObjectViews(frames, ViewPrompts(frames, _click(ahead)), Framing(zoom=1), carry=True)
    found = _walk(walk, frames, ahead, 0.02)
    assert min(frames.views[i].fov for i in found) >= finest_fov(SIDE, 1024, 1.0) - 1e-6


@pytest.mark.parametrize("widest", [45, 90, 120])
def test_a_view_that_cuts_an_object_off_is_widened_up_to_the_widest(widest):
    frames, framing = _frames(), Framing(widest_degrees=widest)
    assert framing.widest == pytest.approx(np.radians(widest))
    first = frames.add(View(0.0, 0.0, 0.9 * framing.widest))
    at_the_border = sphere.angles_to_direction(-0.43 * framing.widest, 0.0)
    found = {first: _disk(frames, first, at_the_border, 0.1)}
    for known in (np.zeros((0, 3)), at_the_border[None]):
        wanted = framing.refitted(frames, first, found[first], known)
        assert wanted.fov == pytest.approx(framing.widest)
    prompts = ViewPrompts(frames, _click(at_the_border))
    walk = ObjectViews(frames, prompts, framing, carry=True, first=first)
    assert walk.next({}).view == first
    assert frames.views[walk.next(found).view].fov == pytest.approx(framing.widest)


def test_a_view_of_a_coarse_panorama_is_not_wider_than_the_widest():
    """The zoom's limit asks for a wide view there."""
    views = PerspectiveViews(Panorama(np.zeros((256, 512, 3), np.uint8)), 1024, Scan())
    assert finest_fov(1024, 512, 4.0) > np.radians(60)
    near = sphere.angles_to_direction(np.array([0.0, 0.1]), np.array([0.0, 0.1]))
    assert Framing(widest_degrees=60).fitted(views, near).fov == pytest.approx(np.radians(60))


@given(st.floats(-np.pi, np.pi), st.floats(-1.5, 1.5), st.floats(20, 90), directions)
@settings(max_examples=25)
def test_a_mask_is_carried_to_another_view_by_rotation_alone(yaw, pitch, fov, direction):
    frames = _frames()
    one, other = View(0.2, 0.1), View(yaw, pitch, np.radians(fov))
    a, b = frames.add(one), frames.add(other)
    mask = _disk(frames, a, direction, 0.5).logits
    there = warp_mask(mask, one, other, SIDE)
    true = _disk(frames, b, direction, 0.5).logits
    known = np.isfinite(there)
    border = np.abs(there) < 4.99  # where the mask's edge is mixed
    assert (there > 0)[known & ~border].tolist() == (true > 0)[known & ~border].tolist()


def test_the_middle_of_a_mask_is_its_deepest_pixel():
    mask = np.zeros((40, 40), bool)
    mask[10:31, 4:35] = True
    u, v = deepest_pixel(mask)
    assert mask[int(v), int(u)]
    assert v == pytest.approx(20.5, abs=1)
    assert deepest_pixel(np.zeros((4, 4), bool)) is None
    mask[:] = False
    mask[:, :20] = True  # it enters from a side
    u, v = deepest_pixel(mask)
    assert 8 < u < 12
    assert 8 < v < 32


@pytest.mark.parametrize("thick", [1, 2, 5])
def test_a_thin_mask_is_spread_over(thick):
    frames = _frames()
    logits = np.full((SIDE, SIDE), -9.0, np.float32)
    logits[:, 9 : 9 + thick] = 9
    where = spread(frames, 0, ViewMask(logits, 1.0, 1.0), np.zeros((0, 3)))
    at = frames.locate(0, where)
    assert np.ptp(at[:, 1]) > 0.8 * SIDE
    assert (abs(at[:, 0] - 9 - thick / 2) <= thick).all()


def test_all_that_is_clicked_is_looked_at():
    frames = _frames()
    far = sphere.angles_to_direction(np.array([0.0, 2.5]), np.array([0.1, -0.4]))
    prompt = Prompt(1, far, np.array([1, 1]))
    for begin in (
        lambda p: Frontier(frames, p, Framing(), carry=True),
        lambda p: ObjectViews(frames, p, Framing(), carry=False),
    ):
        walk = begin(ViewPrompts(frames, prompt))
        found = _walk(walk, frames, far[0], 0.05)
        near = nearness(frames, far)[list(walk.kept(found))]
        assert (near.max(0) > 0).all()


@pytest.mark.parametrize(
    "bad", [{"settled": 2}, {"padding": 0.5}, {"widest_degrees": 150}, {"further": -1}]
)
def test_bad_framings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Framing(**bad)
