"""ranging: points on masks."""

import numpy as np
import pytest

from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.ranging import ids_of_points, ranges_of_objects
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


@pytest.mark.parametrize("axes", [ImageAxes(), ImageAxes(0.3, "optical")])
def test_points_fall_on_the_objects_they_come_from(axes):
    scene = MovingScene(0)
    _, labels = scene.render(1.0, SIZE)
    points, true = scene.scan(1.0)
    ids = ids_of_points(axes.to_frame(points), labels, axes)
    assert (ids == true).mean() > 0.98
    found = ranges_of_objects(axes.to_frame(points), ids)
    seen = [i for i in np.unique(true[true > 0]) if (true == i).sum() > 20]
    assert len(seen) >= 3
    for i in seen:
        on = np.linalg.norm(points[true == i], axis=1)
        assert found[int(i)] == pytest.approx(np.median(on), rel=0.05)


def test_points_past_the_rim_do_not_change_the_range():
    near, far = np.tile([2.0, 0, 0], (20, 1)), np.tile([9.0, 0, 0], (8, 1))
    points = np.concatenate([near, far])
    assert ranges_of_objects(points, np.ones(28, np.uint16)) == {1: pytest.approx(2.0)}


def test_too_few_points_are_no_range():
    assert ranges_of_objects(np.ones((2, 3)), np.ones(2, np.uint16)) == {}
