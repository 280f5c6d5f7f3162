"""tracker: the same masks as SAM 2's own video predictor on the same frames."""

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from sap_ros.core.checkpoints import build_architecture
from sap_ros.core.model import Model
from sap_ros.core.prompts import ViewPrompt, from_pixels
from sap_ros.core.rendering import ViewRenderer
from sap_ros.core.scan import Scan
from sap_ros.core.session import PanoramaSession
from sap_ros.core.tracker import track

SIZE, COUNT = 256, 6


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def tiny(request):
    torch.manual_seed(0)
    sam = build_architecture("sam2.1-tiny", SIZE)
    return Model(sam, "random tiny", backend=request.param)


@pytest.fixture(scope="module")
def frames(panorama, tmp_path_factory):
    """Six views of a scan, and the folder of JPEGs that the predictor reads."""
    folder = tmp_path_factory.mktemp("frames")
    renderer = ViewRenderer(panorama, SIZE)
    for i, view in enumerate(Scan().views[:COUNT]):
        Image.fromarray(renderer.render(view)).save(folder / f"{i:05d}.jpg", quality=95)
    return folder, [np.array(Image.open(folder / f"{i:05d}.jpg")) for i in range(COUNT)]


def _predictor(model):
    """SAM 2's predictor around the same network: its class is swapped, its weights are shared."""
    predictor = SAM2VideoPredictor.__new__(SAM2VideoPredictor)
    predictor.__dict__ = model.sam.__dict__.copy()
    predictor.fill_hole_area = 0
    predictor.non_overlap_masks = False
    predictor.clear_non_cond_mem_around_input = False
    predictor.add_all_frames_to_correct_as_cond = False
    return predictor


@pytest.mark.parametrize(
    "clicks",
    [
        {0: [(130.0, 90.0, 1)]},
        {0: [(130.0, 90.0, 1), (20.0, 200.0, 0), (90.0, 90.0, 1)]},
        {0: [(130.0, 90.0, 1)], 2: [(40.0, 60.0, 1)]},
    ],
    ids=["one click", "three clicks", "clicks on two views"],
)
def test_masks_equal_those_of_sam2s_predictor(tiny, frames, clicks):
    folder, views = frames
    predictor = _predictor(tiny)
    state = predictor.init_state(str(folder))
    for frame, points in clicks.items():
        at = np.array(points, np.float32)
        predictor.add_new_points_or_box(
            state, frame, 1, points=at[:, :2], labels=at[:, 2].astype(np.int32)
        )
    theirs = {i: masks for i, _, masks in predictor.propagate_in_video(state)}
    low = state["output_dict_per_obj"][0]
    low = {**low["cond_frame_outputs"], **low["non_cond_frame_outputs"]}

    features = {i: tiny.encode(view) for i, view in enumerate(views)}
    given = {
        i: ViewPrompt(np.array(p, np.float32)[:, :2], np.array(p)[:, 2].astype(np.int32))
        for i, p in clicks.items()
    }
    ours = track(tiny, features.__getitem__, range(COUNT), given)
    assert set(ours) == set(theirs) == set(range(COUNT))
    for i in range(COUNT):
        expected = low[i]["pred_masks"][0, 0].numpy()
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(ours[i].logits, expected, atol=1e-5, rtol=1e-5)
        assert ours[i].object_score == pytest.approx(low[i]["object_score_logits"].item(), abs=1e-5)


def test_a_further_click_equals_that_of_sam2s_predictor(tiny, frames):
    """It is decoded from all clicks of the view, and from the mask logits before."""
    folder, views = frames
    predictor = _predictor(tiny)
    state = predictor.init_state(str(folder))
    clicks = np.array([(130, 90), (60, 200), (200, 40)], np.float32)
    labels = np.array([1, 0, 1], np.int32)
    features = tiny.encode(views[0])
    previous = None
    for k in range(len(clicks)):
        predictor.add_new_points_or_box(
            state, 0, 1, points=clicks[k : k + 1], labels=labels[k : k + 1], clear_old_points=False
        )
        expected = state["temp_output_dict_per_obj"][0]["cond_frame_outputs"][0]["pred_masks"]
        prompt = ViewPrompt(clicks[: k + 1], labels[: k + 1], previous=previous)
        found = track(tiny, lambda _: features, (0,), {0: prompt})[0].logits
        np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5, rtol=1e-5)
        if k:
            plain = ViewPrompt(clicks[: k + 1], labels[: k + 1])
            anew = track(tiny, lambda _: features, (0,), {0: plain})[0].logits
            assert np.abs(anew - found).max() > 1e-3  # the logits before make a difference
        previous = found


@pytest.mark.parametrize("strategy", ["auto", "frontier", "scan", "direct", "patches"])
def test_a_session_corrects_the_mask_before(random_model, panorama, strategy):
    """In the views that were visited, unless the object is drawn anew or on a later panorama."""
    session = PanoramaSession(random_model, strategy)
    session.set_image(panorama)
    session.add_prompt(from_pixels(1, [(300, 120)], (512, 256)))
    session.segment()
    first = {i: mask.logits for i, (_, mask) in session.view_masks(1).items()}
    given = []
    decode = random_model.decode

    def spy(*arguments):
        given.append(arguments[6])
        return decode(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_model, "decode", spy)
        session.add_prompt(from_pixels(1, [(305, 125)], (512, 256), [0]))
        session.segment()
        corrected = [logits for logits in given if logits is not None]
        assert corrected
        for logits in corrected:
            assert any(np.array_equal(logits[0, 0].numpy(), before) for before in first.values())
        given.clear()
        session.next_image(panorama)
        session.add_prompt(from_pixels(1, [(300, 120)], (512, 256)))
        session.segment()
        assert all(logits is None for logits in given)


def test_the_order_of_views_is_free_and_each_is_visited_once(random_model, panorama):
    renderer = ViewRenderer(panorama, 64)
    views = Scan().views
    encoded = []

    def features(i):
        encoded.append(i)
        return random_model.encode(renderer.render(views[i]))

    order, done = (7, 3, 20, 11), []
    click = ViewPrompt(np.array([[30.0, 30.0]], np.float32), np.array([1], np.int32))
    found = track(random_model, features, order, {7: click}, done.append)
    assert encoded == done == [7, 3, 20, 11]
    assert set(found) == set(order)
    assert all(0 <= mask.predicted_iou <= 1 for mask in found.values())


def test_without_a_click_there_is_nothing_to_track(random_model):
    with pytest.raises(ValueError, match="prompted"):
        track(random_model, lambda i: None, (0, 1), {})


def test_the_predictors_configuration_is_the_one_of_build_sam(tiny):
    """The overrides that are set by hand are those that SAM 2's own builder sets."""
    import inspect

    from sam2 import build_sam

    text = inspect.getsource(build_sam.build_sam2_video_predictor)
    for override in (
        "sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
        "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
        "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
        "binarize_mask_from_pts_for_mem_enc=true",
    ):
        assert override in text
    decoder = tiny.sam.sam_mask_decoder
    assert decoder.dynamic_multimask_stability_delta == 0.05
    assert decoder.dynamic_multimask_stability_thresh == 0.98
