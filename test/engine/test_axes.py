"""axes: the panorama in the frame of its header."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.engine.axes import ImageAxes


@given(st.floats(0, 1), st.sampled_from(["body", "optical"]))
def test_vectors_go_to_the_frame_and_back(column, convention):
    axes = ImageAxes(column, convention)
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(axes.from_frame(axes.to_frame(vectors)), vectors, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(axes.rotation), 1)


@given(st.floats(0, 1))
def test_the_forward_column_looks_along_the_axis_ahead(column):
    from sap_ros.core import sphere

    seen = sphere.pixel_to_direction((column * 512, 128), (512, 256))
    np.testing.assert_allclose(ImageAxes(column).to_frame(seen), [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(ImageAxes(column, "optical").to_frame(seen), [0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("values", [(1.5, "body"), (-0.1, "body"), (0.5, "ned")])
def test_values_out_of_range_are_named(values):
    with pytest.raises(ValueError, match="must"):
        ImageAxes(*values)
