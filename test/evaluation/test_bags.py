"""Recordings: written, read, cut off; and replayed."""

import csv
import json
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from rosbags.typesys import get_types_from_msg

from sap_ros.camera_files import read_camera
from sap_ros.cli.calibrate import _images
from sap_ros.core import sphere
from sap_ros.core.instances import State
from sap_ros.core.loading import load_model
from sap_ros.core.projection import Equirectangular, TwoFisheyes
from sap_ros.core.prompts import from_pixels
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.bags import Bag, BagWriter, header, make, types
from sap_ros.evaluation.make_bag import write_bag
from sap_ros.evaluation.replay import Topics, find_topics, first_size, live, replay
from sap_ros.files import read_panorama
from sap_ros.messages import image_to_rgb
from sap_ros.synthesis.fisheyes import fisheyes_of

IMAGE = "sensor_msgs/msg/Image"
FRAMES = 4


@pytest.fixture
def pictures(tmp_path, disks):
    """A folder of panoramas in which a disk moves across the seam, and one of their ids."""
    for k in range(FRAMES):
        places = [sphere.angles_to_direction(a, 0.1) for a in (np.pi + 0.05 * (k - 1), 0.5)]
        image, labels = disks(places)
        for part, pixels in (("images", image), ("ids", labels.astype(np.uint8))):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / f"{k:03d}.png")
    return tmp_path / "images", tmp_path / "ids"


def raw(time, pixels, frame="camera"):
    return make(
        IMAGE, header=header(time, frame), height=pixels.shape[0], width=pixels.shape[1],
        encoding="rgb8", is_bigendian=0, step=pixels.shape[1] * 3,
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kind", ["CompressedImage", "FFMPEGPacket"])
def test_packets_of_a_video_are_replayed_in_order(pictures, tmp_path, storage, kind):
    pytest.importorskip("av", reason="PyAV is not installed")
    from sap_ros.bench.video import encode

    shown = [read_panorama(path) for path in sorted(pictures[0].iterdir())]
    with BagWriter(tmp_path / "bag", storage) as bag:
        for k, data in enumerate(encode(shown[1:2] + shown, "h264", every=2)[1:], 1):
            head, data = header(k * 10**9, "camera"), np.frombuffer(data, np.uint8)
            if kind == "FFMPEGPacket":
                packet = make(
                    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", header=head, width=512, height=256,
                    encoding="h264", pts=k, flags=0, is_bigendian=False, data=data,
                )  # fmt: skip
            else:
                packet = make(
                    "sensor_msgs/msg/CompressedImage", header=head, format="h264", data=data
                )
            bag.write("/video", k * 10**9, packet)
    with Bag(tmp_path / "bag") as bag:
        assert first_size(bag, Topics("/video"), Equirectangular()) == (512, 256)
        told = replay(
            bag, find_topics(bag), PanoramaSession(load_model("sap-nano"), "direct"),
            tmp_path / "out", [from_pixels(2, [(215, 111)], (512, 256))], storage=storage,
        )  # fmt: skip
    # The stream was joined after its first packet, a key frame.
    assert told.images == FRAMES - 1
    stamps = [m.header.stamp.sec for m in read(tmp_path / "out/bag", "/sap/masks")]
    assert stamps == [2, 3, 4]
    assert sum("waiting for a key frame" in note for note in told.notes) == 1


def late_video(bag, topic, shots):
    """Writes images to a topic as a video whose images come in another order than its packets, so that some come late.

    Args:
        bag: the bag.
        topic: the topic.
        shots: the images, each with its stamp in ns; a new stream begins where their size changes.
    """
    import av

    for _, stream in groupby(shots, key=lambda shot: shot[1].shape):
        stamps, images = zip(*stream, strict=True)
        encoder = av.CodecContext.create("libx264", "w")
        encoder.height, encoder.width = images[0].shape[:2]
        encoder.pix_fmt, encoder.max_b_frames, encoder.time_base = "yuv420p", 2, Fraction(1, 30)
        frames = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in images]
        for k, frame in enumerate(frames):
            frame.pts = k
        packets = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
        for received, packet in zip(stamps, packets, strict=True):
            data = np.frombuffer(bytes(packet), np.uint8)
            head = header(stamps[packet.pts], "camera")
            kind = "sensor_msgs/msg/CompressedImage"
            bag.write(topic, received, make(kind, header=head, format="h264", data=data))


