"""messages and camera_info: detections, depths and calibrations, without ROS."""

import math
from types import SimpleNamespace as Message

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sap_ros.camera_info import CameraModel
from sap_ros.engine.events import Space
from sap_ros.messages import MAX_DETECTIONS, attitude_event, depth_event, from_detections

HEAD = Message(stamp=Message(sec=3, nanosec=5), frame_id="front")


def camera_info(model="plumb_bob", d=(0.1, -0.05, 0.001, 0.002, 0.0), k=None, size=(640, 480)):
    return Message(
        header=HEAD,
        width=size[0],
        height=size[1],
        distortion_model=model,
        d=list(d),
        k=np.array(k or [500.0, 0, 320, 0, 510, 240, 0, 0, 1]),
    )


def detection(x, y, w, h, *results, theta=0.0):
    centre = Message(position=Message(x=x, y=y), theta=theta)
    hypotheses = [Message(hypothesis=Message(class_id=c, score=s)) for c, s in results]
    return Message(bbox=Message(center=centre, size_x=w, size_y=h), results=hypotheses)


def test_the_best_hypothesis_counts_and_the_outline_is_the_boxs():
    message = Message(
        header=HEAD,
        detections=[detection(100.0, 50.0, 40.0, 20.0, ("cat", 0.3), ("dog", 0.6)),
                    detection(0.0, 0.0, 1.0, 1.0)],
    )  # fmt: skip
    found = from_detections(message, None)
    assert (found.stamp, found.frame_id, found.space) == (3 * 10**9 + 5, "front", Space.PIXELS)
    first, second = found.boxes
    assert (first.label, first.score) == ("dog", 0.6)
    assert (second.label, second.score) == ("", 1.0)
    np.testing.assert_allclose(first.outline.min(0), [80, 40])
    np.testing.assert_allclose(first.outline.max(0), [120, 60])


def test_a_turned_box_has_its_corners():
    turned = detection(100.0, 50.0, 40.0, 20.0, theta=math.pi / 2)
    (box,) = from_detections(Message(header=HEAD, detections=[turned]), None).boxes
    np.testing.assert_allclose(box.outline.min(0), [90, 30])
    np.testing.assert_allclose(box.outline.max(0), [110, 70])


def test_too_many_detections_are_named():
    message = Message(header=HEAD, detections=[detection(0, 0, 1, 1)] * (MAX_DETECTIONS + 1))
    with pytest.raises(ValueError, match=f"{MAX_DETECTIONS + 1} detections; at most"):
        from_detections(message, None)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (0.1, -0.05, 0.001, 0.002, 0.0)),
        ("rational_polynomial", (0.1, -0.05, 0.001, 0.002, 0.01, 0.1, 0.02, 0.003)),
        ("equidistant", (0.05, -0.01, 0.002, 0.0)),
        ("", ()),
    ],
)
@given(u=st.floats(20, 620), v=st.floats(20, 460))
def test_a_pixel_becomes_the_direction_that_is_seen_there(model, d, u, v):
    camera = CameraModel.from_message(camera_info(model, d))
    (direction,) = camera.directions(np.array([[u, v]]))
    zero = np.zeros(3)
    project = cv2.fisheye.projectPoints if camera.fisheye else cv2.projectPoints
    shape = direction.reshape(1, 1, 3)
    back, _ = project(shape, zero, zero, camera.matrix, camera.distortion)
    np.testing.assert_allclose(back.ravel(), [u, v], atol=0.05)


def test_a_fisheyes_pixel_beyond_its_hemisphere_has_no_direction():
    info = camera_info(
        "equidistant", (-0.02, 0.0, 0.0, 0.0), k=[100.0, 0, 320, 0, 100, 240, 0, 0, 1]
    )
    camera = CameraModel.from_message(info)
    angles = np.array([0.5, 1.4, 1.6, 1.9])
    pixels = np.stack([320 + 100 * (angles - 0.02 * angles**3), np.full(4, 240.0)], -1)
    directions = camera.directions(pixels)
    np.testing.assert_allclose(np.arctan(directions[:2, 0]), angles[:2], atol=1e-3)
    assert np.isnan(directions[2:, 0]).all()


