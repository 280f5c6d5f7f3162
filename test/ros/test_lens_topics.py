"""The node on images of two lenses on two topics over DDS."""

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray
from sap_ros.msg import Object
from sensor_msgs.msg import CompressedImage, Image

from sap_ros.camera_files import read_camera, write_camera
from sap_ros.core import sphere
from sap_ros.evaluation.clicks import centre_click
from sap_ros.evaluation.metrics import iou
from sap_ros.synthesis.moving import MovingScene

MS = 10**6


@pytest.fixture(scope="module")
def camera():
    return read_camera("insta360").of_picture((640, 320))


@pytest.fixture
def camera_file(tmp_path, camera):
    write_camera(tmp_path / "camera.yaml", camera)
    return str(tmp_path / "camera.yaml")


@pytest.fixture(scope="module")
def drive(camera):
    """Pictures of a drive, traced, and the true labels of the panorama."""
    scene = MovingScene(0)
    times = np.arange(8) / 20
    return [
        (scene.render_fisheye(t, camera), scene.render(t, camera.panorama_size)[1]) for t in times
    ]


class Lenses:
    """The driver of two lenses of a camera, and what the node says of them."""

    def __init__(self, rig, transport="raw", listen=True):
        self.rig, self.said, self.values = rig, [], {}
        self.kind = Image if transport == "raw" else CompressedImage
        end = "" if transport == "raw" else f"/{transport}"
        self.publishers = [
            rig.peer.create_publisher(self.kind, f"image_{lens}{end}", 10)
            for lens in ("front", "back")
        ]
        rig.peer.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        rig.up(self.publishers[0])
        rig.until(self.publishers[1].get_subscription_count)

    def _diagnosed(self, message):
        (status,) = message.status
        self.said.append(status.message)
        self.values = {value.key: value.value for value in status.values}

    def publish(self, lens, picture, ns, encoding="rgb8", ending=".png"):
        """Publishes the half of the picture in which the preset insta360 has a lens."""
        half = picture.shape[1] // 2
        image = np.ascontiguousarray(picture[:, half:] if lens == 0 else picture[:, :half])
        if self.kind is Image:
            message = self.rig.message(
                image if encoding == "rgb8" else image[..., ::-1], 0, encoding
            )
        else:
            message = CompressedImage(format=ending[1:])
            message.data.frombytes(cv2.imencode(ending, image[..., ::-1])[1].tobytes())
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 10**9)
        message.header.frame_id = ("front_link", "back_link")[lens]
        self.publishers[lens].publish(message)
        self.rig.spin(0.05)

    def until_said(self, line):
        self.rig.until(lambda: any(line in text for text in self.said))
        assert not any("\n" in text for text in self.said)


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def found_at(rig, ns):
    """The labels (H, W) and the objects of a stamp."""
    rig.until(lambda: any(stamp_of(m) == ns for m in rig.masks))
    rig.until(lambda: any(stamp_of(m) == ns for m in rig.objects))
    mask = next(m for m in reversed(rig.masks) if stamp_of(m) == ns)
    labels = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.step)
    return labels, next(m for m in reversed(rig.objects) if stamp_of(m) == ns), mask.header.frame_id