def test_an_image_at_the_end_that_cannot_be_used_does_not_end_the_replay(tmp_path, disks):
    pytest.importorskip("av", reason="PyAV is not installed")
    camera = read_camera("side_by_side").of_picture((640, 320))
    picture = fisheyes_of(disks([sphere.angles_to_direction(0.3, 0.1)])[0], camera)
    stamps = [(10 + k) * 10**8 for k in range(7)]
    front = np.ascontiguousarray(picture[:, :320])
    back = [np.ascontiguousarray(picture[: 320 if k < 4 else 160, 320:]) for k in range(7)]
    with BagWriter(tmp_path / "bag") as bag:
        late_video(bag, "/front", [(stamp, front) for stamp in stamps])
        late_video(bag, "/back", list(zip(stamps, back, strict=True)))
    projection = TwoFisheyes(camera)
    with Bag(tmp_path / "bag") as bag:
        topics = find_topics(bag, "/front", back="/back")
        size = first_size(bag, topics, projection)
        session = PanoramaSession(load_model("sap-nano"), projection=projection)
        told = replay(bag, topics, session, tmp_path / "out", [from_pixels(1, [(500, 300)], size)])
    assert told.images == 4
    assert any("that of the back lens 320x160" in note for note in told.notes)
    assert (tmp_path / "out" / "summary.json").exists()


