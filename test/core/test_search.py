"""search: the first view of a click is one that is needed already, if that shows the click well."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.encoding import EncodedViews
from sap_ros.core.framing import Framing
from sap_ros.core.projection import Panorama
from sap_ros.core.prompts import Prompt
from sap_ros.core.scan import DEFAULT_SCAN
from sap_ros.core.search import ObjectViewSearch
from sap_ros.core.tracked_object import TrackedObject
from sap_ros.core.views import PerspectiveViews


def _search(model, panorama):
    views = PerspectiveViews(Panorama(panorama), model.image_size, DEFAULT_SCAN)
    return ObjectViewSearch(EncodedViews(model, views), Framing(), begin_on_scan=True)


def _begin(search, degrees):
    """The view for a click on the horizon."""
    click = sphere.angles_to_direction(np.radians(degrees), 0.0)
    return search.first_view(TrackedObject(Prompt(1, click[None], np.ones(1, np.int32))))


@settings(deadline=None, max_examples=20)
@given(turn=st.integers(0, 7), side=st.sampled_from([-1, 1]))
def test_a_click_well_inside_a_view_that_is_needed_begins_with_that_view(
    random_model, panorama, turn, side
):
    """25 degrees from its middle, though another view is nearer; not 40 degrees from it."""
    search, middle = _search(random_model, panorama), 45 * turn
    first = _begin(search, middle)
    assert np.allclose(
        DEFAULT_SCAN.views[first].axis, sphere.angles_to_direction(np.radians(middle), 0.0)
    )
    assert _begin(search, middle + 25 * side) == first
    assert _begin(search, middle + 40 * side) != first
    # Of the two that are needed now, the nearer one.
    assert _begin(search, middle + 30 * side) != first


def test_views_fitted_to_objects_are_none_of_the_scan(random_model, panorama):
    search = _search(random_model, panorama)
    views = search.encoded.views
    search.encoded.features(views.add(DEFAULT_SCAN.views[0]))
    assert _begin(search, 100) < len(views)


@pytest.mark.parametrize("degrees", [0, 25])
def test_an_encoded_view_of_the_scan_comes_first(random_model, panorama, degrees):
    search = _search(random_model, panorama)
    view = DEFAULT_SCAN.nearest(np.array([1.0, 0.0, 0.0]))
    search.encoded.features(view)
    assert _begin(search, degrees) == view
