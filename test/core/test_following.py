"""session on a stream: objects are carried on, memory and views are bounded, the lost come back."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sap_ros.core import search, sphere, tracker
from sap_ros.core.camera import sees
from sap_ros.core.instances import State
from sap_ros.core.loading import load_model
from sap_ros.core.motion import Following
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import Prompt, from_pixels
from sap_ros.core.scan import Scan
from sap_ros.core.search import STRATEGIES
from sap_ros.core.session import PanoramaSession
from sap_ros.core.views import PerspectiveViews, cover
from sap_ros.synthesis.moving import MovingScene

SIZE = (1024, 512)


def _iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def _middle(mask):
    v, u = np.nonzero(mask)
    middle = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, SIZE).mean(0)
    return Prompt(1, middle[None], np.array([1]))


@pytest.fixture(scope="module")
def nano():
    return load_model()


@pytest.mark.parametrize(("strategy", "first", "most"), [("auto", 3, 2), ("scan", 24, 4)])
def test_an_object_is_followed_with_few_views(nano, strategy, first, most):
    scene, session = MovingScene(0), PanoramaSession(nano, strategy)
    image, truth = scene.render(0, SIZE)
    session.set_image(image)
    session.add_prompt(_middle(truth == 5))
    session.segment()
    assert session.encoded <= first
    found = []
    for i in range(1, 6):
        image, truth = scene.render(0.2 * i, SIZE)
        session.next_image(image)
        found.append(_iou(session.segment().labels == 1, truth == 5))
        assert session.encoded <= most
    assert np.mean(found) > 0.7


def test_following_by_memory_alone_goes_on(random_model, panorama):
    """A model that is not helped by clicks: SAM 2's own memory, which stays bounded."""
    session = PanoramaSession(
        random_model, "scan", following=Following(min_score=0, max_growth=1e9)
    )
    session.set_image(panorama)
    session.add_prompt(from_pixels(1, [(300, 120)], (512, 256)))
    session.segment()
    sizes = []
    for turn in range(30):
        session.next_image(np.roll(panorama, turn, axis=1))
        session.segment()
        sizes.append(len(session._objects[1].memory))
    assert max(sizes) <= 12 + 16 + 24
    assert sizes[-1] <= max(sizes[:28])


def test_a_lost_object_keeps_its_id_and_the_whole_sphere_is_searched(
    random_model, panorama, monkeypatch
):
    session = PanoramaSession(random_model, "scan", following=Following(search=4))
    session.set_image(panorama)
    session.add_prompt(from_pixels(7, [(300, 120)], (512, 256)))
    assert session.segment().objects[0].state == State.TRACKED
    score = random_model.sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    monkeypatch.setattr(score, "data", torch.full_like(score, -5.0))  # it is seen no more
    visited = set()
    for _ in range(8):
        session.next_image(panorama)
        (thing,) = session.segment().objects
        assert (thing.object_id, thing.state) == (7, State.LOST)
        visited |= set(session.view_masks(7))
        assert session.encoded < 12
    assert visited == set(range(24))


def test_an_object_that_comes_back_is_found_again(nano):
    scene, session = MovingScene(0), PanoramaSession(nano)
    image, truth = scene.render(0, SIZE)
    session.set_image(image)
    session.add_prompt(_middle(truth == 1))
    session.segment()
    session.next_image(np.full_like(image, 128))
    session.segment()
    states = []
    for _ in range(4):
        session.next_image(image)
        states.append(session.segment().objects[0].state)
    assert State.TRACKED in states


