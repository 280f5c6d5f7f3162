"""Views and windows of every kind of source."""

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


def test_processes_share_the_samples_and_a_resumed_run_goes_on():
    whole = list(Numbers(0, 4, 4, 0, 1))
    halves = [list(Numbers(0, 4, 2, r, 2)) for r in range(2)]
    assert sorted(halves[0] + halves[1]) == whole == list(range(16))
    for step in range(4):
        batch = set(halves[0][2 * step : 2 * step + 2]) | set(halves[1][2 * step : 2 * step + 2])
        assert batch == set(range(4 * step, 4 * step + 4))
    assert list(Numbers(2, 4, 4, 0, 1)) == whole[8:]
