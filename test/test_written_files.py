"""Nothing is written outside the cache, ROS_LOG_DIR, and the folders that are named."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def places(tmp_path):
    """Empty folders for HOME, TMPDIR and so on, and the environment that names them."""
    names = {
        "HOME": "home",
        "TMPDIR": "tmp",
        "ROS_LOG_DIR": "ros",
        "SAP_CACHE": "cache",
        "": "work",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    return tmp_path, kept | {k: str(tmp_path / name) for k, name in names.items() if k}


def _written(folder: Path) -> set[str]:
    """All files below a folder, but for the graphs in the cache, whose number may change."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}
    return {name for name in found if not name.startswith("cache/graphs/")}


def test_the_command_writes_its_results_and_the_cache(places, panorama):
    folder, environment = places
    cv2.imwrite(str(folder / "work" / "picture.png"), panorama)
    command = [sys.executable, "-m", "sap_ros.cli", "segment", "picture.png", "--point", "300,120"]
    environment["PYTHONPATH"] = f"{ROOT}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*command, "--out", "result", "--backend", "onnxruntime"],
        cwd=folder / "work", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = {
        f"work/result/{n}" for n in ("masks.png", "objects.json", "overlay.jpg", "views.jpg")
    }
    assert _written(folder) == {"work/picture.png", *results}
    assert (folder / "cache" / "graphs").is_dir()


def test_a_home_that_cannot_be_written_to_does_no_harm(places, panorama):
    folder, environment = places
    cv2.imwrite(str(folder / "work" / "picture.png"), panorama)
    environment |= {
        "HOME": "/proc/none",
        "PYTHONPATH": f"{ROOT}:{environment.get('PYTHONPATH', '')}",
    }
    del environment["SAP_CACHE"]
    command = [sys.executable, "-m", "sap_ros.cli", "segment", "picture.png", "--point", "300,120"]
    done = subprocess.run(
        [*command, "--out", "result"],
        cwd=folder / "work", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "falls back to torch" in done.stdout + done.stderr
    assert (folder / "work" / "result" / "masks.png").exists()


def test_the_node_writes_its_log_and_the_cache(places):
    pytest.importorskip("rclpy")
    pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")
    folder, environment = places
    environment["ROS_DOMAIN_ID"] = str(101 + os.getpid() % 100)
    code = (
        "import rclpy; from sap_ros.node.sap_node import SapNode; rclpy.init(); node = SapNode();"
        "print(node.trigger_configure().name, node.trigger_activate().name);"
        "node.stop(); node.destroy_node(); rclpy.shutdown()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder / "work", env=environment, capture_output=True, text=True, check=False
    )
    assert "SUCCESS SUCCESS" in done.stdout, done.stderr
    written = _written(folder)
    assert all(name.startswith("ros/") for name in written), written
    assert (folder / "cache" / "graphs").is_dir()