def test_an_object_that_comes_back_elsewhere_is_found_by_its_appearance(nano):
    """The robot has turned by a quarter while nothing could be seen."""
    scene, session = MovingScene(0), PanoramaSession(nano)
    image, truth = scene.render(0, SIZE)
    session.set_image(image)
    session.add_prompt(_middle(truth == 6))
    session.segment()
    session.next_image(np.full_like(image, 128))
    assert session.segment().objects[0].state == State.LOST
    image, truth = np.roll(image, SIZE[0] // 4, axis=1), np.roll(truth, SIZE[0] // 4, axis=1)
    for _ in range(13):  # two views of the scan, of 24, are searched in each image
        session.next_image(image)
        found = session.segment()
        if found.objects[0].state == State.TRACKED:
            break
    for _ in range(3):  # and it is held: the quarter is not taken for its motion
        assert _iou(found.labels == 1, truth == 6) > 0.8
        session.next_image(image)
        found = session.segment()


def test_a_wide_object_whose_mask_drifts_onto_the_wall_is_found_again(nano, panorama, monkeypatch):
    """It is followed in views of the scan, where nothing but its appearance tells that the mask is on something else."""
    image = cv2.resize(panorama, SIZE)
    truth = np.zeros(SIZE[::-1], bool)
    truth[180:350, 430:600] = True  # 60 degrees wide
    image[truth] = (200, 40, 40)
    session = PanoramaSession(nano)
    session.set_image(image)
    session.add_prompt(Prompt(1, mask=truth))
    session.segment()
    drifted = []

    def follow(model, features, order, memory, prompts, priors, accept, *more):
        def after(view, mask):
            drifted.append(view)
            mask.logits[:] = -mask.logits
            return accept(view, mask)

        return tracker.follow(model, features, order, memory, prompts, priors, after, *more)

    monkeypatch.setattr(search, "follow", follow)
    session.next_image(image)
    found = session.segment().labels == 1
    assert drifted
    assert all(view < 24 for view in drifted)  # of the scan
    assert _iou(found, truth) > 0.7


def test_objects_come_and_go_with_no_effect_on_the_others(nano):
    scene = MovingScene(0)
    frames = [scene.render(0.2 * i, SIZE) for i in range(3)]

    def run(others):
        session = PanoramaSession(nano)
        session.set_image(frames[0][0])
        session.add_prompt(_middle(frames[0][1] == 5))
        session.segment()
        for i, (image, truth) in enumerate(frames[1:]):
            session.next_image(image)
            if others and i == 0:
                prompt = _middle(truth == 4)
                session.add_prompt(Prompt(2, prompt.directions, prompt.labels))
            instances = session.segment()
        if others:
            assert [thing.object_id for thing in instances.objects] == [1, 2]
            session.remove_object(2)
            instances = session.segment()
        return instances.labels == 1

    np.testing.assert_array_equal(run(False), run(True))


def test_a_mask_as_a_prompt_is_the_answer_in_its_views(nano):
    image, truth = MovingScene(0).render(0, SIZE)
    session = PanoramaSession(nano)
    session.set_image(image)
    session.add_prompt(Prompt(1, mask=truth == 5))
    assert _iou(session.segment().labels == 1, truth == 5) > 0.8


def test_a_box_as_a_prompt(nano):
    image, truth = MovingScene(3).render(0, SIZE)
    found = []
    for i in range(1, 7):
        v, u = np.nonzero(truth == i)
        session = PanoramaSession(nano)
        session.set_image(image)
        box = (u.min(), v.min(), u.max() + 1, v.max() + 1)
        session.add_prompt(from_pixels(1, np.zeros((0, 2)), SIZE, box=box))
        found.append(_iou(session.segment().labels == 1, truth == i))
    assert np.min(found) > 0.9


def test_a_cover_sees_all_of_what_it_is_asked_for(panorama):
    frames = PerspectiveViews(Panorama(panorama), 64, Scan())
    rng = np.random.default_rng(0)
    for _ in range(50):
        centre = rng.normal(size=3)
        spread = rng.uniform(0.02, 0.6)
        directions = centre / np.linalg.norm(centre) + spread * rng.normal(size=(200, 3)) / 3
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        chosen = cover(frames, directions)
        views = [Scan().views[i] for i in chosen]
        seen = np.any([sees(view, directions) for view in views], axis=0)
        assert seen.mean() > 0.95
        assert len(chosen) == len(set(chosen)) <= 8


@pytest.mark.parametrize(
    "bad", [{"margin": -1}, {"min_score": 2}, {"max_growth": 0.5}, {"search": 25}]
)
def test_bad_limits_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Following(**bad)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_frames_leave_memory_as_it_is(nano, capsys):
    scene, session = MovingScene(0), PanoramaSession(nano)
    frames = [scene.render(0.2 * i, (512, 256))[0] for i in range(40)]
    loop = frames + frames[::-1]  # there and back: nothing jumps
    session.set_image(frames[0])
    for i, at in enumerate([(100, 120), (300, 120)], 1):
        session.add_prompt(from_pixels(i, [at], (512, 256)))
    used = []
    for i in range(1000):
        session.segment()
        if i % 100 == 99:
            used.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
        session.next_image(loop[i % len(loop)])
    with capsys.disabled():
        print(f"\nmemory at every 100th frame, MB: {[round(mb) for mb in used]}")
    assert max(used[2:]) - used[1] < 40


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_object_that_is_gone_is_lost_whatever_the_strategy(nano, strategy):
    scene, session = MovingScene(0), PanoramaSession(nano, strategy)
    image, truth = scene.render(0, SIZE)
    session.set_image(image)
    session.add_prompt(_middle(truth == 1))
    session.segment()
    for _ in range(3):
        session.next_image(np.full_like(image, 128))
        (gone,) = session.segment().objects
        assert gone.state == State.LOST
