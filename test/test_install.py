"""What `pip install .` and `colcon test` do, as far as it can be seen without doing it."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import sap_ros

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # pip builds the package's metadata, and may ask an index
def test_pip_keeps_the_torch_that_is_there(tmp_path):
    """sam2's torchvision would bring the newest CUDA build of torch with it."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-build-isolation"]
    command += ["--quiet", "--report", str(report), ".[evaluation,training]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {
        entry["metadata"]["name"].lower() for entry in json.loads(report.read_text())["install"]
    }
    assert "sap-ros" in {name.replace("_", "-") for name in names}
    assert not {n for n in names if n.startswith(("torch", "nvidia", "cuda", "triton", "sam2"))}


def test_colcon_test_runs_these_tests():
    """It runs what ctest lists: pytest, on this folder's tests."""
    build = ROOT / "build" / "sap_ros"
    if shutil.which("ctest") is None or not (build / "CTestTestfile.cmake").exists():
        pytest.skip("ctest is missing, or the package is not built: make build")
    command = ["ctest", "--show-only=json-v1"]
    done = subprocess.run(command, cwd=build, capture_output=True, text=True, check=True)
    (test,) = json.loads(done.stdout)["tests"]
    command = test["command"]
    pytest_arguments = command[command.index("--command") + 1 :]
    assert "pytest" in pytest_arguments
    assert ROOT / "test" in [Path(part).resolve() for part in pytest_arguments]


@pytest.mark.filterwarnings("ignore:nodes.Node.traverse:DeprecationWarning")  # in catkin_pkg
def test_the_version_is_the_same_everywhere():
    """In package.xml, setup.py, the package and the changelog, which has the form of REP-132."""
    changelog = pytest.importorskip("catkin_pkg.changelog")
    version = ET.parse(ROOT / "package.xml").findtext("version")
    assert sap_ros.__version__ == version
    assert re.search(r'^    version="(.*)",$', (ROOT / "setup.py").read_text(), re.M)[1] == version
    log = changelog.get_changelog_from_path(str(ROOT / "CHANGELOG.rst"), "sap_ros")
    newest, date, _ = next(log.foreach_version())
    assert newest == version
    assert date is not None


def test_a_dependency_that_rosdep_does_not_know_is_named(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "check_rosdep", ROOT / "scripts" / "check_rosdep.py"
    )
    check_rosdep = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_rosdep)
    package = tmp_path / "package.xml"
    text = (ROOT / "package.xml").read_text()
    package.write_text(text.replace("<depend>std_msgs<", "<depend>standard_msgs<"))
    keys = tmp_path / "keys.txt"
    keys.write_text(check_rosdep.KEYS.read_text().replace("rviz2 humble", "rviz2"))
    assert check_rosdep.check(ROOT / "package.xml") == []
    first, second = check_rosdep.check(package, keys)
    assert "no key rviz2 for humble, by" in first
    assert "no key standard_msgs for humble, jazzy, kilted, rolling" in second