def test_images_of_two_lenses_are_replayed_in_pairs(tmp_path, disks):
    camera = read_camera("side_by_side").of_picture((640, 320))
    picture = fisheyes_of(disks([sphere.angles_to_direction(0.3, 0.1)])[0], camera)
    with BagWriter(tmp_path / "bag") as bag:
        for k in range(6):
            time = 10**9 + k * 10**8
            if k != 2:  # lost
                bag.write("/front", time, raw(time, picture[:, :320], "front"))
            bag.write("/back", time + 10**7, raw(time + 5 * 10**6, picture[:, 320:], "back"))
    projection = TwoFisheyes(camera)
    with Bag(tmp_path / "bag") as bag:
        with pytest.raises(ValueError, match="name the topic of the first lens"):
            find_topics(bag, back="/back")
        with pytest.raises(ValueError, match="/back is named as the topic of both lenses"):
            find_topics(bag, "/back", back="/back")
        topics = find_topics(bag, "/front", back="/back")
        size = first_size(bag, topics, projection)
        assert size == camera.panorama_size
        session = PanoramaSession(load_model("sap-nano"), projection=projection)
        pixel = sphere.direction_to_pixel(sphere.angles_to_direction(0.3, 0.1), size)
        told = replay(bag, topics, session, tmp_path / "out", [from_pixels(1, [pixel], size)])
        with pytest.raises(ValueError, match="no image of /front and /back"):
            replay(bag, topics, session, tmp_path / "none", lens_tolerance=0.001)
        with pytest.raises(ValueError, match=r"/front and /back whose stamps are at most 0\.001 s"):
            first_size(bag, topics, projection, lens_tolerance=0.001)
    assert told.images == 5
    assert any("1 images of a lens were left out" in note for note in told.notes)
    masks = read(tmp_path / "out" / "bag", "/sap/masks")
    stamps = [m.header.stamp.sec * 10 + m.header.stamp.nanosec // 10**8 for m in masks]
    assert stamps == [10, 11, 13, 14, 15]
    assert {m.header.frame_id for m in masks} == {"front"}
    (tracked,) = read(tmp_path / "out" / "bag", "/sap/objects")[-1].objects
    assert tracked.azimuth == pytest.approx(0.3, abs=0.02)
    pictures = list(_images(tmp_path / "bag", "/front", "/back", camera))  # of sap calibrate
    assert len(pictures) == 5
    assert all((shown == picture).all() for shown in pictures)
    with pytest.raises(ValueError, match=r"whose stamps are at most 0\.001 s apart"):
        list(_images(tmp_path / "bag", "/front", "/back", camera, 0.001))


def point(time, u, v):
    place = make("geometry_msgs/msg/Point", x=float(u), y=float(v), z=0.0)
    return make("geometry_msgs/msg/PointStamped", header=header(time, ""), point=place)


def read(path, topic):
    with Bag(path) as bag:
        return [message for _, _, message in bag.messages([topic])]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_folder_becomes_a_bag_and_is_replayed(pictures, tmp_path, storage, compressed):
    images, ids = pictures
    count = write_bag(
        images, tmp_path / "bag", rate=5, compressed=compressed, truth=ids, storage=storage
    )
    assert count == FRAMES
    session, seen = PanoramaSession(load_model("sap-nano"), "direct"), []
    topic = "/image/compressed" if compressed else "/image"
    for message, path in zip(read(tmp_path / "bag", topic), sorted(images.iterdir()), strict=True):
        true, found = (image.astype(int) for image in (read_panorama(path), image_to_rgb(message)))
        coloured = np.ptp(true, axis=2) > 60  # the disks
        assert np.abs(found - true)[coloured].mean() < (8 if compressed else 1e-9)
    with Bag(tmp_path / "bag") as bag:
        topics = find_topics(bag, truth="/truth")
        assert topics.images == topic
        told = replay(
            bag, topics, session, tmp_path / "out", [from_pixels(2, [(215, 111)], (512, 256))],
            storage=storage, progress=lambda: seen.append(1),
        )  # fmt: skip
    assert told.images == len(seen) == FRAMES
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["recorded_rate_hz"] == pytest.approx(5)
    assert summary["J"] > 0.5
    assert summary["sphere_F"] > 0.3
    masks = read(tmp_path / "out" / "bag", "/sap/masks")
    objects = read(tmp_path / "out" / "bag", "/sap/objects")
    assert [m.header.stamp for m in masks] == [o.header.stamp for o in objects]
    assert masks[0].encoding == "mono8"
    assert objects[0].header.frame_id == "camera"
    assert [o.id for o in objects[0].objects] == [2]
    assert np.degrees(objects[0].objects[0].azimuth) == pytest.approx(np.degrees(0.5), abs=3)
    with (tmp_path / "out" / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["TRACKED"] * FRAMES
    assert float(rows[0]["J"]) > 0.5
    video = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    # The clicked disk is blue, under a tint of its own; the channels are in their places.
    blue, _, red = video.read()[1][105:118, 209:222].reshape(-1, 3).mean(0)
    assert blue > red + 8


def test_colours_of_the_true_masks_stay_apart_in_a_bag(pictures, tmp_path):
    """The same colour has the same number in all images, whatever else is in them."""
    images, ids = pictures
    colours = [(10, 20, 30), (12, 20, 30), (200, 1, 1)]
    for k, path in enumerate(sorted(ids.iterdir())):
        painted = np.zeros((256, 512, 3), np.uint8)
        for i in range(k % 2, 3):
            painted[10 * i : 10 * i + 10] = colours[i]
        Image.fromarray(painted).save(path)
    write_bag(images, tmp_path / "bag", truth=ids)
    rows = []
    for message in read(tmp_path / "bag", "/truth"):
        labels = message.data.view("<u2").reshape(256, 512)
        rows.append(labels[5:30:10, 0].tolist())
    assert len({0, *rows[0]}) == 4
    assert rows == [rows[0], [0, *rows[0][1:]]] * 2


@pytest.mark.parametrize(
    ("storage", "mode"),
    [("SQLITE3", "FILE"), ("SQLITE3", "MESSAGE"), ("MCAP", "STORAGE"), ("MCAP", "MESSAGE")],
)
def test_compressed_bags_are_read(disks, tmp_path, storage, mode):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    image, _ = disks([])
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin[storage])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", IMAGE, typestore=types())
        writer.write(connection, 7, types().serialize_cdr(raw(7, image), IMAGE))
    (found,) = read(tmp_path / "bag", "/image")
    assert (image_to_rgb(found) == image).all()


def test_prompts_of_the_bag_are_taken_on_their_images(random_model, disks, tmp_path):
    image, _ = disks([sphere.angles_to_direction(0.5, 0.1)])
    second = 10**9
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/prompt/point", 1, point(0, 20, 30))  # before any image
        for k in range(1, 4):
            writer.write("/image", k * second, raw(k * second, image))
        writer.write("/prompt/point", 3 * second + 1, point(2 * second, 300, 40))
        writer.write("/prompt/point", 3 * second + 2, point(0, 9000, 40))  # off the image
        writer.write("/prompt/point", 3 * second + 3, point(second // 2, 300, 40))  # before all
        pixel = make("geometry_msgs/msg/Point", x=100.0, y=100.0, z=0.0)
        writer.write("/prompt/pixel", 3 * second + 4, pixel)
    with Bag(tmp_path / "bag") as bag:
        topics = find_topics(bag)
        assert topics.prompts == ("/prompt/pixel", "/prompt/point")
        told = replay(
            bag, topics, PanoramaSession(random_model, "direct"), tmp_path / "out",
        )  # fmt: skip
    said = read(tmp_path / "out" / "bag", "/sap/objects")
    ids = [[o.id for o in m.objects] for m in said]
    # One message an image or prompt, as the node publishes; 0: a rejected prompt.
    assert ids == [[1], [1], [1], [1, 2], [0, 1, 2], [0, 1, 2], [1, 2, 3]]
    assert [m.header.stamp.sec for m in said] == [1, 2, 3, 3, 3, 3, 3]
    assert len(told.notes) == 2
    assert "9000" in told.notes[0]
    assert "no longer kept" in told.notes[1]


def test_fisheyes_are_replayed_on_their_panorama(random_model, disks, tmp_path):
    camera = read_camera("insta360").of_picture((640, 320))
    projection = TwoFisheyes(replace(camera, panorama_width=512))
    image, _ = disks([sphere.angles_to_direction(0.5, 0.1)])
    pictures = [fisheyes_of(image, camera)] * 3
    pictures[1] = pictures[1].copy()
    pictures[1][:, :320] = 0  # a lens is covered
    with BagWriter(tmp_path / "bag") as writer:
        for k, picture in enumerate(pictures, 1):
            writer.write("/image", k * 10**9, raw(k * 10**9, picture))
        writer.write("/prompt/point", 10**9 + 1, point(0, 215, 119))
    with Bag(tmp_path / "bag") as bag:
        session = PanoramaSession(random_model, projection=projection)
        told = replay(bag, find_topics(bag), session, tmp_path / "out")
    assert told.images == 2
    assert any("the back lens is black" in note for note in told.notes)
    masks = read(tmp_path / "out" / "bag", "/sap/masks")
    assert {(m.width, m.height) for m in masks} == {(512, 256)}
    assert {m.header.stamp.sec for m in masks} == {1, 3}


def test_positions_gazes_and_ids_are_those_of_the_node(disks, tmp_path):
    """A position is in metres, a gaze that rests adds one object, and ids go on as in the node."""
    spot = sphere.angles_to_direction(0.5, 0.1)
    places = [spot, *(sphere.angles_to_direction(a, 0.1) for a in (-1.0, 2.0, -2.0))]
    image, _ = disks(places)
    clicks = sphere.direction_to_pixel(np.stack(places), (512, 256))
    second = 10**9
    x, y, z = (float(v) for v in spot * 6)
    far = make("geometry_msgs/msg/Point", x=x, y=y, z=z)
    look = make(
        "geometry_msgs/msg/Vector3",
        **dict(zip("xyz", map(float, sphere.angles_to_direction(-1.0, 0.1)), strict=True)),
    )
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/image", second, raw(second, image))
        place = make("geometry_msgs/msg/PointStamped", header=header(0, "camera"), point=far)
        writer.write("/sap/prompt/position", second + 1, place)
        for k in range(5):
            gaze = make("geometry_msgs/msg/Vector3Stamped", header=header(0, ""), vector=look)
            writer.write("/sap/prompt/gaze", second + 2 + k, gaze)
        writer.write("/sap/prompt/point", second + 8, point(0, *clicks[2]))
    with Bag(tmp_path / "bag") as bag:
        session = PanoramaSession(load_model("sap-nano"), "direct")
        replay(bag, find_topics(bag), session, tmp_path / "out", [
            from_pixels(7, [clicks[3]], (512, 256))
        ])  # fmt: skip
    said = read(tmp_path / "out" / "bag", "/sap/objects")
    assert [o.id for o in said[-1].objects] == [1, 2, 3, 7]
    u, v = sphere.direction_to_pixel(spot, (512, 256)).astype(int)
    masks = read(tmp_path / "out" / "bag", "/sap/masks")[-1]
    assert np.array(masks.data).reshape(256, 512)[v, u] == 1


# Of vision_msgs, as a bag with detections has them.
_VISION = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose\n",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id\n",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}


def test_recorded_detections_start_objects(disks, tmp_path):
    for name, text in _VISION.items():
        types().register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))

    def vision(name, **fields):
        return make(f"vision_msgs/msg/{name}", **fields)

    def pose():
        zero, level = (make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
                       make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0))  # fmt: skip
        at = make("geometry_msgs/msg/Pose", position=zero, orientation=level)
        return make("geometry_msgs/msg/PoseWithCovariance", pose=at, covariance=np.zeros(36))

    def detections(time, u, v, side, label):
        corner = vision("Pose2D", position=vision("Point2D", x=float(u), y=float(v)), theta=0.0)
        hypothesis = vision("ObjectHypothesis", class_id=label, score=0.9)
        detection = vision(
            "Detection2D", header=header(time, "camera"), id="",
            results=[vision("ObjectHypothesisWithPose", hypothesis=hypothesis, pose=pose())],
            bbox=vision("BoundingBox2D", center=corner, size_x=side, size_y=side),
        )  # fmt: skip
        return vision("Detection2DArray", header=header(time, "camera"), detections=[detection])

    image, _ = disks([sphere.angles_to_direction(0.0, 0.0)])
    with BagWriter(tmp_path / "bag") as writer:
        for k in (1, 2):
            at = k * 10**9
            writer.write("/sap/image", at, raw(at, image))
            boxes = detections(at, 256, 128, 44.0, "ball")
            writer.write("/sap/prompt/detections", at + 1, boxes)
    with Bag(tmp_path / "bag") as bag:
        topics = find_topics(bag)
        assert topics.prompts == ("/sap/prompt/detections",)
        session = PanoramaSession(load_model("sap-nano"))
        assert replay(bag, topics, session, tmp_path / "out").objects == 1
    (last,) = read(tmp_path / "out" / "bag", "/sap/objects")[-1].objects
    assert (last.id, last.label, last.state) == (1, "ball", State.TRACKED)