def test_boxes_end_at_the_border_of_their_camera():
    camera = CameraModel.from_message(camera_info(d=[]))
    message = Message(header=HEAD, detections=[detection(640.0, 240.0, 200.0, 100.0)])
    found = from_detections(message, camera)
    assert found.space == Space.DIRECTIONS
    outline = found.boxes[0].outline
    assert outline[:, 0].max() == pytest.approx((640 - 320) / 500)
    assert outline[:, 0].min() == pytest.approx((540 - 320) / 500)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"k": [0.0] * 9}, "focal lengths 0 and 0"),
        ({"k": [math.nan] * 9}, "focal lengths nan"),
        ({"model": "kannala"}, "'kannala'; it must be one of plumb_bob"),
        ({"model": "equidistant", "d": (0.1,)}, "1 distortion coefficients; equidistant has 4"),
        ({"d": (0.1, 0.2)}, "2 distortion coefficients; plumb_bob has 0 or 4 or 5"),
        ({"size": (0, 0)}, "0x0 pixels"),
    ],
)
def test_a_camera_info_that_cannot_be_used_is_named(fields, named):
    with pytest.raises(ValueError, match=named):
        CameraModel.from_message(camera_info(**fields))


def depth(encoding, values, step=None, big=0):
    data = values.tobytes()
    height, width = values.shape
    return Message(
        header=HEAD, encoding=encoding, width=width, height=height, is_bigendian=big,
        step=step or len(data) // height, data=data,
    )  # fmt: skip


def test_depths_are_read_in_metres():
    metres = np.array([[1.5, np.nan], [0.0, 7.25]])
    event = depth_event(depth("32FC1", metres.astype("<f4")))
    assert (event.size, event.stamp) == ((2, 2), 3 * 10**9 + 5)
    np.testing.assert_array_equal(event.read(), metres.astype(np.float32))
    event = depth_event(depth("32FC1", metres.astype(">f4"), big=1))
    np.testing.assert_array_equal(event.read(), metres.astype(np.float32))
    millimetres = np.array([[1500, 65535]], "<u2")
    read = depth_event(depth("16UC1", millimetres)).read()
    np.testing.assert_allclose(read, [[1.5, 65.535]])


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (depth("8UC3", np.zeros((2, 4), "u1")), "'8UC3'; it must be 32FC1"),
        (depth("32FC1", np.zeros((2, 4), "f4"), step=8), "rows of at least 16"),
    ],
)
def test_a_depth_that_cannot_be_read_is_named(message, named):
    with pytest.raises(ValueError, match=named):
        depth_event(message).read()


def imu(x, y, z, w, covariance=0.0):
    return Message(
        header=HEAD,
        orientation=Message(x=x, y=y, z=z, w=w),
        orientation_covariance=np.full(9, covariance),
    )


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1), st.floats(0.5, 2))
def test_up_in_an_imus_frame_is_turned_upright_by_its_orientation(yaw, pitch, roll, length):
    orientation = Rotation.from_euler("ZYX", [yaw, pitch, roll])
    event = attitude_event(imu(*(orientation.as_quat() * length)))
    np.testing.assert_allclose(orientation.apply(event.up), (0, 0, 1), atol=1e-9)
    assert (event.stamp, event.frame_id) == (3 * 10**9 + 5, "front")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (imu(0, 0, 0, 1, covariance=-1.0), r"orientation_covariance\[0\] is -1"),
        (imu(0.0, 0.0, 0.0, 0.0), r"orientation is \(0.0, 0.0, 0.0, 0.0\)"),
        (imu(math.nan, 0.0, 0.0, 1.0), "finite and not zero"),
    ],
)
def test_an_imu_without_an_orientation_is_named(message, named):
    with pytest.raises(ValueError, match=named) as raised:
        attitude_event(message)
    assert str(raised.value).startswith("views are not levelled: ")
