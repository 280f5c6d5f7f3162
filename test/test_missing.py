"""A Python package is missing, or the user loses patience while they are imported: what is said."""

import os
import signal
import site
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from sap_ros.missing import how_to_install

ROOT = Path(__file__).parents[1]
NODE = [str(ROOT / "scripts" / "sap_node")]
PAGE = [str(ROOT / "scripts" / "sap_web")]
WEB = ["-m", "sap_ros.cli", "web", "none.jpg"]
# Files are read before torch is needed: this one is there.
PANORAMA = str(ROOT / "sap_ros" / "data" / "demo" / "panorama.jpg")
SEGMENT = ["-m", "sap_ros.cli", "segment", PANORAMA, "--point", "1,1"]

needs_ros = pytest.mark.skipif(
    find_spec("rclpy") is None or find_spec("sap_ros.msg") is None,
    reason="rclpy or the package's messages are missing",
)


@pytest.fixture
def without(tmp_path):
    """Runs Python where some top-level packages are really not there."""

    def run(missing, command):
        venv.create(tmp_path / "bare")
        packages = tmp_path / "packages"
        packages.mkdir()
        for path in [p for folder in site.getsitepackages() for p in Path(folder).glob("*")]:
            there = packages / path.name
            if path.name.split(".")[0] not in missing and not there.exists():
                there.symlink_to(path)
        folders = [str(ROOT), os.environ.get("PYTHONPATH", ""), str(packages)]
        return subprocess.run(
            [str(tmp_path / "bare" / "bin" / "python"), *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("name", "command", "code", "said"),
    [
        pytest.param("torch", NODE, 1, "pip install torch --index-url", marks=needs_ros),
        pytest.param("sam2", NODE, 1, "--no-deps --no-build-isolation sam2", marks=needs_ros),
        pytest.param("rclpy", NODE, 1, "source ROS 2", marks=needs_ros),
        pytest.param("rclpy", PAGE, 1, "source ROS 2", marks=needs_ros),
        pytest.param("aiohttp", PAGE, 1, "pip install aiohttp", marks=needs_ros),
        ("aiohttp", WEB, 2, "pip install aiohttp"),
        ("torch", SEGMENT, 2, "pip install torch --index-url"),
        ("sam2", SEGMENT, 2, "--no-deps --no-build-isolation sam2"),
    ],
    ids=[
        "node-torch",
        "node-sam2",
        "node-rclpy",
        "page-rclpy",
        "page-aiohttp",
        "web-aiohttp",
        "sap-torch",
        "sap-sam2",
    ],
)
def test_a_missing_package_is_one_line_that_says_how_to_install_it(
    without, name, command, code, said
):
    done = without({name}, command)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the Python package {name} is missing" in done.stderr
    assert said in done.stderr


def test_any_other_package_has_a_line_too():
    error = ModuleNotFoundError("No module named 'tf2_ros.buffer'", name="tf2_ros.buffer")
    assert how_to_install(error) == (
        "the Python package tf2_ros is missing; install it: pip install tf2-ros"
    )


def test_optional_packages_are_named_by_what_needs_them():
    error = ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    assert how_to_install(error) == (
        "the Python package matplotlib is missing; install it: "
        'pip install ".[evaluation]" (in the checkout of sap_ros)'
    )


@needs_ros
@pytest.mark.parametrize("imported", ["numpy", "torch._C", "torch"])
def test_ctrl_c_while_modules_are_imported_ends_quietly(imported):
    """The signal is sent as soon as the interpreter says that it has imported this module."""
    command = [sys.executable, "-X", "importtime", *NODE]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.split("|")[-1].strip() == imported and process.poll() is None:
                process.send_signal(signal.SIGINT)
            lines.append(line)
    assert process.returncode == 130
    assert not [line for line in lines if not line.startswith("import time:")]
