"""Views and windows of every kind of source."""

import cv2
import numpy as np
import pytest

from sap_ros.training.config import Source
from sap_ros.training.data import Numbers, TrainingSamples
from sap_ros.training.sources import open_source


@pytest.mark.parametrize("kind", ["panoramas", "photographs", "videos", "sav"])
@pytest.mark.parametrize("scan", [True, False])
def test_clicks_lie_on_their_objects_in_every_view_that_sees_them(kind, scan, request):
    if kind != "panoramas" and not scan:
        pytest.skip("only panoramas are scanned")
    folder = request.getfixturevalue(kind)
    source = open_source(Source(kind, str(folder)), scan=scan)
    rng, first, later = np.random.default_rng(3), 0, 0
    for _ in range(60):
        window = source.window(64, 5, 4, rng)
        if window is None:
            continue
        assert window.images.shape == (5, 64, 64, 3)
        assert window.masks.dtype == bool
        for view in range(5):
            for k in np.flatnonzero(window.seen[view]):
                u, v = window.clicks[view, k].clip(0, 63).astype(int)
                mask = window.masks[view, k]
                # Another object may cover the spot in no view of one and the same panorama.
                assert mask[max(0, v - 2) : v + 3, max(0, u - 2) : u + 3].any()
                first, later = first + (view == 0), later + (view > 0)
    assert first > 10
    assert later > 5 or kind in ("videos", "sav")


@pytest.mark.parametrize("kind", ["panoramas", "photographs", "videos", "sav"])
def test_single_views_have_masks_of_their_size(kind, request):
    source = open_source(Source(kind, str(request.getfixturevalue(kind))))
    rng = np.random.default_rng(0)
    views = [view for view in (source.view(48, rng) for _ in range(30)) if view is not None]
    assert views
    for image, masks in views:
        assert image.shape == (48, 48, 3)
        assert masks.shape[1:] == (48, 48)
    assert any(masks.any() for _, masks in views)


def test_views_fitted_to_objects_show_them_larger(panoramas):
    def largest(object_views):
        source = open_source(Source("panoramas", str(panoramas)), object_views=object_views)
        rng = np.random.default_rng(0)
        views = [source.view(48, rng) for _ in range(40)]
        return np.mean([masks.mean((1, 2)).max(initial=0.0) for _, masks in views])

    assert largest(1.0) > 1.1 * largest(0.0)


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds nothing of the kind photographs"):
        open_source(Source("photographs", str(tmp_path)))


def test_a_sample_is_the_same_whoever_asks_for_it(make_config):
    config = make_config(view_share=0.5)
    one, other = TrainingSamples(config, 64), TrainingSamples(config, 64)
    other[3]
    for k in (7, 2, 11):
        a, b = one[k], other[k]
        assert a.keys() == b.keys()
        assert all(np.array_equal(np.asarray(a[name]), np.asarray(b[name])) for name in a)


@pytest.mark.parametrize("smallest", [0.002, 0.05])
def test_objects_below_the_smallest_share_of_a_view_are_not_used(make_config, smallest):
    config = make_config(stage="views", view_corrections=1, smallest=smallest)
    samples = TrainingSamples(config, 64)
    shares = np.concatenate([samples[k]["masks"].float().mean((1, 2)).numpy() for k in range(8)])
    assert shares.min() >= smallest
    assert (shares < 0.05).any() == (smallest < 0.05)


def test_processes_share_the_samples_and_a_resumed_run_goes_on():
    whole = list(Numbers(0, 4, 4, 0, 1))
    halves = [list(Numbers(0, 4, 2, r, 2)) for r in range(2)]
    assert sorted(halves[0] + halves[1]) == whole == list(range(16))
    for step in range(4):
        batch = set(halves[0][2 * step : 2 * step + 2]) | set(halves[1][2 * step : 2 * step + 2])
        assert batch == set(range(4 * step, 4 * step + 4))
    assert list(Numbers(2, 4, 4, 0, 1)) == whole[8:]


def test_what_the_index_says_of_its_source_may_be_left_out(photographs):
    index = photographs / "index.csv"
    index.write_text(
        "name,split,source\nsa_0,train,bsds\nsa_1,train,coco:license4\nsa_2,val,coco\n"
    )
    source = Source("photographs", str(photographs), index=str(index), leave_out="bsds|license2")
    assert [path.stem for path in open_source(source).files] == ["sa_1"]
    source.leave_out = ""
    assert [path.stem for path in open_source(source).files] == ["sa_0", "sa_1"]


def test_views_of_an_object_hold_it_beside_their_middle():
    from sap_ros.core.rendering import ViewRenderer
    from sap_ros.training.sources import FOV, _object_view

    instances = np.zeros((256, 512), np.uint16)
    cv2.circle(instances, (10, 128), 20, 1, -1)  # 14 degrees about a place near the seam
    cv2.circle(instances, (300, 60), 60, 2, -1)
    rng, fovs, middles = np.random.default_rng(0), [], []
    for _ in range(100):
        view = _object_view(instances, rng)
        fovs.append(np.degrees(view.fov))
        labels = ViewRenderer(instances, 64, labels=True).render(view)
        assert (labels > 0).mean() > 0.03
        middles.append(np.argwhere(labels > 0).mean(0) - 32)
    assert FOV[0] - 1e-9 <= min(fovs) < 50 < max(fovs) <= FOV[1] + 1e-9
    assert np.abs(middles).max(1).mean() > 5
    assert _object_view(np.zeros((8, 16), np.uint16), rng) is None


def test_an_object_crop_shows_the_object():
    from sap_ros.training.sources import _object_crop, _warped

    rng = np.random.default_rng(0)
    mask = np.zeros((300, 400), np.uint8)
    mask[100:160, 30:110] = 1
    image = np.zeros((300, 400, 3), np.uint8)
    for _ in range(50):
        _, (found,) = _warped(image, [mask], _object_crop(mask.shape, mask, 128, rng), 128)
        assert 0.03 < found.mean() < 0.9


def test_a_correction_is_an_error_and_knows_what_it_is_about():
    from sap_ros.training.prompts import correction

    true, found = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    true[10:40, 10:40] = True
    found[10:40, 30:60] = True  # 20 columns are missed, 20 too much
    rng, labels = np.random.default_rng(0), set()
    for _ in range(40):
        ((u, v),), (label,), about = correction(true, found, rng)
        u, v = int(u), int(v)
        assert (true ^ found)[v, u]
        assert label == true[v, u]
        assert about[v, u]
        assert (about == ((true & ~found) if label else (found & ~true))).all()
        labels.add(int(label))
    assert labels == {0, 1}
    (label,) = correction(true, true, rng)[1]
    assert label == -1


def test_a_camera_changes_the_picture_and_not_its_size():
    from sap_ros.training.camera import as_photographed

    image = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    rng = np.random.default_rng(0)
    made = [as_photographed(image, rng) for _ in range(20)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in made)
    assert sum(not np.array_equal(one, image) for one in made) > 15