def clicks(truth):
    """A click on each object, and the object's true id."""
    ids = [i for i in np.unique(truth) if i and (truth == i).sum() > 300]
    size = truth.shape[::-1]
    return ids, [sphere.direction_to_pixel(centre_click(truth == i), size) for i in ids]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_pairs_give_the_masks_of_the_one_picture(make_rig, camera_file, drive, transport):
    values = {"projection": "dual_fisheye", "camera_file": camera_file, "strategy": "auto"}
    ids, pixels = clicks(drive[0][1])
    whole = make_rig(**values).up()
    whole.publish(drive[0][0], stamp=1)
    for pixel in pixels:
        whole.click(*pixel)
    whole.until(lambda: whole.objects and len(whole.objects[-1].objects) == len(ids))
    whole.spin(0.3)
    expected = found_at(whole, 10**9)[0]
    whole.down()

    rig = make_rig(lens_topics=True, image_transport=transport, **values)
    lenses = Lenses(rig, transport)
    lenses.publish(1, drive[0][0], 1004 * MS, "bgr8")  # the back lens is 4 ms late, and comes first
    lenses.publish(0, drive[0][0], 1000 * MS)
    for pixel in pixels:
        rig.click(*pixel)
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == len(ids))
    rig.spin(0.3)
    labels, _, frame = found_at(rig, 1000 * MS)
    assert frame == "front_link"
    assert (labels == expected).mean() > 0.999
    scores = [iou(labels == k, drive[0][1] == i) for k, i in enumerate(ids, 1)]
    assert np.mean(scores) > 0.85

    lost_front, lost_back, late = 2, 3, 5
    for k in range(1, 8):
        if k != lost_front:
            lenses.publish(0, drive[k][0], (1000 + 50 * k) * MS)
        if k not in (lost_back, late):
            lenses.publish(1, drive[k][0], (1004 + 50 * k) * MS)
        if k == late + 1:  # it comes after the next one, and is left out
            lenses.publish(1, drive[late][0], (1004 + 50 * late) * MS)
    labels, objects, _ = found_at(rig, 1350 * MS)
    answered = {(stamp_of(m) // MS - 1000) // 50 for m in rig.masks}
    assert answered <= {0, 1, 4, 6, 7}
    assert {o.state for o in objects.objects} == {Object.TRACKED}
    assert np.mean([iou(labels == k, drive[7][1] == i) for k, i in enumerate(ids, 1)]) > 0.8
    assert not any("lens" in text for text in lenses.said)


def test_what_cannot_be_used_is_one_line_and_the_next_pair_is_answered(
    make_rig, camera_file, drive
):
    rig = make_rig(
        lens_topics=True, projection="dual_fisheye", camera_file=camera_file, strategy="auto"
    )
    lenses = Lenses(rig)
    picture = drive[0][0]
    lenses.publish(0, picture, 1000 * MS)
    lenses.publish(1, picture, 1000 * MS)
    rig.click(*clicks(drive[0][1])[1][0])
    found_at(rig, 1000 * MS)
    covered = picture.copy()
    covered[:, :320] = 0
    for ns, back, encoding, line in (
        (1100, covered, "rgb8", "the back lens is black"),
        (1200, picture[:160], "rgb8", "front lens is 320x320, that of the back lens 320x160"),
        (1300, picture, "yuv422", "the back lens: the image's encoding is 'yuv422'"),
    ):
        lenses.publish(0, picture, ns * MS)
        lenses.publish(1, back, ns * MS, encoding)
        lenses.until_said(line)
    lenses.publish(0, picture, 1400 * MS)
    lenses.publish(1, picture, 1400 * MS)
    found_at(rig, 1400 * MS)
    assert {stamp_of(m) // MS for m in rig.masks} == {1000, 1400}
    for k in range(15):
        lenses.publish(0, picture, (2000 + 100 * k) * MS)
        lenses.publish(1, picture, (2050 + 100 * k) * MS)
    lenses.until_said("cannot be put together: their stamps are 0.050 s apart")
    rig.until(lambda: int(lenses.values["unpaired"]) == rig.sap._camera.pairs.unpaired >= 5)


def test_a_silent_lens_is_said_before_there_is_any_object(make_rig, camera_file, drive):
    rig = make_rig(
        lens_topics=True, projection="dual_fisheye", camera_file=camera_file, silence=0.5
    )
    lenses = Lenses(rig)

    def only(lens):
        lenses.publish(lens, drive[0][0], rig.peer.get_clock().now().nanoseconds)
        return any(
            f"the {('back', 'front')[lens]} lens has sent nothing for" in t for t in lenses.said
        )

    rig.until(lambda: only(0))
    assert any("(/sap/image_back)" in text for text in lenses.said)
    rig.until(lambda: only(1))


def test_two_topics_need_a_camera_with_two_lenses(make_rig):
    assert make_rig(lens_topics=True).sap.trigger_configure().name == "FAILURE"


def test_a_video_of_each_lens(make_rig, camera_file, drive):
    pytest.importorskip("av", reason="PyAV is not installed")
    from sap_ros.bench.video import encode

    rig = make_rig(
        lens_topics=True, projection="dual_fisheye", camera_file=camera_file, strategy="auto",
        image_transport="compressed",
    )  # fmt: skip
    lenses = Lenses(rig, "compressed")
    ids, pixels = clicks(drive[0][1])
    pictures = [drive[0][0]] * 4
    streams = [encode([p[:, 320:] for p in pictures]), encode([p[:, :320] for p in pictures])]
    for k in range(4):
        for lens in (0, 1):
            message = CompressedImage(format="h264", data=streams[lens][k])
            message.header.stamp.sec, message.header.stamp.nanosec = 1, (50 * k + 3 * lens) * MS
            lenses.publishers[lens].publish(message)
        rig.spin(0.1)
    for pixel in pixels:
        rig.click(*pixel)
    rig.until(lambda: rig.objects and len(rig.objects[-1].objects) == len(ids))
    rig.spin(0.3)
    labels = found_at(rig, 1150 * MS)[0]
    assert np.mean([iou(labels == k, drive[0][1] == i) for k, i in enumerate(ids, 1)]) > 0.8
