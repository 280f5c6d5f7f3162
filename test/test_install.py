"""What `pip install .` and `colcon test` do, as far as it can be seen without doing it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
