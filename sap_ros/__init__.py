"""SAP: point at anything in a 360° panorama and keep it (Segment Any 4K Panorama, for ROS 2).

    from sap_ros import PanoramaSession, Prompt, load_model

The names in ``__all__`` are the public API. They are imported when first used, and none of them imports
torch, which is imported when the first model is loaded.
"""

import os
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sap_ros.core.instances import Instance, Instances, State
    from sap_ros.core.loading import load_model
    from sap_ros.core.prompts import Prompt, from_pixels
    from sap_ros.core.session import PanoramaSession

# The source tree and the generated sap_ros.msg and sap_ros.srv may be in two folders of the path.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

# OpenMP's threads spin while they wait, unless this is set before torch is imported. With a second busy
# process on two cores, as on any robot, spinning makes a view 25 times slower; without one, it gives 18
# instead of 15 images per second.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# ONNX Runtime otherwise sends events over the network from its import on, and keeps an id of the machine in the
# user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Instance",
    "Instances",
    "PanoramaSession",
    "Prompt",
    "State",
    "from_pixels",
    "load_model",
]

_MODULES = {
    "Instance": "instances",
    "Instances": "instances",
    "PanoramaSession": "session",
    "Prompt": "prompts",
    "State": "instances",
    "from_pixels": "prompts",
    "load_model": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.core.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
