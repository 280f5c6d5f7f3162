"""detections: boxes that start objects, that add nothing, and that cannot be used."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap_ros.core import sphere
from sap_ros.core.instances import Instances, State, measure
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.detections import SAME, AngularBox, DetectedObjects, angular_box, box_of_outline
from sap_ros.engine.events import (
    MAX_CLASSES,
    DetectedBox,
    Detections,
    Image,
    Remove,
    Reset,
    Settings,
    Space,
)
from sap_ros.engine.transforms import Transform

from .conftest import (
    SECOND,
    SIZE,
    KnownTransforms,
    ids,
    image,
    states,
    tell,
)

angles = st.floats(-math.pi, math.pi)
boxes = st.builds(
    lambda left, width, low, height: AngularBox(left, width, min(low + height, 1.5), low),
    angles, st.floats(0.05, 3.0), st.floats(-1.4, 1.2), st.floats(0.05, 1.0),
)  # fmt: skip


def area_by_counting(*of):
    """Solid angle of the directions that are in all boxes."""
    azimuth = np.linspace(-math.pi, math.pi, 721)[:-1] + math.pi / 720
    elevation = (np.arange(360) + 0.5) / 360 * math.pi - math.pi / 2
    inside = np.ones((360, 720), bool)
    for box in of:
        along = np.mod(box.left - azimuth, 2 * math.pi) <= box.width
        up = (elevation <= box.top) & (elevation >= box.bottom)
        inside &= up[:, None] & along
    return float((inside * np.cos(elevation)[:, None]).sum())


@given(boxes, boxes, angles)
def test_iou_is_that_of_the_directions_in_both_at_any_azimuth(one, other, roll):
    both, either = area_by_counting(one, other), area_by_counting(one) + area_by_counting(other)
    assert one.iou(other) == pytest.approx(both / (either - both), abs=0.06)
    assert one.iou(other) == pytest.approx(other.iou(one), abs=1e-9)
    rolled = [AngularBox(b.left + roll, b.width, b.top, b.bottom) for b in (one, other)]
    assert rolled[0].iou(rolled[1]) == pytest.approx(one.iou(other), abs=1e-9)
    assert one.iou(one) == pytest.approx(1)


@given(boxes)
def test_the_box_of_a_boxs_own_border_is_itself(box):
    u, v = np.linspace(0, 1, 20), np.linspace(1, 0, 20)
    across = np.concatenate([u, np.ones(20), u[::-1], np.zeros(20)])
    up = np.concatenate([np.ones(20), v, np.zeros(20), v[::-1]])
    outline = sphere.angles_to_direction(
        box.left - box.width * across, box.bottom + (box.top - box.bottom) * up
    )
    found = box_of_outline(outline)
    assert math.remainder(found.left - box.left, 2 * math.pi) == pytest.approx(0, abs=1e-9)
    assert (found.width, found.top, found.bottom) == pytest.approx(
        (box.width, box.top, box.bottom), abs=1e-9
    )


def test_a_box_in_pixels_may_lie_past_the_border():
    picture = Image((400, 200), lambda: None)

    def at(left, top, right, bottom):
        outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
        return angular_box(outline, picture, ImageAxes(), Transform())

    past, before = at(380, 50, 420, 150), at(-20, 50, 20, 150)
    assert past.iou(before) == pytest.approx(1)
    assert past.width == pytest.approx(math.tau / 10)
    assert (past.top, past.bottom) == pytest.approx((math.pi / 4, -math.pi / 4))
    assert at(10, -30, 20, 100).top == pytest.approx(math.pi / 2)
    for wrong in (
        (10, 20, 10, 40),
        (10, 40, 20, 40),
        (0, 10, 401, 20),
        (0, -9, 9, 0),
        (0, 200, 9, 210),
    ):
        with pytest.raises(ValueError, match="400x200"):
            at(*wrong)
    with pytest.raises(ValueError, match="not finite"):
        at(math.nan, 0, 9, 9)


def test_an_outline_round_a_pole_or_nothing_is_no_box():
    around = sphere.angles_to_direction(np.linspace(-3, 3, 20), np.full(20, 1.2))
    with pytest.raises(ValueError, match="pole"):
        box_of_outline(around)
    with pytest.raises(ValueError, match="empty"):
        box_of_outline(np.tile([1.0, 0, 0], (8, 1)))


# Through the engine


def detected(u, v, size=40, label="disk", score=0.9):
    half = size / 2
    outline = [
        (u - half, v - half),
        (u + half, v - half),
        (u + half, v + half),
        (u - half, v + half),
    ]
    return DetectedBox(np.array(outline, float), label, score)


def array(seconds, *boxes, **fields):
    return Detections(boxes, stamp=seconds * SECOND, **fields)


# The disks of the fixture ``spots`` are ahead, to the left and to the right.
AHEAD, LEFT, RIGHT = (256, 128), (128, 128), (384, 128)


@pytest.fixture(scope="module")
def disks():
    """A panorama with three disks."""
    v, u = np.mgrid[:256, :512] + 0.5
    rays = sphere.pixel_to_direction(np.stack([u, v], -1), SIZE)
    picture = np.full((256, 512, 3), 200, np.uint8)
    colours = ((220, 60, 30), (40, 160, 40), (40, 60, 200))
    for (column, row), shade in zip((AHEAD, LEFT, RIGHT), colours, strict=True):
        picture[rays @ sphere.pixel_to_direction((column, row), SIZE) > np.cos(0.25)] = shade
    return picture


def test_boxes_start_objects_by_name_and_add_nothing_afterwards(make_engine, disks):
    engine = make_engine()
    first = array(1, detected(*AHEAD, label="ball"), detected(*LEFT, label="disk"))
    answers = tell(engine, image(disks, 1), first, image(disks, 2))
    assert answers[-1].labels == {1: "ball", 2: "disk"}
    assert set(states(answers[-1]).values()) == {State.TRACKED}
    again = array(2, detected(*AHEAD, size=34), detected(*LEFT, size=44, label="other"))
    third = array(2, detected(*RIGHT))
    answers = tell(engine, again, third, image(disks, 3))
    assert answers[-1].labels == {1: "ball", 2: "disk", 3: "disk"}
    for report in answers[-1].objects:
        assert not report.reason


def test_boxes_that_overlap_in_one_array_are_one_object(make_engine, disks):
    engine = make_engine()
    twice = array(
        1, detected(*AHEAD, label="cup", score=0.6), detected(*AHEAD, label="mug", score=0.8)
    )
    assert tell(engine, image(disks, 1), twice)[-1].labels == {1: "mug"}


def test_classes_scores_and_the_number_are_limited(make_engine, disks):
    engine = make_engine(detection_classes=("disk",), detection_score=0.5, detection_objects=1)
    boxes = (
        detected(*AHEAD, label="chair"),
        detected(*LEFT, score=0.4),
        detected(*RIGHT, score=0.6),
        detected(300, 200, score=0.55),
    )
    answer = tell(engine, image(disks, 1), array(1, *boxes))[-1]
    assert answer.labels == {1: "disk"}
    (found,) = answer.objects
    assert found.azimuth == pytest.approx(-math.pi / 2, abs=0.1)
    assert not answer.rejections
    # A removed object makes room.
    answers = tell(engine, Remove(1), array(1, detected(*RIGHT)), image(disks, 2))
    assert answers[-1].labels == {2: "disk"}
    assert tell(engine, Reset(), array(2, detected(*LEFT)))[-1].labels == {1: "disk"}


def test_a_lost_object_is_prompted_again_after_a_time_by_a_box_of_its_label():
    here, there = AngularBox(0.2, 0.4, 0.2, -0.2), AngularBox(2.2, 0.4, 0.2, -0.2)
    objects, labels = DetectedObjects(), {1: "ball", 2: "cup"}
    objects.start(1, here)
    lost = measure(np.zeros((4, 8), bool), 1, 0.0)
    objects.found(Instances(np.zeros((4, 8), np.uint8), (lost,)), 10 * SECOND)
    objects.found(Instances(np.zeros((4, 8), np.uint8), (lost,)), 11 * SECOND)

    def prompted(label, seconds, restart=2.0):
        now = seconds * SECOND
        return objects.object_of(there, label, labels, now, now, restart)

    assert prompted("ball", 11) is None
    assert prompted("ball", 12) == 1
    assert prompted("cup", 11) == 0
    assert prompted("ball", 11, restart=0.0) == 0
    objects.start(1, there)
    assert prompted("ball", 20) is None  # it was started there, and was not looked for yet
    assert objects.object_of(here, "ball", labels, 20 * SECOND, 20 * SECOND, 2.0) == 0


def test_a_late_box_is_compared_with_the_objects_of_its_own_image(make_engine, disks):
    """The robot turns, and the detector is two images late."""
    engine = make_engine()

    def turned(k):
        return np.roll(disks, 24 * k, axis=1)

    tell(engine, image(turned(0), 1), array(1, detected(*AHEAD)))
    for k in range(1, 4):
        tell(engine, image(turned(k), 1 + k))
    answers = tell(engine, array(2, detected(AHEAD[0] + 24, AHEAD[1])), image(turned(3), 5))
    assert answers[-1].labels == {1: "disk"}


def test_lost_objects_make_room_for_others():
    objects = DetectedObjects()
    objects.start(1, AngularBox(0.2, 0.4, 0.2, -0.2))
    assert objects.count == 1
    lost = measure(np.zeros((4, 8), bool), 1, 0.0)
    objects.found(Instances(np.zeros((4, 8), np.uint8), (lost,)), SECOND)
    assert objects.count == 0


def test_detections_start_nothing_while_nobody_listens(make_engine, disks):
    """Then nothing is looked for, with which the boxes could be compared."""
    engine = make_engine()
    for k in range(1, 5):
        engine.take(image(np.roll(disks, 30 * k, axis=1), k), 0.0)
        engine.take(array(k, detected(AHEAD[0] + 30 * k, AHEAD[1])), 0.0)
        engine.accept(0.0)
    assert engine.labels == {}
    assert engine.has_objects  # detections wait


def test_a_lost_object_comes_back_with_a_box_under_its_id(make_engine, disks):
    engine = make_engine(detection_restart=2.0)
    tell(engine, image(disks, 1), array(1, detected(*AHEAD, label="ball")))
    bare = np.full_like(disks, 200)
    (lost,) = tell(engine, image(bare, 2))[-1].objects
    assert lost.state == State.LOST
    other = bare.copy()  # it has moved, and changed its colour
    cv2.circle(other, RIGHT, 20, (40, 60, 200), -1)
    answers = tell(engine, image(other, 5), array(5, detected(*RIGHT, label="ball")))
    assert answers[-1].labels == {1: "ball"}
    (found,) = answers[-1].objects
    assert found.state == State.TRACKED
    assert found.azimuth == pytest.approx(-math.pi / 2, abs=0.1)


def test_without_a_restart_the_box_starts_a_new_object(make_engine, disks):
    engine = make_engine(detection_restart=0.0)
    tell(engine, image(disks, 1), array(1, detected(*AHEAD, label="ball")))
    tell(engine, image(np.full_like(disks, 200), 2))
    answers = tell(engine, image(disks, 3), array(3, detected(*LEFT, label="ball")))
    assert answers[-1].labels == {1: "ball", 2: "ball"}


def test_boxes_of_another_camera_are_directions_in_its_frame(make_engine, disks):
    """A camera that looks to the left of the panorama; its optical axes are x right, y down."""
    left = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    engine = make_engine(KnownTransforms(front_to_camera=Transform(left, np.zeros(3))))
    half = 0.3
    square = np.array([(-half, -half, 1), (half, -half, 1), (half, half, 1), (-half, half, 1)])
    box = DetectedBox(square, "disk", 1.0)
    event = Detections((box,), Space.DIRECTIONS, SECOND, "front")
    (found,) = tell(engine, image(disks, 1), event)[-1].objects
    assert found.azimuth == pytest.approx(math.pi / 2, abs=0.1)


def test_what_cannot_be_used_is_said_in_one_line(make_engine, disks):
    engine = make_engine()
    bad = DetectedBox(np.full((4, 2), math.nan), "disk", 1.0)
    answer = tell(engine, image(disks, 1), array(1, bad, detected(256, 900), detected(*AHEAD)))[-1]
    (rejection,) = answer.rejections
    assert rejection.reason.startswith("2 of 3 detections cannot be used; the first: ")
    assert answer.labels == {1: "disk"}
    (elsewhere,) = tell(engine, array(1, detected(*LEFT), frame_id="front"))[-1].rejections
    assert "'front'" in elsewhere.reason
    assert "CameraInfo" in elsewhere.reason
    event = Detections((detected(*LEFT),), Space.DIRECTIONS, SECOND, "nowhere")
    (unknown,) = tell(engine, event)[-1].rejections
    assert "1 of 1 detections" in unknown.reason
    assert ids(tell(engine, image(disks, 2))[-1]) == [1]


def test_too_many_classes_are_named():
    with pytest.raises(ValueError, match=f"10000 classes; at most {MAX_CLASSES}"):
        Settings(detection_classes=tuple(map(str, range(10000))))


def test_the_threshold_tells_neighbours_from_the_same_object():
    one = AngularBox(0.0, 0.2, 0.1, -0.1)
    assert one.iou(AngularBox(0.05, 0.2, 0.1, -0.1)) > SAME
    assert one.iou(AngularBox(0.15, 0.2, 0.1, -0.1)) < SAME