def test_clicks_on_the_canvas_are_pixels(random_model, disks, tmp_path):
    """rviz2's clicks on the panorama that lies flat in a frame of its own."""
    image, _ = disks([sphere.angles_to_direction(0.5, 0.1)])
    at = make("geometry_msgs/msg/Point", x=300 / 51.2, y=-120 / 51.2, z=0.0)
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/image", 1, raw(1, image))
        place = make("geometry_msgs/msg/PointStamped", header=header(0, "sap_canvas"), point=at)
        writer.write("/sap/prompt/position", 2, place)
    found = []
    for points in ([], [from_pixels(1, [(300, 120)], (512, 256))]):
        out = tmp_path / f"out{len(points)}"
        with Bag(tmp_path / "bag") as bag:
            topics = find_topics(bag) if not points else Topics("/image")
            session = PanoramaSession(random_model, "direct")
            told = replay(bag, topics, session, out, points)
        assert not told.notes
        found.append(np.array(read(out / "bag", "/sap/masks")[-1].data))
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_what_cannot_be_played_is_said_and_the_rest_is_played(random_model, disks, tmp_path):
    image, _ = disks([sphere.angles_to_direction(0.5, 0.1)])
    second = 10**9
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/image", 1, raw(2 * second, image))
        writer.write("/image", 2, raw(second, image))  # out of order
        writer.write("/image", 3, raw(3 * second, image[:100]))  # no panorama
        broken = raw(4 * second, image)
        broken.encoding = "bayer_rggb8"
        writer.write("/image", 4, broken)
        writer.write("/image", 5, raw(5 * second, image))
    with Bag(tmp_path / "bag") as bag:
        told = replay(
            bag, find_topics(bag), PanoramaSession(random_model, "direct"), tmp_path / "out",
            [from_pixels(1, [(100, 100)], (512, 256))],
        )  # fmt: skip
    assert told.images == 3
    text = " ".join(told.notes)
    assert "stamps before" in text
    assert "bayer_rggb8" in text
    assert "twice as wide" in text


