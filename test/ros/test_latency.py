"""`sap bench latency`, on small panoramas."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from sap_ros.bench import latency


def test_the_node_and_the_core_answer_the_same_clicks_and_images(monkeypatch):
    try:
        get_package_prefix("sap_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not built: make build")
    for name, value in {
        "_WIDTHS": (512,),
        "_CLICKS": 2,
        "_IMAGES": 3,
        "_IDLE_SECONDS": 0.5,
    }.items():
        monkeypatch.setattr(latency, name, value)
    result = latency.latency("sap-nano", "cpu")
    timed = [figures for figures in result.figures.values() if "p50" in figures]
    assert len(timed) == 4  # clicks and images, raw and compressed
    for figures in timed:
        assert figures["core"] > 0
        assert 0 < figures["p50"] <= figures["p99"]
    sent = [figures["transport"] for figures in timed]
    assert sent[0::2] == [0, 0]  # clicks
    assert all(0 < seconds < 5 for seconds in sent[1::2])
    idle = [figures["cpu"] for figures in result.figures.values() if "cpu" in figures]
    assert len(idle) == 2
    assert all(share >= 0 for share in idle)
    assert [goal.limit for goal in result.goals] == [1.1, 1.1]
