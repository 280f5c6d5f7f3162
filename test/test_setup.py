"""scripts/setup.sh keeps a torch that is there, and the Dockerfile has no steps but its."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = "2.5.0a0+872d972e41.nv24.8"  # NVIDIA's build for JetPack 6
FILES = {
    "torch/__init__.py": "from torch import version\n",
    "torch/version.py": 'cuda = "12.6"\n',
    "torch/utils/__init__.py": "",
    # sam2's setup.py imports it.
    "torch/utils/cpp_extension.py": "from setuptools.command.build_ext import build_ext as BuildExtension\n"
    "CUDAExtension = None\n",
}


def _wheel(folder: Path) -> Path:
    """A package that pip takes for NVIDIA's torch."""
    info = f"torch-{VERSION}.dist-info"
    path = folder / f"torch-{VERSION}-py3-none-any.whl"
    files = {
        **FILES,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the set-up reads, and in .venv that torch."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("setup.py", "pyproject.toml", "package.xml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("sap_ros", "config", "msg"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / ".venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Without the build tools, sam2's metadata cannot be had.
    subprocess.run([*pip, "setuptools", "wheel", _wheel(tmp_path)], check=True)
    return tmp_path


@pytest.mark.slow  # pip asks an index
def test_nvidias_torch_is_kept(checkout):
    """By the set-up's own commands, which only say here what they would install, and by `pip install .`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment |= {"PIP_DRY_RUN": "1"}
    for step in ("core", "dev"):
        command = ["bash", "scripts/setup.sh", step]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        log = (checkout / ".venv" / "setup.log").read_text()
        assert done.returncode == 0, done.stderr + log
        assert f"keeping torch {VERSION}" in done.stdout or step == "dev"
        would = [line.split()[2:] for line in log.splitlines() if line.startswith("Would install")]
        names = {name.rpartition("-")[0] for line in would for name in line}
        assert len(names) > 3
        assert not {n for n in names if n.startswith(("torch", "nvidia", "cuda", "triton"))}
    pip = [
        checkout / ".venv" / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        ".",
    ]
    done = subprocess.run(
        pip, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    (would,) = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert "sap" in would
    assert " torch-" not in would


@pytest.mark.slow
def test_a_torch_for_cpus_makes_way_for_the_locks(checkout):
    (version,) = (checkout / ".venv").glob("lib/python*/site-packages/torch/version.py")
    version.write_text("cuda = None\n")
    done = subprocess.run(
        ["bash", "scripts/setup.sh", "core"],
        cwd=checkout,
        env={**os.environ, "PIP_DRY_RUN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    log = (checkout / ".venv" / "setup.log").read_text()
    assert "Would install" in log, done.stderr
    assert "torch-2.13.0" in log


def test_the_dockerfile_runs_what_the_makefile_runs():
    """Each RUN is a line of the Makefile, which CI runs, and what these need is copied."""
    recipe = {
        line.strip().removeprefix("@").replace("$(ENV)", "source scripts/env.bash &&")
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith("\t")
    }
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    steps = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
    assert steps == [
        "scripts/setup.sh core",
        "scripts/setup.sh ros",
        "source scripts/env.bash && scripts/build.sh",
    ]
    assert set(steps) <= recipe
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    needed = ("config", "launch", "msg", "package.xml", "requirements", "sap_ros", "scripts", "srv")
    assert not any(Path(name).match(pattern) for name in needed for pattern in left_out)


@pytest.mark.slow
def test_what_is_missing_on_a_jetson_is_said_in_one_line(checkout):
    """Without NVIDIA's torch, and without ROS 2, of which there are no wheels for aarch64."""
    (version,) = (checkout / ".venv").glob("lib/python*/site-packages/torch/version.py")
    version.write_text("cuda = None\n")
    release, uname = checkout / "nv_tegra_release", checkout / "bin" / "uname"
    release.touch()
    uname.parent.mkdir()
    uname.write_text("#!/bin/sh\necho aarch64\n")
    uname.chmod(0o755)
    script = checkout / "scripts" / "setup.sh"
    script.write_text(script.read_text().replace("/etc/nv_tegra_release", str(release)))
    environment = {
        k: v for k, v in os.environ.items() if k not in ("ROS_DISTRO", "TORCH_INDEX_URL")
    }
    environment["PATH"] = f"{uname.parent}:{environment['PATH']}"
    for step, said in (
        (
            "core",
            "a Jetson without NVIDIA's build of torch 2.5 or later; install that (https://docs.nvidia",
        ),
        ("ros", "ROS 2 is not sourced, and there are no wheels of it for aarch64"),
    ):
        done = subprocess.run(
            ["bash", str(script), step],
            cwd=checkout, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