def test_a_recording_that_was_cut_off_is_played_to_where_it_breaks_off(
    random_model, disks, tmp_path
):
    image, _ = disks([sphere.angles_to_direction(0.5, 0.1)])
    with BagWriter(tmp_path / "bag") as writer:
        for k in range(1, 31):
            writer.write("/image", k * 10**8, raw(k * 10**8, image))
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with Bag(tmp_path / "bag") as bag:
        told = replay(
            bag, find_topics(bag), PanoramaSession(random_model, "direct"), tmp_path / "out",
            [from_pixels(1, [(100, 100)], (512, 256))],
        )  # fmt: skip
    assert 5 < told.images < 20
    assert "ends early" in told.notes[-1]
    assert "what could be read was replayed" in told.notes[-1]
    file.write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(ValueError, match="nothing of it can be read"), Bag(tmp_path / "bag"):
        pass


def test_a_topic_that_is_not_there_is_said_with_those_that_are(disks, tmp_path):
    image, _ = disks([])
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/front", 1, raw(10**9, image))
        writer.write("/back", 1, raw(10**9, image))
        writer.write("/text", 1, make("std_msgs/msg/String", data="x"))
        pixel = make("geometry_msgs/msg/Point", x=1.0, y=1.0, z=0.0)
        writer.write("/front/sap/prompt/pixel", 2, pixel)
        writer.write("/back/sap/prompt/pixel", 3, pixel)
    with Bag(tmp_path / "bag") as bag:
        with pytest.raises(
            ValueError, match=r"name the topic of the images; there are /back, /front"
        ):
            find_topics(bag)
        with pytest.raises(ValueError, match=r"has no topic /left; it has /back \(sensor_msgs"):
            find_topics(bag, "/left")
        with pytest.raises(ValueError, match="is of the type std_msgs/msg/String; it must be"):
            find_topics(bag, "/text")
        with pytest.raises(ValueError, match=r"for several nodes \(/back/sap, /front/sap\)"):
            find_topics(bag, "/front")
        assert find_topics(bag, "/front", ["/front/sap/prompt/pixel"]).images == "/front"
    with pytest.raises(ValueError, match="no such file"), Bag(tmp_path / "none"):
        pass
    with pytest.raises(ValueError, match="exists"):
        BagWriter(tmp_path / "bag")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no panorama"):
        write_bag(tmp_path / "empty", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_live_node_takes_the_newest_image_when_it_is_free():
    times = [k * 10**9 for k in range(6)]
    assert live(times, [0.5] * 6) == (0, 0.5)
    # 2.6 s each: 0 until 2.6, when 2 has replaced 1; 2 until 5.2, when 5 has replaced 3 and 4.
    dropped, latency = live(times, [2.6] * 6)
    assert dropped == 3
    assert latency == pytest.approx(2.8)  # the middle of 2.6, 5.2 - 2 and 7.8 - 5
    assert live([], []) == (0, None)
