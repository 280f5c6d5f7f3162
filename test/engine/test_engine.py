"""engine: ids, prompts, late and early ones, what is rejected, what is interrupted."""

import math
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
import torch

from sap_ros.core import sphere
from sap_ros.core.instances import State
from sap_ros.core.session import PanoramaSession
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.engine import OBJECTS_PER_ANSWER, Engine, run
from sap_ros.engine.events import (
    MAX_LABEL,
    Change,
    Cloud,
    Depth,
    PromptGiven,
    Remove,
    Reset,
    Settings,
    Space,
)
from sap_ros.engine.inbox import MAX_WAITING, PROMPTS_PER_ANSWER
from sap_ros.engine.transforms import Stamped, Transform

from .conftest import AHEAD, SECOND, SIZE, KnownTransforms, click, ids, image, mask_at, states, tell


def test_an_answer_an_image_and_a_prompt(make_engine, panorama):
    engine = make_engine()
    answers = tell(engine, image(panorama, 1), click(300, 120), image(panorama, 2), click(9, 9))
    assert [a.stamp // SECOND for a in answers] == [1, 1, 2, 2]
    assert [ids(a) for a in answers] == [[], [1], [1], [1, 2]]
    assert [a.news for a in answers] == [False, True, True, True]
    assert answers[-1].labels == {1: "", 2: ""}
    assert {"decode", "segment", "ranges"} <= set(answers[-1].seconds)


def test_positions_are_under_the_whole_transform(make_engine, panorama):
    """The camera is at (10, 0, 1.2) in the map, and an object 5 m ahead of it."""
    there = Transform(np.eye(3), np.array([10.0, 0, 1.2]))
    engine = make_engine(KnownTransforms(camera_to_map=there), target_frame="map")
    y, z = np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-2, 2, 81))
    wall = np.stack([np.full(y.size, 5.0), y.ravel(), z.ravel()], -1)
    (_, answer) = tell(
        engine, image(panorama, 1), Cloud(lambda: wall, SECOND, "camera"), mask_at(*AHEAD)
    )
    (found,) = answer.objects
    assert found.range == pytest.approx(5, abs=0.1)
    np.testing.assert_allclose(found.position, [15, 0, 1.2], atol=0.15)
    np.testing.assert_allclose(found.direction, [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(answer.camera, [10, 0, 1.2])
    assert answer.bearing_frame == "map"


def test_a_mounted_cameras_object_is_where_it_is_on_the_robot(make_engine, panorama):
    """base_link to camera: (0.2, 0, 1.5), yaw 90 degrees, pitch 20 degrees down."""
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_euler("ZY", [90, 20], degrees=True).as_matrix()
    mounted = Transform(rotation, np.array([0.2, 0, 1.5]))
    engine = make_engine(KnownTransforms(camera_to_base_link=mounted), target_frame="base_link")
    direction = sphere.pixel_to_direction((200, 100), SIZE)
    spot = direction * 3 + np.random.default_rng(0).normal(0, 0.02, (50, 3))
    (_, answer) = tell(
        engine, image(panorama, 1), Cloud(lambda: spot, SECOND, "camera"), mask_at(200, 100, 8)
    )
    (found,) = answer.objects
    np.testing.assert_allclose(found.position, mounted.points(direction * 3), atol=0.1)
    expected = np.array(found.position) - mounted.translation
    np.testing.assert_allclose(found.direction, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("convention", ["body", "optical"])
def test_angles_are_those_of_the_direction(make_engine, panorama, convention):
    engine = make_engine(axes=ImageAxes(0.3, convention))
    (found,) = tell(engine, image(panorama, 1), mask_at(400, 60))[-1].objects
    x, y, z = found.direction
    assert found.azimuth == pytest.approx(math.atan2(y, x))
    assert found.elevation == pytest.approx(math.asin(z))


def test_bearings_that_tf_does_not_know_are_said_so_and_the_rest_is_told(make_engine, panorama):
    engine = make_engine(KnownTransforms(), target_frame="map")
    answers = tell(engine, image(panorama, 1), mask_at(*AHEAD), Reset())
    (found,) = answers[1].objects
    assert found.state == State.TRACKED
    assert math.isnan(found.azimuth)
    assert np.isnan(found.direction).all()
    assert found.solid_angle > 0
    assert "'map'" in answers[1].problems[0]
    assert answers[1].bearing_frame == "map"
    assert answers[2].changed
    assert answers[2].news
    assert answers[2].objects == ()


@pytest.mark.parametrize(("apart", "known"), [(0.0, True), (0.09, True), (0.11, False), (5, False)])
def test_a_cloud_gives_ranges_only_near_its_own_time(make_engine, panorama, apart, known):
    engine = make_engine(cloud_tolerance=0.1)
    points = np.random.default_rng(0).normal((4, 0, 0), 0.01, (100, 3))
    cloud = Cloud(lambda: points, 10 * SECOND - round(apart * SECOND), "camera")
    (found,) = tell(engine, cloud, image(panorama, 10), mask_at(*AHEAD))[-1].objects
    assert math.isnan(found.range) != known


def test_of_the_clouds_the_nearest_in_time_is_taken_at_its_own_stamp(make_engine, panorama):
    transforms = KnownTransforms(lidar_to_camera=Transform(np.eye(3), np.array([0, 0, 0.5])))
    engine = make_engine(transforms, cloud_tolerance=1.0)
    for at, distance in ((9.5, 2.0), (9.9, 3.0), (10.4, 4.0)):
        wall = np.random.default_rng(0).normal((distance, 0, -0.5), 0.01, (100, 3))
        engine.take(Cloud(lambda wall=wall: wall, round(at * SECOND), "lidar"), 0.0)
    (found,) = tell(engine, image(panorama, 10), mask_at(*AHEAD))[-1].objects
    assert found.range == pytest.approx(3, abs=0.05)
    assert any(source == Stamped("lidar", round(9.9 * SECOND)) for _, source, _ in transforms.asked)


LATE = 2 * SECOND  # by which the images below are stamped late


def late(panorama, seconds):
    return replace(image(panorama, seconds), delay=LATE)


def test_late_stamps_are_corrected_for_tf_and_clouds_and_kept_in_answers(make_engine, panorama):
    transforms = KnownTransforms(lidar_to_camera=Transform(), camera_to_map=Transform())
    engine = make_engine(transforms, target_frame="map", fixed_frame="odom")
    for at, distance in ((8, 3.0), (10, 4.0)):
        wall = np.random.default_rng(0).normal((distance, 0, 0), 0.01, (100, 3))
        engine.take(Cloud(lambda wall=wall: wall, at * SECOND, "lidar"), 0.0)
    answer = tell(engine, late(panorama, 10), mask_at(*AHEAD))[-1]
    assert (answer.stamp, answer.taken) == (10 * SECOND, 8 * SECOND)
    assert answer.objects[0].range == pytest.approx(3, abs=0.05)
    assert {stamped.stamp for asked in transforms.asked for stamped in asked[:2]} == {8 * SECOND}


def test_a_depth_panorama_has_the_stamps_of_late_images(make_engine, panorama):
    engine = make_engine()
    near, far = (np.full((256, 512), value, np.float32) for value in (3.0, 4.0))
    engine.take(Depth(SIZE, lambda: far, 8 * SECOND), 0.0)
    engine.take(Depth(SIZE, lambda: near, 10 * SECOND), 0.0)
    answer = tell(engine, late(panorama, 10), mask_at(*AHEAD))[-1]
    assert answer.objects[0].range == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize(
    ("space", "frame", "stamp"),
    [
        (Space.PIXELS, "", 10),  # clicked on the image that was shown
        (Space.DIRECTIONS, "camera", 10),
        (Space.DIRECTIONS, "hand", 8),  # another sensor's time
    ],
)
def test_a_prompt_is_for_its_late_stamped_image(make_engine, panorama, space, frame, stamp):
    transforms = KnownTransforms(hand_to_camera=Transform())
    engine = make_engine(transforms, fixed_frame="odom")
    shown = [late(panorama, seconds) for seconds in (9, 10, 11)]
    tell(engine, *shown)
    points = [[256.0, 128, 0]] if space == Space.PIXELS else [[1.0, 0, 0]]
    given = PromptGiven(points=np.array(points), space=space, frame_id=frame, stamp=stamp * SECOND)
    engine.take(given, 0.0)
    engine.accept(0.0)
    (accepted,) = engine._inbox.accepted
    assert accepted.image is shown[1]
    if frame:
        at, source, fixed = transforms.asked[-1]
        assert (at.stamp, source.stamp, fixed) == (8 * SECOND, 8 * SECOND, "")


def test_an_old_direction_in_the_images_frame_is_corrected_as_the_images_are(make_engine, panorama):
    transforms = KnownTransforms()
    engine = make_engine(transforms, fixed_frame="odom", keep_images=0)
    old = PromptGiven(
        points=np.array([[1.0, 0, 0]]), space=Space.DIRECTIONS, stamp=9 * SECOND, frame_id="camera"
    )
    tell(engine, late(panorama, 11), old)
    asked = (Stamped("camera", 9 * SECOND), Stamped("camera", 7 * SECOND), "odom")
    assert asked in transforms.asked


def test_a_cloud_that_cannot_be_read_takes_nothing_but_the_ranges(make_engine, panorama):
    engine = make_engine()

    def broken():
        raise TypeError("buffer is too small")

    answers = tell(
        engine, Cloud(broken, SECOND, "camera"), image(panorama, 1), mask_at(*AHEAD),
        image(panorama, 2),
    )  # fmt: skip
    assert [ids(a) for a in answers] == [[], [1], [1]]
    assert math.isnan(answers[1].objects[0].range)
    assert "buffer is too small" in answers[1].problems[0]


def gaze(u, v, **fields):
    direction = sphere.pixel_to_direction((u, v), SIZE)[None]
    return PromptGiven(points=direction, space=Space.DIRECTIONS, gaze=True, **fields)


def test_equal_gazes_make_one_object_and_use_up_no_others(make_engine, panorama):
    engine = make_engine(max_objects=2)
    engine.take(image(panorama, 1), 0.0)
    for _ in range(40):  # they come while the worker is busy
        engine.take(gaze(300, 120), 0.0)
    last = run(engine, 0.0)[-1]
    assert ids(last) == [1]
    assert not any(a.rejections for a in run(engine, 0.0))
    assert ids(tell(engine, click(100, 60))[-1]) == [1, 2]


def test_a_gaze_at_what_was_not_found_looks_for_it_again_on_a_later_image(random_model, panorama):
    engine = Engine(PanoramaSession(random_model, "direct"))
    score = random_model.sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    present = score.detach().clone()
    try:
        with torch.no_grad():
            score.fill_(-50.0)  # no object is found
        assert states(tell(engine, image(panorama, 1), gaze(300, 120))[-1]) == {1: State.LOST}
        assert ids(tell(engine, gaze(302, 121))[-1]) == [1]  # looked for on this image already
        assert states(tell(engine, image(panorama, 2))[-1]) == {1: State.LOST}
    finally:
        with torch.no_grad():
            score.copy_(present)
    assert states(tell(engine, gaze(302, 121))[-1]) == {1: State.TRACKED}  # under the same id


def test_images_without_a_stamp_are_all_answered_and_said(make_engine, panorama):
    engine = make_engine()
    answers = tell(
        engine, image(panorama, 0), mask_at(*AHEAD), *(image(panorama, 0) for _ in "abc")
    )
    assert len(answers) == 5
    assert engine.received == 4
    assert engine.dropped == 0
    assert any("no stamp" in text for text in answers[0].problems)


def test_a_stamp_is_answered_once(make_engine, panorama):
    engine = make_engine()
    assert len(tell(engine, image(panorama, 1), image(panorama, 1), mask_at(*AHEAD))) == 2


class _FailingModel:
    """A model whose encoder runs out of memory when it is told to."""

    def __init__(self, model):
        self._model, self.fails = model, False

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode(self, view):
        if self.fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._model.encode(view)


def test_an_exception_rejects_its_prompt_and_nothing_else(random_model, panorama):
    model = _FailingModel(random_model)
    engine = Engine(PanoramaSession(model, "gimbal"))
    first = tell(engine, image(panorama, 1), click(300, 120))[-1]
    accepted: Future[int] = Future()
    model.fails = True
    failed = tell(engine, click(30, 60, accepted=accepted))[-1]
    model.fails = False
    assert accepted.result(0) == 2
    (rejection,) = failed.rejections
    assert (rejection.object_id, "out of memory" in rejection.reason) == (2, True)
    assert "Traceback" in rejection.trace
    assert states(failed) == {1: states(first)[1], 2: State.REJECTED}
    after = tell(engine, image(panorama, 2))[-1]  # nothing moves over to the next image
    assert ids(after) == [1]
    assert not after.rejections
    assert after.labels == {1: ""}


def test_an_object_that_cannot_be_followed_is_lost_and_the_others_go_on(random_model, panorama):
    model = _FailingModel(random_model)
    engine = Engine(PanoramaSession(model, "gimbal"))
    tell(engine, image(panorama, 1), click(300, 120), click(30, 60))
    model.fails = True
    (failed,) = tell(engine, image(panorama, 2))
    model.fails = False
    assert set(states(failed).values()) == {State.LOST}
    assert "out of memory" in failed.problems[0]
    (after,) = tell(engine, image(panorama, 3))
    assert ids(after) == [1, 2]
    assert not after.problems


def test_lost_objects_are_looked_for_after_the_tracked_ones(make_engine, panorama, monkeypatch):
    """Where they can be goes by where the others are; whoever was looked for longest ago."""
    engine, order = make_engine(), []
    tell(engine, image(panorama, 1), mask_at(60, 60), mask_at(200, 60), mask_at(340, 60))
    session = engine._session
    look_for = session._look_for

    def noted(search, size, object_id, *more):
        order.append(object_id)
        look_for(search, size, object_id, *more)

    monkeypatch.setattr(session, "_look_for", noted)
    session._objects[1].lost_for = 2
    assert session.pending == ()
    engine.take(image(panorama, 2), 0.0)
    engine.work(0.0)
    assert order == [2, 3, 1]


def test_a_box_of_directions_in_an_optical_frame_is_a_box(make_engine, panorama):
    """Its corners are only upper left and lower right once they are transformed."""
    engine = make_engine(axes=ImageAxes(0.5, "optical"))
    corners = sphere.pixel_to_direction(np.array([[200, 100], [300, 150]]), SIZE)
    box = ImageAxes(0.5, "optical").to_frame(corners)
    (_, answer) = tell(engine, image(panorama, 1), PromptGiven(box=box, space=Space.DIRECTIONS))
    assert ids(answer) == [1]
    assert not answer.rejections


def test_a_position_at_the_origin_of_its_frame_is_a_place(make_engine, panorama):
    moved = Transform(np.eye(3), np.array([0.0, 4.0, 0.0]))
    engine = make_engine(KnownTransforms(tag_to_camera=moved))
    prompt = PromptGiven(points=np.zeros((1, 3)), space=Space.POSITIONS, frame_id="tag")
    (_, answer) = tell(engine, image(panorama, 1), prompt)
    assert ids(answer) == [1]
    assert not answer.rejections


def test_a_reset_takes_the_prompts_that_wait_with_it(make_engine, panorama):
    engine = make_engine()
    accepted: Future[int] = Future()
    waits = gaze(300, 120, stamp=5 * SECOND, accepted=accepted)
    answers = tell(engine, image(panorama, 1), mask_at(*AHEAD), waits, Reset(), mask_at(60, 60))
    assert "reset" in str(accepted.exception(0))
    assert ids(answers[-1]) == [1]
    (late,) = tell(engine, image(panorama, 5))
    assert ids(late) == [1]


def test_a_rejected_correction_leaves_the_object_and_lists_it_once(make_engine, panorama):
    engine = make_engine()
    answers = tell(engine, image(panorama, 1), mask_at(*AHEAD), click(900, 5, object_id=1))
    (found,) = answers[-1].objects
    assert found.state == State.TRACKED
    assert "outside" in found.reason
    np.testing.assert_array_equal(answers[-1].instances.labels, answers[-2].instances.labels)


def test_a_click_outside_is_rejected_without_an_id(make_engine, panorama):
    engine = make_engine()
    accepted: Future[int] = Future()
    (_, answer) = tell(
        engine, image(panorama, 1), click(900, 5, label="x" * 999, accepted=accepted)
    )
    (told,) = answer.objects
    assert (told.object_id, told.state, told.label) == (0, State.REJECTED, "x" * MAX_LABEL)
    assert "outside" in told.reason
    assert "outside" in str(accepted.exception(0))
    assert ids(tell(engine, click(300, 120))[-1]) == [1]


def test_ids_that_were_removed_are_given_again_when_all_are_used(make_engine, panorama):
    engine = make_engine(largest_id=3)
    tell(engine, image(panorama, 1), *(mask_at(60 * i, 60) for i in (1, 2, 3)))
    tell(engine, Remove(2))
    assert ids(tell(engine, mask_at(300, 60))[-1]) == [1, 2, 3]
    (rejection,) = tell(engine, mask_at(400, 60))[-1].rejections
    assert "all ids up to 3" in rejection.reason


def test_a_removal_is_told_at_once_and_an_unknown_id_is_refused(make_engine, panorama):
    engine = make_engine()
    tell(engine, image(panorama, 1), mask_at(60, 60), mask_at(160, 60))
    done, refused = Future(), Future()
    (answer,) = tell(engine, Remove(1, done))
    assert done.result(0)
    assert ids(answer) == [2]
    assert answer.labels == {2: ""}
    assert not (answer.instances.labels == 1).any()
    assert tell(engine, Remove(7, refused)) == []
    assert "there are [2]" in str(refused.exception(0))


def test_late_early_and_stale_prompts(make_engine, panorama):
    engine = make_engine(keep_images=1)
    shifted = np.roll(panorama, 100, axis=1)
    tell(engine, image(panorama, 1), image(shifted, 2))
    late = tell(engine, mask_at(100, 100, stamp=SECOND))[-1]
    assert ids(late) == [1]
    assert late.stamp == 2 * SECOND
    assert tell(engine, mask_at(200, 100, stamp=3 * SECOND)) == []  # its image is to come
    early = tell(engine, image(panorama, 3))[-1]
    assert ids(early) == [1, 2]
    assert early.instances.labels[100, 200] == 2
    (rejection,) = tell(engine, click(200, 100, stamp=SECOND))[-1].rejections
    assert "no longer kept" in rejection.reason


def test_a_prompt_whose_image_never_comes_is_taken_on_the_newest(make_engine, panorama):
    engine = make_engine(patience=0.5)
    tell(engine, image(panorama, 1))
    engine.take(mask_at(*AHEAD, stamp=9 * SECOND), 10.0)
    assert not engine.busy(10.4)
    assert engine.busy(10.6)
    assert ids(run(engine, 10.6)[-1]) == [1]


def test_an_old_direction_goes_through_the_fixed_frame(make_engine, panorama):
    transforms = KnownTransforms()
    engine = make_engine(transforms, fixed_frame="odom", keep_images=0)
    old = PromptGiven(
        points=np.array([[1.0, 0, 0]]), space=Space.DIRECTIONS, stamp=SECOND, frame_id="camera"
    )
    tell(engine, image(panorama, 3), old)
    assert (Stamped("camera", 3 * SECOND), Stamped("camera", SECOND), "odom") in transforms.asked


def test_work_an_answer_is_bounded_and_the_newest_image_comes_first(make_engine, panorama):
    engine = make_engine(max_objects=300)
    engine.take(image(panorama, 1), 0.0)
    for i in range(PROMPTS_PER_ANSWER + 3):
        engine.take(mask_at(20 + 30 * i, 60), 0.0)
    first = engine.work(0.0)
    assert len(first.objects) == PROMPTS_PER_ANSWER
    engine.take(image(panorama, 2), 0.0)
    second = engine.work(0.0)
    assert second.stamp == 2 * SECOND
    assert len(second.objects) == PROMPTS_PER_ANSWER + 3
    for i in range(60):
        engine.take(mask_at(20 + 7 * i, 160, 4), 0.0)
    run(engine, 0.0)
    engine.take(image(panorama, 3), 0.0)
    pending = [i for i, s in states(engine.work(0.0)).items() if s == State.PENDING]
    assert len(pending) == PROMPTS_PER_ANSWER + 3 + 60 - OBJECTS_PER_ANSWER
    engine.take(image(panorama, 4), 0.0)
    after = states(engine.work(0.0))
    assert all(after[i] != State.PENDING for i in pending[:OBJECTS_PER_ANSWER])  # their turn


def test_prompts_beyond_what_may_wait_are_rejected(make_engine, panorama):
    engine = make_engine()
    accepted = [Future() for _ in range(MAX_WAITING + 1)]
    for future in accepted:
        engine.take(click(5, 5, accepted=future), 0.0)
    assert "are waiting" in str(accepted[-1].exception(0))
    assert not any(future.done() for future in accepted[:-1])
    engine.close()
    assert "deactivated" in str(accepted[0].exception(0))


def test_a_reset_interrupts_the_work_at_the_next_view(random_model, panorama):
    urgent = []
    engine = Engine(
        PanoramaSession(random_model, "scan"), Settings(), interrupted=lambda: bool(urgent)
    )
    engine.take(image(panorama, 1), 0.0)
    engine.take(click(300, 120), 0.0)
    urgent.append("reset")
    assert engine.work(0.0) is None
    engine.take(Reset(), 0.0)
    urgent.clear()
    answer = engine.work(0.0)
    assert answer.objects == ()
    assert answer.encoded <= 1
    assert answer.changed


def test_interrupted_work_goes_on_where_it_was(random_model, panorama):
    """A prompt that was interrupted stays on its own image."""
    urgent = []
    engine = Engine(
        PanoramaSession(random_model, "direct"), Settings(), interrupted=lambda: bool(urgent)
    )
    engine.take(image(panorama, 1), 0.0)
    engine.take(mask_at(100, 100), 0.0)
    urgent.append("remove")
    assert engine.work(0.0) is None
    urgent.clear()
    engine.take(image(np.roll(panorama, 200, axis=1), 2), 0.0)
    answer = engine.work(0.0)
    assert ids(answer) == [1]
    assert answer.stamp == 2 * SECOND


def test_an_image_that_cannot_be_used_leaves_the_one_before(make_engine, panorama):
    engine = make_engine()
    tell(engine, image(panorama, 1), mask_at(*AHEAD))
    engine.take(image(panorama[:100], 2), 0.0)
    with pytest.raises(ValueError, match="twice as wide"):
        engine.work(0.0)
    assert not engine.busy(0.0)
    assert ids(tell(engine, mask_at(60, 60))[-1]) == [1, 2]


def test_limits_change_while_it_runs(make_engine, panorama):
    engine = make_engine()
    tell(engine, image(panorama, 1), mask_at(60, 60), Change(Settings(max_objects=1)))
    (rejection,) = tell(engine, mask_at(200, 60))[-1].rejections
    assert "max_objects is 1" in rejection.reason


@pytest.mark.parametrize(
    "wrong", [{"max_objects": 0}, {"keep_images": -1}, {"patience": -1.0}, {"cloud_tolerance": -1}]
)
def test_settings_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Settings(**wrong)


def test_a_click_between_two_images_is_on_the_one_that_was_shown(make_engine, panorama):
    """Tools stamp clicks with the time of clicking."""
    engine = make_engine()
    other = np.roll(panorama, 200, axis=1)
    tell(engine, image(panorama, 1), image(other, 2))
    between = mask_at(100, 100, stamp=SECOND + SECOND // 2)
    (answer,) = tell(engine, between)
    assert ids(answer) == [1]
    assert not answer.rejections
    engine = make_engine()
    tell(engine, image(panorama, 1))
    assert tell(engine, between) == []  # its own image might still come
    answers = tell(engine, image(other, 2))
    assert ids(answers[-1]) == [1]
    assert not answers[-1].rejections


def test_a_removal_finds_the_prompt_that_came_just_before_it(make_engine, panorama):
    engine = make_engine()
    tell(engine, image(panorama, 1))
    for event in (mask_at(100, 100), Remove(1), Remove(9)):
        engine.take(event, 0.0)
    answer = run(engine, 0.0)[-1]
    assert answer.objects == ()
    assert "no object has the id 9" in answer.problems[0]


def test_a_prompt_that_was_given_up_makes_no_object(make_engine, panorama):
    engine = make_engine()
    accepted: Future[int] = Future()
    engine.take(mask_at(*AHEAD, accepted=accepted), 0.0)
    assert accepted.cancel()
    (answer,) = tell(engine, image(panorama, 1))
    assert answer.objects == ()


def test_prompts_that_nobody_looked_for_are_searched_for_some_an_answer(make_engine, panorama):
    engine = make_engine()
    engine.take(image(panorama, 1), 0.0)
    for i in range(12):
        engine.take(mask_at(20 + 30 * i, 60), 0.0)
    engine.accept(0.0)
    engine.accept(0.0)  # nobody listens meanwhile
    first = engine.work(0.0)
    looked = [i for i, state in states(first).items() if state != State.PENDING]
    assert len(looked) == PROMPTS_PER_ANSWER
    assert len(first.objects) == 12
    second = engine.work(0.0)
    assert all(state != State.PENDING for state in states(second).values())


def test_an_interruption_leaves_what_is_remembered(random_model, panorama):
    """Else a removal would change the masks of the other objects."""
    answers = []
    for breaks in (False, True):
        views = []

        def interrupted(views=views, breaks=breaks):
            views.append(1)
            return breaks and len(views) == 30

        engine = Engine(PanoramaSession(random_model, "scan"), interrupted=interrupted)
        tell(engine, image(panorama, 1), click(300, 120))
        engine.take(image(np.roll(panorama, 9, axis=1), 2), 0.0)
        found = [engine.work(0.0), engine.work(0.0)]
        assert (found[0] is None) == breaks
        tell(engine, image(np.roll(panorama, 20, axis=1), 3))
        answers.append(tell(engine, image(np.roll(panorama, 30, axis=1), 4))[-1])
    np.testing.assert_array_equal(answers[0].instances.labels, answers[1].instances.labels)
    assert answers[0].objects[0].score == answers[1].objects[0].score


def test_bearings_of_images_without_a_frame_are_not_known_in_another(make_engine, panorama):
    engine = make_engine(KnownTransforms(), target_frame="base_link")
    answer = tell(engine, image(panorama, 1, frame=""), mask_at(*AHEAD))[-1]
    assert math.isnan(answer.objects[0].azimuth)
    assert "no frame_id" in answer.problems[0]


def test_a_label_without_points_renames_an_object_and_leaves_its_mask(make_engine, panorama):
    engine = make_engine()
    accepted, unknown = Future(), Future()
    before = tell(engine, image(panorama, 1), mask_at(300, 100, label="chair"))[-1]
    after = tell(engine, PromptGiven(object_id=1, label="stool", accepted=accepted))[-1]
    assert accepted.result(0) == 1
    assert [(o.object_id, o.label) for o in after.objects] == [(1, "stool")]
    np.testing.assert_array_equal(after.instances.labels, before.instances.labels)
    tell(engine, PromptGiven(object_id=2, label="table", accepted=unknown))
    with pytest.raises(ValueError, match="no positive point"):
        unknown.result(0)
    assert engine.labels == {1: "stool"}
