"""redetection: a lost object is found again, and what looks like it is not taken for it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sap_ros.core import sphere
from sap_ros.core.appearance import FOUND_FAR, FOUND_IN_VIEW, Appearances, similar_places
from sap_ros.core.camera import View
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.framing import Framing
from sap_ros.core.fusion import ViewMask
from sap_ros.core.instances import State
from sap_ros.core.loading import load_model
from sap_ros.core.motion import Following, turn_between
from sap_ros.core.network import Features
from sap_ros.core.panorama import Region
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import POSITIVE, Prompt, ViewPrompt
from sap_ros.core.redetection import Candidate, Redetection, on_another
from sap_ros.core.scan import Scan
from sap_ros.core.session import PanoramaSession
from sap_ros.core.tracked_object import Distractor, TrackedObject
from sap_ros.core.tracker import answers
from sap_ros.core.views import PerspectiveViews
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


def _towards(degrees):
    return sphere.angles_to_direction(np.radians(degrees), 0.0)


def _tracked(degrees, lost_for=0):
    """An object 10 degrees wide that was found at an azimuth in degrees."""
    tracked = TrackedObject(Prompt(1, _towards(degrees)[None], np.array([1])))
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), SIZE)
    mask = rays @ _towards(degrees) > np.cos(np.radians(5))
    tracked.note(Region(0, 0, SIZE[1], SIZE[0]), mask, SIZE)
    tracked.appearances = Appearances(lambda: np.ones(4, np.float32))
    tracked.lost_for = lost_for
    return tracked


def _candidate(degrees, likeness=0.9, least=FOUND_IN_VIEW):
    looks, mask = np.ones(4, np.float32), ViewMask(np.full((16, 16), -1, np.float32), 0.9, 1.0)
    return Candidate(0, mask, _towards(degrees), np.radians(5), looks, likeness, least)


def _redetection(tracked, others=()):
    views = PerspectiveViews(Panorama(np.zeros((256, 512, 3), np.uint8)), 64, Scan())
    return Redetection(SimpleNamespace(views=views), tracked, Following(margin=8), others)


def _azimuths(directions):
    return sorted(round(float(np.degrees(sphere.direction_to_angles(d)[0]))) for d in directions)


def test_what_looks_like_the_object_beyond_its_reach_is_remembered_and_followed():
    tracked = _tracked(0)
    left = _redetection(tracked).possible([_candidate(4), _candidate(30), _candidate(90)])
    assert _azimuths(c.direction for c in left) == [4, 90]  # 90 degrees: nothing is said of it
    assert _azimuths(d.direction for d in tracked.distractors) == [30]
    tracked.lost_for = 6
    # Where the object can have gone by now: the distractor has moved there, a candidate is new.
    left = _redetection(tracked).possible([_candidate(24), _candidate(-20)])
    assert _azimuths(c.direction for c in left) == [-20]
    assert _azimuths(d.direction for d in tracked.distractors) == [24]


def test_what_does_not_look_like_it_is_no_distractor():
    tracked = _tracked(0)
    assert not _redetection(tracked).possible([_candidate(30, likeness=0.3)])
    assert not tracked.distractors


def test_two_candidates_are_not_explained_by_one_distractor():
    tracked = _tracked(0, lost_for=8)
    tracked.distractors = [Distractor(_towards(20), 0.9)]
    left = _redetection(tracked).possible([_candidate(18), _candidate(10)])
    assert _azimuths(c.direction for c in left) == [10]


def test_what_is_more_like_the_object_than_a_distractor_was_is_not_that_distractor():
    """A pillar that resembles it a little hides it; it comes out at the same place."""
    tracked = _tracked(0, lost_for=8)
    tracked.distractors = [Distractor(_towards(10), 0.6)]
    left = _redetection(tracked).possible([_candidate(9, likeness=0.65)])
    assert not left  # the pillar again
    left = _redetection(tracked).possible([_candidate(9, likeness=0.8)])
    assert _azimuths(c.direction for c in left) == [9]


def test_a_candidate_needs_the_less_likeness_the_nearer_it_is(monkeypatch):
    tracked = _tracked(0, lost_for=3)  # likely within 21 degrees
    redetection = _redetection(tracked)
    least = []
    monkeypatch.setattr(redetection, "_decoded", lambda view, click, limit: least.append(limit))
    logits = np.full((16, 16), -1, np.float32)
    logits[7:9, 7:9] = 1
    for degrees in (5, 15, 60):
        view = redetection._encoded.views.add(View(np.radians(degrees), 0.0))
        mask = ViewMask(logits, 0.9, 1.0)
        found = replace(_candidate(degrees, least=0.55), view=view, mask=mask)
        redetection.verified(found, Framing())
    assert least == sorted(least)
    assert least[1:] == [pytest.approx(FOUND_IN_VIEW), pytest.approx(FOUND_FAR)]
    assert least[0] < FOUND_IN_VIEW


def test_a_candidate_too_wide_for_a_view_of_its_own_must_be_as_alike_as_in_one():
    redetection = _redetection(_tracked(0, lost_for=3))
    view = redetection._encoded.views.add(View(0.0, 0.0))
    mask = ViewMask(np.ones((16, 16), np.float32), 0.9, 1.0)
    found = replace(_candidate(0, 0.7, 0.55), view=view, mask=mask, radius=np.radians(40))
    checked = redetection.verified(found, Framing())
    assert checked.least == FOUND_IN_VIEW
    assert redetection.choose([checked]) is None


def test_places_that_are_taken_are_not_proposed():
    """Whatever they look like."""
    torch.manual_seed(0)
    features = Features([torch.randn(256, 1, 8)], [(16, 16)])
    looks = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    all_places = similar_places(features, looks, 4)
    taken = all_places[:1] + 0.02
    left = similar_places(features, looks, 3, taken)
    assert not (np.abs(left - all_places[0]).max(1) < 1 / 32).any()
    everywhere = (np.argwhere(np.ones((16, 16))) + 0.5) / 16
    assert similar_places(features, looks, 3, everywhere).shape == (0, 2)


def test_a_distractor_that_is_seen_no_more_is_forgotten_and_their_number_is_bounded():
    tracked = _tracked(0, lost_for=8)
    tracked.distractors = [Distractor(_towards(20), 0.9)]
    for _ in range(12):
        _redetection(tracked).possible([])
        assert len(tracked.distractors) == 1
    _redetection(tracked).possible([])
    assert not tracked.distractors
    tracked = _tracked(0)
    far = [_candidate(degrees) for degrees in range(-58, 59, 6) if abs(degrees) > 14]
    _redetection(tracked).possible(far)
    assert len(tracked.distractors) == 8


def test_an_object_that_is_tracked_is_not_taken():
    tracked, other, lost = _tracked(0, lost_for=3), _tracked(10), _tracked(-10, lost_for=1)
    left = _redetection(tracked, [other, lost]).possible([_candidate(12), _candidate(-10)])
    assert _azimuths(c.direction for c in left) == [-10]


def test_a_mask_that_holds_a_tracked_object_too_is_not_taken():
    """An object comes back beside its twin: a click between the two may mask both."""
    tracked, other = _tracked(0, lost_for=3), _tracked(10)
    redetection = _redetection(tracked, [other])
    view = redetection._encoded.views.add(View(np.radians(10), 0.0))
    logits = np.full((64, 64), -1, np.float32)
    beside = replace(_candidate(17), view=view, mask=ViewMask(logits.copy(), 0.9, 1.0))
    beside.mask.logits[28:36, 20:28] = 1
    both = replace(beside, mask=ViewMask(logits, 0.9, 1.0))
    both.mask.logits[28:36, 20:36] = 1
    assert redetection.possible([beside]) == [beside]
    assert not redetection.possible([both])


def test_a_lost_table_is_found_with_a_tracked_cup_on_it():
    tracked, cup = _tracked(10, lost_for=3), _tracked(10)
    redetection = _redetection(tracked, [cup])
    view = redetection._encoded.views.add(View(np.radians(25), 0.0))
    logits = np.full((64, 64), -1, np.float32)
    logits[20:48, 2:62] = 1  # ten times as large as the cup, which it holds
    table = replace(_candidate(30), view=view, mask=ViewMask(logits, 0.9, 1.0))
    assert redetection.possible([table]) == [table]


def test_what_another_lost_object_was_just_found_on_is_not_taken():
    """On the same panorama: it counts as lost until all objects were looked for."""
    tracked, other = _tracked(0, lost_for=3), _tracked(-10, lost_for=1)
    redetection = _redetection(tracked, [other])
    views = redetection._encoded.views
    view = views.add(View(np.radians(12), 0.0))
    logits = np.full((16, 16), -1, np.float32)
    logits[7:9, 7:9] = 1  # about 12 degrees wide
    other.masks = {view: ViewMask(logits, 0.9, 1.0)}
    left = redetection.possible([_candidate(12), _candidate(-10)])
    assert _azimuths(c.direction for c in left) == [-10]
    nothing = ViewMask(np.full((16, 16), -1, np.float32), 0.9, 1.0)
    assert not on_another(views, view, nothing, None, [other])


def test_what_is_as_alike_to_another_lost_object_is_left_to_it_if_that_was_much_nearer():
    tracked, twin, other = (_tracked(degrees, lost_for=3) for degrees in (0, 25, 25))
    other.appearances = Appearances(lambda: np.array([1, -1, 1, -1], np.float32))
    found = _candidate(18, 1.0)
    assert _redetection(tracked, [twin]).choose([found]) is None
    assert _redetection(twin, [tracked]).choose([found]) is found
    assert _redetection(tracked, [other]).choose([found]) is found
    between = _candidate(12, 1.0)
    assert _redetection(tracked, [twin]).choose([between]) is between
    assert _redetection(twin, [tracked]).choose([between]) is None  # a little farther
    twin.lost_for = 0  # where it is tracked is not taken anyway
    assert _redetection(tracked, [twin]).choose([found]) is found


def _known(degrees, lost_for, likeness):
    """A lost object to which candidates are alike so much."""
    lost = _tracked(degrees, lost_for)
    looks = np.full(4, likeness / 2, np.float32)
    looks += np.array([1, -1, 1, -1], np.float32) * np.sqrt(1 - likeness**2) / 2
    lost.appearances = Appearances(lambda: looks)
    return lost


def test_of_two_lost_objects_the_one_that_is_more_alike_and_nearer_gets_what_is_found():
    one, twin = _known(0, 3, 0.9), _known(24, 3, 0.99)
    found = _candidate(12, 0.9)
    assert _redetection(one, [twin]).choose([found]) is None
    near = _candidate(1, 0.9)
    assert _redetection(one, [twin]).choose([near]) is near
    unsure = _known(24, 3, 0.7)  # it could not get it
    assert _redetection(_known(0, 3, 0.9), [unsure]).choose([found]) is found
    twin.masks = {0: near.mask}  # it has been found already
    assert _redetection(one, [twin]).choose([found]) is found


@given(
    apart=st.floats(0, 150), place=st.floats(-60, 60),
    likenesses=st.tuples(*[st.floats(0.985, 1.0)] * 2), lost=st.tuples(*[st.integers(1, 400)] * 2),
)  # fmt: skip
def test_two_lost_objects_never_leave_it_to_each_other(apart, place, likenesses, lost):
    """What is sure for both is taken by one of them."""
    one, other = (
        _known(degrees, *known)
        for degrees, *known in zip((0, apart), lost, likenesses, strict=True)
    )
    answers = []
    for this, that in ((one, other), (other, one)):
        likeness = this.appearances.likeness(_candidate(place).appearance)
        answers.append(_redetection(this, [that]).choose([_candidate(place, likeness)]))
    assert any(answer is not None for answer in answers)


def test_of_the_answers_to_a_click_the_most_alike_is_compared(random_model, panorama):
    """Not the one with the highest predicted IoU."""
    encoded = EncodedViews(random_model, PerspectiveViews(Panorama(panorama), 64, Scan()))
    click = ViewPrompt(np.array([[30, 34]], np.float32), np.array([POSITIVE]))
    three = answers(random_model, encoded.features(4), click)
    assert len(three) == 3
    best = max(three, key=lambda mask: mask.predicted_iou)
    (known, *_) = (mask for mask in three if mask is not best)
    looks = encoded.appearance(4, known)
    assert looks is not None
    tracked = _tracked(0, lost_for=1)
    tracked.appearances = Appearances(lambda: looks)
    unlimited = Following(min_score=0, max_growth=1e9)
    found = Redetection(encoded, tracked, unlimited, [])._decoded(4, click, 0.5)
    assert found.likeness == pytest.approx(1)
    np.testing.assert_array_equal(found.mask.logits, known.logits)


def test_candidates_of_unknown_likeness_come_last():
    tracked = _tracked(0, lost_for=8)
    found = [_candidate(4, 0.5), _candidate(-8, float("nan")), _candidate(16, 0.9)]
    assert [c.likeness for c in _redetection(tracked).possible(found)][:2] == [0.9, 0.5]


def test_the_more_similar_is_taken_the_nearer_of_two_that_are_alike_and_neither_when_unsure():
    tracked = _tracked(0, lost_for=3)  # likely within 21 degrees
    choose = _redetection(tracked).choose
    near, far, other = _candidate(4, 0.95), _candidate(16, 0.97), _candidate(2, 0.87)
    assert choose([near, far]) is near
    assert choose([near, other]) is near
    assert choose([_candidate(4, 0.8), _candidate(5, float("nan"))]) is None
    assert not tracked.distractors
    assert choose([_candidate(40, 0.93, least=0.98)]) is None
    assert _azimuths(d.direction for d in tracked.distractors) == [40]


@pytest.mark.parametrize("degrees", [-90, -7, 0, 3, 45, 170])
def test_the_turn_of_the_camera_is_seen_though_objects_move(degrees):
    scene = MovingScene(0)
    before, after = scene.render(0.0, SIZE)[0], scene.render(0.1, SIZE)[0]
    # 0.1 s: the robot itself has turned by 1 degree
    turned = np.roll(after, -round(degrees / 360 * SIZE[0]), axis=1)
    angle = np.degrees(turn_between(before, turned))
    assert abs((angle - degrees + 1 + 180) % 360 - 180) < 2
    assert turn_between(before, np.full_like(before, 128)) == 0


def test_what_is_known_of_a_lost_object_turns_with_the_camera():
    tracked = _tracked(0)
    tracked.distractors = [Distractor(_towards(30), 0.9)]
    tracked.turned = lambda: Rotation.from_euler("z", np.radians(15))
    for _ in range(2):  # only once on each panorama
        tracked.take_off_turn()
        assert _azimuths([tracked.track.expected, tracked.distractors[0].direction]) == [15, 45]
        assert _azimuths(tracked.expected_clicks().directions) == [15]


def _clicked(truth, number):
    v, u = np.nonzero(truth == number)
    middle = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, SIZE).mean(0)
    return Prompt(number, middle[None], np.array([1]))


def _iou(labels, truth, number):
    one, other = labels == number, truth == number
    return (one & other).sum() / (one | other).sum()


def test_an_object_is_found_though_the_camera_has_turned_by_more_than_the_margin():
    """By 20 degrees at once: the object must not be taken for something that looks like it."""
    scene, session = MovingScene(0, twins=True), PanoramaSession(load_model())
    found = []
    for k in range(8):
        image, truth = scene.render(0.2 * k, SIZE)
        if k >= 3:
            image, truth = (np.roll(each, SIZE[0] // 18, axis=1) for each in (image, truth))
        session.next_image(image)
        if k == 0:
            session.add_prompt(_clicked(truth, 5))
        found.append(_iou(session.segment().labels, truth, 5))
    assert min(found) > 0.5


def test_an_object_that_was_never_found_is_looked_for_on_the_next_image():
    """Two objects are given the same click: all pixels of the mask go to the first."""
    scene, session = MovingScene(0), PanoramaSession(load_model())
    for k in range(3):
        image, truth = scene.render(0.2 * k, SIZE)
        session.next_image(image)
        if k == 0:
            session.add_prompt(_clicked(truth, 5))
            session.add_prompt(replace(_clicked(truth, 5), object_id=6))
        assert session.segment().objects[0].state == State.TRACKED


def test_an_object_comes_back_while_its_twin_is_in_view():
    """The object is painted over for 1.2 s; only it is tracked, its twin stands 30 to 60 degrees beside it."""
    scene, session, number = MovingScene(2, twins=True), PanoramaSession(load_model()), 3
    found = []
    for k in range(14):
        image, truth = scene.render(0.2 * k, SIZE)
        mask = truth == number
        if 4 <= k < 10:
            image[mask] = (160, 160, 160)
        session.next_image(image)
        if k == 0:
            v, u = np.nonzero(mask)
            middle = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, SIZE).mean(0)
            session.add_prompt(Prompt(1, middle[None], np.array([1])))
        answer = session.segment()
        labels, state = answer.labels == 1, answer.objects[0].state
        assert not (labels & (truth == number + 3)).any()
        found.append(state == State.TRACKED and (labels & mask).sum() / (labels | mask).sum() > 0.5)
    assert all(found[:4])
    assert all(found[12:])


def test_two_that_look_alike_keep_their_ids_while_they_touch():
    """They come nearer, touch for 1.5 s, and part; the decoder takes both as one."""
    scene, session = MovingScene(14, twins=True), PanoramaSession(load_model())
    found = []
    for k in range(18):
        image, truth = scene.render(0.25 * k, SIZE)
        session.next_image(image)
        if k == 0:
            session.add_prompt(_clicked(truth, 2))
            session.add_prompt(_clicked(truth, 5))
        labels = session.segment().labels
        found.append([_iou(labels, truth, number) for number in (2, 5)])
    assert np.min(found) > 0.7
