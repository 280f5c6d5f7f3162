"""session: the public face, with a random model: what it keeps, what it repeats, what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core.camera import sees
from sap_ros.core.instances import State
from sap_ros.core.loading import load_model
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.core.scan import Scan
from sap_ros.core.search import STRATEGIES, ObjectViewSearch, search_by
from sap_ros.core.session import PanoramaSession

SIZE = (512, 256)


def _session(model, panorama, **kwargs):
    session = PanoramaSession(model, **kwargs)
    session.set_image(panorama)
    return session


def _logits(session, object_id):
    return {i: mask.logits for i, (_, mask) in session.view_masks(object_id).items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("pixel", [(300, 120), (0.2, 128), (511.9, 40), (77, 0), (400, 256)])
def test_any_pixel_can_be_clicked(random_model, panorama, strategy, pixel):
    session = _session(random_model, panorama, strategy=strategy)
    session.add_prompt(from_pixels(9, [pixel], SIZE))
    instances = session.segment()
    assert instances.labels.shape == (256, 512)
    assert set(np.unique(instances.labels)) <= {0, 9}
    (thing,) = instances.objects
    assert thing.object_id == 9
    assert (thing.state == State.TRACKED) == bool((instances.labels == 9).any())
    # Views that are encoded: all of the set, or up to four of the object's own beside the scan's.
    fewest, most = {"scan": (24, 24), "direct": (1, 1), "patches": (24, 24)}.get(strategy, (1, 28))
    assert fewest <= session.encoded <= most
    visited = session.view_masks(9)
    assert 1 <= len(visited) <= session.encoded
    views = np.stack([image for image, _ in visited.values()])
    assert views.shape[1:] == (64, 64, 3)
    assert views.std() > 1  # what was looked at is the panorama


def test_a_second_prompt_encodes_nothing(random_model, panorama):
    session = _session(random_model, panorama, strategy="scan")
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    session.segment()
    encoded = []
    random_encode = random_model.encode
    random_model.encode = lambda view: encoded.append(1) or random_encode(view)
    try:
        session.add_prompt(from_pixels(1, [(110, 110)], SIZE))
        session.add_prompt(from_pixels(2, [(300, 30)], SIZE))
        looked = []
        session.segment(lambda done, count, object_id: looked.append(object_id))
        assert (encoded, set(looked)) == ([], {1, 2})
        session.segment(lambda done, count, object_id: looked.append("again"))
        assert "again" not in looked  # nothing has changed: nothing is looked for
        session.set_image(panorama)
        session.segment()
        assert len(encoded) == 24
    finally:
        del random_model.encode


@pytest.mark.parametrize("later", [False, True])
def test_a_point_off_an_object_corrects_it_here_and_on_a_later_panorama(panorama, later):
    session = _session(load_model("sap-nano"), panorama, strategy="direct")
    with pytest.raises(ValueError, match="no positive point"):
        session.add_prompt(from_pixels(1, [(300, 30)], SIZE, [0]))
    assert session.object_ids == ()
    session.add_prompt(from_pixels(1, [(300, 120)], SIZE))
    before = session.segment().labels
    if later:
        session.next_image(panorama)
        before = session.segment().labels
    v, u = np.argwhere(before == 1)[0]
    session.add_prompt(from_pixels(1, [(u, v)], SIZE, [0]))
    corrected = session.segment()
    assert [thing.object_id for thing in corrected.objects] == [1]
    assert (corrected.labels != before).any()


@given(st.integers(0, 3), st.floats(0, 511.9), st.floats(1, 255))
@settings(max_examples=8)
@pytest.mark.parametrize("strategy", ["auto", "gimbal", "frontier", "scan", "patches"])
def test_a_roll_of_the_panorama_rolls_the_result(random_model, panorama, strategy, turns, u, v):
    """By two columns of the scan the views and their order are the same: the seam is no place."""
    shift = 128 * turns
    session = _session(random_model, panorama, strategy=strategy)
    session.add_prompt(from_pixels(1, [(u, v)], SIZE))
    plain = session.segment()
    turned = _session(random_model, np.roll(panorama, shift, axis=1), strategy=strategy)
    turned.add_prompt(from_pixels(1, [((u + shift) % 512, v)], SIZE))
    rolled = turned.segment()
    different = np.roll(plain.labels, shift, axis=1) != rolled.labels
    assert different.mean() < 2e-3


@pytest.mark.parametrize("strategy", ["auto", "frontier", "scan"])
def test_results_do_not_depend_on_the_other_objects(random_model, panorama, strategy):
    alone, together = (_session(random_model, panorama, strategy=strategy) for _ in range(2))
    together.add_prompt(from_pixels(2, [(130, 60)], SIZE))
    for session in (alone, together):
        session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
        session.segment()
    together.remove_object(2)
    np.testing.assert_array_equal(together.segment().labels, alone.segment().labels)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("box", [(100, 70, 300, 180), (480, 0, 60, 256), (500, 20, 180, 90)])
def test_a_box_that_no_view_holds_can_be_given(random_model, panorama, strategy, box):
    session = _session(random_model, panorama, strategy=strategy)
    session.add_prompt(from_pixels(1, [], SIZE, box=box))
    session.segment()
    first = _logits(session, 1)
    assert len(first) >= 1
    session.add_prompt(from_pixels(1, [], SIZE, box=(300, 100, 330, 130)))  # drawn again, elsewhere
    session.segment()
    alone = _session(random_model, panorama, strategy=strategy)
    alone.add_prompt(from_pixels(1, [], SIZE, box=(300, 100, 330, 130)))
    alone.segment()
    again, expected = _logits(session, 1), _logits(alone, 1)
    if strategy in ("auto", "gimbal"):  # a view of the object's own has another index
        again, expected = list(again.values()), list(expected.values())
    np.testing.assert_equal(again, expected)
    assert not np.array_equal(next(iter(_logits(session, 1).values())), next(iter(first.values())))


def test_what_was_found_is_kept_when_another_object_fails(random_model, panorama):
    session = _session(random_model, panorama)
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    session.add_prompt(from_pixels(2, [(300, 100)], SIZE))

    def stop(done, count, object_id):
        if object_id == 2:
            raise ValueError("cannot be looked for")

    with pytest.raises(ValueError, match="cannot be"):
        session.segment(stop)
    session.remove_object(2)
    calm = _session(random_model, panorama)
    calm.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    calm.segment()
    for one in (session, calm):
        one.next_image(panorama)
    np.testing.assert_array_equal(session.segment().labels, calm.segment().labels)


def test_the_scan_begins_at_the_view_nearest_the_click(random_model, panorama):
    by_first = search_by("scan", random_model, prompted="first")
    session = _session(random_model, panorama, strategy=by_first)
    prompt = from_pixels(1, [(130, 200)], SIZE)
    session.add_prompt(prompt)
    session.segment()
    order = list(session.view_masks(1))
    assert order == list(Scan().window(Scan().nearest(prompt.anchor)))


def test_all_views_that_see_the_click_are_conditioned_on_it_first(random_model, panorama):
    session = _session(random_model, panorama, strategy="scan")
    session.add_prompt(from_pixels(1, [(256, 128)], SIZE))
    session.segment()
    order = list(session.view_masks(1))
    assert len(order) == len(set(order)) == 24
    sees_click = {i for i, view in enumerate(Scan().views) if sees(view, (1.0, 0, 0), slack=1e-9)}
    # The decoder gives its answer to the views that see the click without memory: first.
    assert set(order[: len(sees_click)]) == sees_click


def test_ids_above_254_make_sixteen_bit_labels(random_model, panorama):
    session = _session(random_model, panorama, strategy="direct")
    session.add_prompt(from_pixels(300, [(256, 128)], SIZE))
    assert session.segment().labels.dtype == np.uint16


def test_nothing_prompted_gives_nothing(random_model, panorama):
    instances = _session(random_model, panorama).segment()
    assert instances.objects == ()
    assert not instances.labels.any()


def test_what_is_not_there_is_said(random_model, panorama):
    session = PanoramaSession(random_model)
    session.add_prompt(Prompt(1, np.array([[1.0, 0, 0]]), np.array([1])))
    with pytest.raises(ValueError, match="set_image"):
        session.segment()
    with pytest.raises(ValueError, match=r"no object has the id 5; there are \[1\]"):
        session.remove_object(5)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (
            {"strategy": "spiral"},
            "'spiral'; it must be one of auto, gimbal, frontier, scan, direct, patches",
        ),
        ({"fusion": "mean"}, "'mean'"),
    ],
)
def test_bad_options_are_named(random_model, bad, named):
    with pytest.raises(ValueError, match=named):
        PanoramaSession(random_model, **bad)
    with pytest.raises(ValueError, match="prompted is 'last'; it must be one of all, first"):
        search_by("scan", random_model, prompted="last")


@pytest.mark.parametrize("size", [(8192, 4096), (1000, 500), (3840, 1920)])
@pytest.mark.slow
def test_panoramas_of_other_sizes(random_model, size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    session = _session(random_model, image)
    session.add_prompt(from_pixels(1, [(size[0] / 2, 20)], size))
    assert session.segment().labels.shape == (size[1], size[0])


def test_a_withdrawn_prompt_leaves_the_object_as_it_was(random_model, panorama):
    session = _session(random_model, panorama)
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    before = session.segment()
    session.add_prompt(from_pixels(1, [(300, 40)], SIZE))
    session.add_prompt(from_pixels(2, [(300, 40)], SIZE))
    assert session.pending == (1, 2)
    session.withdraw_prompt(1)
    session.withdraw_prompt(2)
    after = session.instances()
    assert session.object_ids == (1,)
    assert session.pending == ()
    np.testing.assert_array_equal(after.labels, before.labels)
    session.withdraw_prompt(1)  # there is nothing to take back: it stays
    assert session.object_ids == (1,)


def test_what_is_raised_while_an_object_is_looked_for_leaves_it_pending(random_model, panorama):
    session = _session(random_model, panorama)
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    first = session.segment().objects[0].state
    session.add_prompt(from_pixels(2, [(300, 40)], SIZE))

    def stop(done, count, object_id):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        session.segment(stop)
    shown = session.instances()
    assert session.pending == (2,)
    assert [found.state for found in shown.objects] == [first, State.PENDING]
    # The prompt was never looked for: it holds for the next panorama as if it had been given there.
    other = np.ascontiguousarray(panorama[:, ::-1])
    session.next_image(other)
    fresh = _session(random_model, other)
    fresh.add_prompt(from_pixels(2, [(300, 40)], SIZE))
    session.remove_object(1)
    np.testing.assert_array_equal(session.segment().labels, fresh.segment().labels)


def test_an_object_that_fails_does_not_touch_the_others(random_model, panorama, monkeypatch):
    session = _session(random_model, panorama)
    for i, click in enumerate([(100, 100), (300, 40), (420, 200)], 1):
        session.add_prompt(from_pixels(i, [click], SIZE))
    find = ObjectViewSearch.find

    def fails(search, tracked, *more):
        if tracked.prompt.object_id == 2:
            raise MemoryError("no memory left")
        return find(search, tracked, *more)

    monkeypatch.setattr(ObjectViewSearch, "find", fails)
    failed = session.look_for([1, 2, 3])
    assert list(failed) == [2]
    assert str(failed[2]) == "no memory left"
    assert session.pending == (2,)
    with pytest.raises(MemoryError):
        session.segment()
    monkeypatch.undo()
    assert not session.look_for([2])
    with pytest.raises(ValueError, match="no object has the id 4"):
        session.look_for([1, 4])


def test_an_object_that_is_given_up_is_lost_on_this_panorama_alone(random_model, panorama):
    session = _session(random_model, panorama)
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    session.segment()
    session.next_image(panorama)
    session.give_up(1)
    assert session.segment().objects[0].state == State.LOST
    session.next_image(panorama)
    assert session.pending == (1,)


def test_a_stream_may_begin_with_next_image(random_model, panorama):
    session = PanoramaSession(random_model)
    session.next_image(panorama)
    session.add_prompt(from_pixels(1, [(100, 100)], SIZE))
    assert len(session.segment().objects) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_mask_that_goes_all_round_can_be_given(random_model, panorama, strategy):
    band = np.zeros((256, 512), bool)
    band[110:146] = True
    session = _session(random_model, panorama, strategy=strategy)
    session.add_prompt(Prompt(1, mask=band))
    found = session.segment()
    assert found.objects[0].state == State.TRACKED
    # SAM 2 takes a mask as the answer in the views that are given it.
    assert (found.labels == 1)[band].mean() > 0.2
