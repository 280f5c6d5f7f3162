"""A bag through the live node over DDS, and replayed without ROS: the same masks."""

import numpy as np
import pytest

pytest.importorskip("rosbags")

from sap_ros.core.loading import load_model
from sap_ros.core.session import PanoramaSession
from sap_ros.evaluation.bags import Bag, BagWriter, header, make
from sap_ros.evaluation.replay import find_topics, replay
from sap_ros.synthesis.moving import MovingScene


def test_the_node_and_the_replay_give_the_same_masks(make_rig, tmp_path):
    scene, rig = MovingScene(3), make_rig(strategy="auto").up()
    shots = [scene.render(0.4 * k, (512, 256)) for k in range(4)]
    _, labels = shots[0]
    v, u = (
        int(np.median(part))
        for part in np.nonzero(labels == np.bincount(labels[labels > 0]).argmax())
    )
    with BagWriter(tmp_path / "bag") as writer:
        for k, (image, _) in enumerate(shots, 1):
            message = make(
                "sensor_msgs/msg/Image", header=header(k * 10**9, "camera_link"), height=256,
                width=512, encoding="rgb8", is_bigendian=0, step=1536,
                data=np.frombuffer(image.tobytes(), np.uint8),
            )  # fmt: skip
            writer.write("/sap/image", k * 10**9, message)
            if k == 1:
                at = make("geometry_msgs/msg/Point", x=float(u), y=float(v), z=0.0)
                click = make("geometry_msgs/msg/PointStamped", header=header(0, ""), point=at)
                writer.write("/sap/prompt/point", k * 10**9 + 1, click)
    with Bag(tmp_path / "bag") as bag:
        session = PanoramaSession(load_model("sap-nano"))
        replay(bag, find_topics(bag), session, tmp_path / "out")
    with Bag(tmp_path / "out" / "bag") as bag:
        replayed = [
            np.array(m.data).reshape(m.height, m.width) for _, _, m in bag.messages(["/sap/masks"])
        ]
    assert len(replayed) == len(shots)
    assert replayed[0].any()
    for k, (image, _) in enumerate(shots, 1):
        rig.publish(image, stamp=k)
        if k == 1:
            rig.click(u, v)
        mask, _ = rig.answer(k)
        rig.until(lambda: rig.objects[-1].objects)
        mask = rig.masks[-1]
        live = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)
        assert (live == replayed[k - 1]).all()
