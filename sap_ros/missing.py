"""Tells what to install if a package is missing. Imports os alone, because it runs when imports fail."""

from __future__ import annotations

import os

_COMMANDS = {
    "torch": "pip install torch --index-url https://download.pytorch.org/whl/cpu (or a CUDA build: "
    "pytorch.org/get-started)",
    # Without its requirements, and built with the installed torch: see setup.py.
    "sam2": "pip install setuptools wheel && SAM2_BUILD_CUDA=0 pip install --no-deps "
    "--no-build-isolation sam2==1.1.0",
    "cv2": "pip install opencv-python-headless",
    "PIL": "pip install pillow",
    "rclpy": "source ROS 2 (source /opt/ros/DISTRIBUTION/setup.bash), or run `make build` and source "
    "scripts/env.bash in the checkout of sap_ros",
    "sap_ros.msg": "build the package with colcon and source install/local_setup.bash",
}


# The optional requirements of setup.py that a package comes with.
_EXTRAS = {
    **dict.fromkeys(("jinja2", "matplotlib", "mcap", "rosbags"), "evaluation"),
    **dict.fromkeys(("accelerate", "pycocotools", "tensorboard"), "training"),
    **dict.fromkeys(("psutil", "py360convert", "equilib"), "bench"),
    **dict.fromkeys(("onnx", "onnxruntime"), "onnx"),
    "ray": "cluster",
    **dict.fromkeys(("s3fs", "upath"), "remote"),
}


def apt_install(package: str) -> str:
    """The command that installs a ROS package on Ubuntu, for the distribution that is sourced."""
    return f"apt install ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package}"


def how_to_install(error: ModuleNotFoundError) -> str:
    """One line with the missing package and the command that installs it."""
    module = error.name or str(error)
    names = (module, ".".join(module.split(".")[:2]), module.split(".")[0])
    known = next((name for name in names if name in _COMMANDS), "")
    command = _COMMANDS.get(known) or f"pip install {names[-1].replace('_', '-')}"
    if names[-1] in _EXTRAS:
        command = f'pip install ".[{_EXTRAS[names[-1]]}]" (in the checkout of sap_ros)'
    return f"the Python package {known or names[-1]} is missing; install it: {command}"
