"""The node's parameters: one table for their declaration and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from sap_ros.camera_files import PROJECTIONS
from sap_ros.core.checkpoints import MODELS
from sap_ros.core.loading import BACKENDS, DEFAULT_MODEL
from sap_ros.core.motion import Following
from sap_ros.core.prompts import MAX_OBJECT_ID
from sap_ros.core.search import STRATEGIES
from sap_ros.engine.axes import ImageAxes
from sap_ros.engine.events import Settings
from sap_ros.lenses import TOLERANCE

_FOLLOWING = Following()


@dataclass(frozen=True)
class Parameter:
    """A parameter of the node; it has the type of its default.

    Attributes:
        choices: the allowed values; empty: any.
        limits: lowest and highest value of a number.
        dynamic: whether it can be changed at any time; otherwise it is read when the node is configured.
    """

    name: str
    default: str | int | float | bool
    description: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    dynamic: bool = False


PARAMETERS = (
    Parameter("model", DEFAULT_MODEL, "model to load", tuple(MODELS)),
    Parameter("checkpoint", "", "file with other weights for that model; empty: its own"),
    Parameter(
        "device",
        "auto",
        "torch device: auto (CUDA if there is a GPU for it, else cpu), cpu, cuda, cuda:1",
    ),
    Parameter(
        "backend",
        "auto",
        "what runs the model: torch, or onnxruntime, for which it is exported once (on a GPU with TensorRT "
        "or CUDA, if onnxruntime supports them); auto: onnxruntime on a CPU if it is installed "
        "and not slower for the model, else torch",
        BACKENDS,
    ),
    Parameter(
        "strategy",
        "auto",
        "how the panorama is shown to the model: in a view that shows the click, then views centred on the "
        "object (auto), or in these alone (gimbal), in views of the scan (frontier: those that the mask extends "
        "into; scan: all), resized as a whole (direct), or in crops (patches)",
        STRATEGIES,
    ),
    Parameter(
        "view_size",
        0,
        "side of a view, in pixels, a multiple of 32 (edgetam: of 256); 0: the model's default",
        limits=(0, 2048),
    ),
    Parameter(
        "coarse_size",
        0,
        "coarse to fine: new objects are first found in views of this many pixels; 0: off",
        limits=(0, 2048),
    ),
    Parameter(
        "further_views",
        0,
        "frontier: further views to visit, beyond those that the mask extends into, for objects that are "
        "partly hidden and appear in several parts",
        limits=(0, 24),
    ),
    Parameter("compile", False, "compile the image encoder (torch.compile): for GPUs"),
    Parameter(
        "fusion",
        "auto",
        "how overlapping views are fused; auto: max (the paper's method), but weighted for sap-nano and sap-micro",
        ("auto", "max", "weighted"),
    ),
    Parameter(
        "image_transport",
        "raw",
        "raw: `image`; compressed: `image/compressed` (jpeg or png; packets of h264, h265 or av1 video); "
        "ffmpeg: `image/ffmpeg` (such packets as ffmpeg_image_transport sends them)",
        ("raw", "compressed", "ffmpeg"),
    ),
    Parameter(
        "projection",
        "equirectangular",
        "how an image shows the sphere: equirectangular, or dual_fisheye (two lenses in one picture, described "
        "by camera_file); masks and pixels of prompts refer to the equirectangular panorama either way",
        PROJECTIONS,
    ),
    Parameter(
        "camera_file",
        "",
        "dual_fisheye: path of a camera file, or name of a preset (insta360, theta_s, side_by_side, stacked)",
    ),
    Parameter(
        "lens_topics",
        False,
        "dual_fisheye: each lens has a topic, `image_front` (the camera file's first lens) and `image_back`, in "
        "place of `image`",
    ),
    Parameter(
        "lens_tolerance",
        TOLERANCE,
        "largest difference between the stamps of the two lenses' images that are put together, in s; never more "
        "than half of the time from image to image",
        limits=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        "mask_encoding",
        "mono8",
        "encoding of the masks: mono8 holds ids to 254, mono16 to 65534",
        ("mono8", "mono16"),
    ),
    Parameter(
        "forward_column",
        0.5,
        "column of the panorama that is straight ahead, as a share of its width",
        limits=(0.0, 1.0),
    ),
    Parameter(
        "image_frame_convention",
        "body",
        "axes of the image's frame: body (x forward, z up) or optical (z forward, y down)",
        ("body", "optical"),
    ),
    Parameter(
        "stamp_offset",
        0.0,
        "by how much the stamps of the images are later than the images, in s (`sap latency` measures it): it "
        "is taken off where images are matched with TF and point clouds",
        limits=(-10.0, 10.0),
        dynamic=True,
    ),
    Parameter(
        "keep_images",
        5,
        "number of past images that are kept for prompts that arrive late",
        limits=(0, 100),
    ),
    Parameter(
        "patience",
        0.5,
        "how long a prompt that is stamped later than the newest image waits for its own image, in s",
        limits=(0.0, 60.0),
        dynamic=True,
    ),
    Parameter(
        "cloud_tolerance",
        0.1,
        "largest difference between the stamps of a point cloud or depth panorama and of the image it gives "
        "ranges for, in s",
        limits=(0.0, 10.0),
        dynamic=True,
    ),
    Parameter(
        "ground_frame",
        "",
        "TF frame whose plane z = 0 is the ground, such as base_footprint: objects whose lowest point is on "
        "the ground get a range from it; empty: none",
        dynamic=True,
    ),
    Parameter(
        "camera_height",
        0.0,
        "height of the camera above the ground, in m; 0: that in ground_frame. Without ground_frame the "
        "panorama must be upright; if neither is set, the ground gives no ranges",
        limits=(0.0, 100.0),
        dynamic=True,
    ),
    Parameter(
        "max_range_stddev",
        0.5,
        "largest standard deviation of a range from the ground, in m; less certain ranges are left out",
        limits=(0.0, 100.0),
        dynamic=True,
    ),
    Parameter(
        "detection_classes",
        "",
        "classes on `prompt/detections` that start objects, separated by commas; empty: all",
        dynamic=True,
    ),
    Parameter(
        "detection_score",
        0.5,
        "least score of a detection that starts an object",
        limits=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        "detection_objects",
        8,
        "largest number of objects that detections start",
        limits=(0, 254),
        dynamic=True,
    ),
    Parameter(
        "detection_restart",
        2.0,
        "time that an object must be lost before a detection of its label prompts it again, in s; 0: such a "
        "detection starts a new object at once",
        limits=(0.0, 3600.0),
        dynamic=True,
    ),
    Parameter(
        "silence",
        2.0,
        "time without an image, or without a further point cloud, after which the diagnostics warn, in s",
        limits=(0.1, 3600.0),
        dynamic=True,
    ),
    Parameter(
        "max_objects",
        32,
        "largest number of objects; prompts for further ones are rejected",
        limits=(1, 65534),
        dynamic=True,
    ),
    Parameter(
        "margin",
        _FOLLOWING.margin,
        "how far beyond its last mask an object is looked for in the next image, in degrees",
        limits=(0.0, 90.0),
        dynamic=True,
    ),
    Parameter(
        "search",
        _FOLLOWING.search,
        "views of the scan that are searched in each image for a lost object",
        limits=(0, 24),
        dynamic=True,
    ),
    Parameter(
        "min_score",
        _FOLLOWING.min_score,
        "in images after that of the prompt, a mask with a lower predicted IoU is rejected; the limit is "
        "lower for an object whose first mask already had a low one",
        limits=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        "max_growth",
        _FOLLOWING.max_growth,
        "a mask that is larger than the object was in the last images by more than this factor is rejected, "
        "unless its predicted IoU exceeds sure_score",
        limits=(1.0, 1000.0),
        dynamic=True,
    ),
    Parameter(
        "sure_score",
        _FOLLOWING.sure_score,
        "predicted IoU above which max_growth does not apply",
        limits=(0.0, 1.0),
        dynamic=True,
    ),
    Parameter(
        "target_frame",
        "",
        "TF frame of bearings and positions; empty: the image's own",
        dynamic=True,
    ),
    Parameter(
        "fixed_frame",
        "",
        "TF frame that is fixed in the world, such as odom: directions and positions that were stamped "
        "earlier than the image are corrected for the robot's motion since then",
        dynamic=True,
    ),
    Parameter(
        "level_frame",
        "",
        "TF frame whose z axis is up, such as odom or map (REP 105): views are laid out level with it when the "
        "camera is tilted; empty: by `imu/data`, if it is received, else views are as upright as the panorama",
        dynamic=True,
    ),
    Parameter(
        "tf_timeout",
        0.2,
        "how long to wait for a transform, in s",
        limits=(0.0, 10.0),
        dynamic=True,
    ),
    Parameter(
        "broadcast_tf",
        False,
        "broadcast a TF frame for each object, NAMESPACE/object_ID, with its x axis along the bearing",
        dynamic=True,
    ),
    Parameter(
        "pose_object",
        0,
        "object whose pose is published on `pose` when its range is known; 0: none",
        limits=(0, 65534),
        dynamic=True,
    ),
    Parameter(
        "overlay_width",
        1920,
        "width of the overlay, at most that of the image",
        limits=(256, 8192),
        dynamic=True,
    ),
)

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def declare_parameters(node: Node) -> None:
    """Declares all parameters.

    Raises:
        ValueError: a given value is out of its range or has a wrong type.
    """
    for parameter in PARAMETERS:
        descriptor = ParameterDescriptor(description=parameter.description)
        if parameter.choices:
            descriptor.additional_constraints = f"one of: {', '.join(parameter.choices)}"
        if isinstance(parameter.default, float):
            descriptor.dynamic_typing = True  # users write 10 for 10.0
        if parameter.limits and isinstance(parameter.default, int):
            low, high = (int(limit) for limit in parameter.limits)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        elif parameter.limits:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=parameter.limits[0], to_value=parameter.limits[1], step=0.0
                )
            ]
        try:
            node.declare_parameter(parameter.name, parameter.default, descriptor)
        except ParameterException:
            given = node._parameter_overrides[parameter.name].value
            checked(parameter, given)  # raises an error with the allowed values
            raise


def misspelt_parameters(node: Node) -> list[str]:
    """A line for each given parameter that the node does not have, but for one with a similar name.

    Others are usual, and not for this node: a file's part ``/**`` is given to all nodes.
    """
    unknown = {name for name in node._parameter_overrides if not node.has_parameter(name)}
    similar = {name: get_close_matches(name, _BY_NAME, n=1, cutoff=0.8) for name in sorted(unknown)}
    return [
        f"there is no parameter {name}; did you mean {meant[0]}?"
        for name, meant in similar.items()
        if meant
    ]


def read_parameters(node: Node) -> dict[str, Any]:
    """The parameters' values.

    Raises:
        ValueError: a value is none of the choices, or out of its range.
    """
    return {p.name: checked(p, node.get_parameter(p.name).value) for p in PARAMETERS}


def check_changes(changes: Iterable[Any], configured: bool) -> dict[str, Any]:
    """Checks requested changes; returns the new values of the parameters in the table.

    Args:
        changes: rclpy parameters; others than those in the table (``use_sim_time``) are ignored.
        configured: whether the node has read the parameters that are not dynamic.

    Raises:
        ValueError: a change is not possible.
    """
    values = {}
    for change in changes:
        parameter = _BY_NAME.get(change.name)
        if parameter is None:
            continue
        if configured and not parameter.dynamic:
            raise ValueError(
                f"parameter {change.name} is read when the node is configured; deactivate and clean up "
                "the node first"
            )
        values[change.name] = checked(parameter, change.value)
    return values


def settings(values: Mapping[str, Any]) -> Settings:
    """The engine's settings, from the parameters."""
    return Settings(
        max_objects=values["max_objects"],
        largest_id=254 if values["mask_encoding"] == "mono8" else MAX_OBJECT_ID,
        keep_images=values["keep_images"],
        axes=ImageAxes(values["forward_column"], values["image_frame_convention"]),
        target_frame=values["target_frame"],
        fixed_frame=values["fixed_frame"],
        level_frame=values["level_frame"],
        patience=values["patience"],
        cloud_tolerance=values["cloud_tolerance"],
        ground_frame=values["ground_frame"],
        camera_height=values["camera_height"],
        max_range_stddev=values["max_range_stddev"],
        detection_classes=tuple(
            filter(None, map(str.strip, values["detection_classes"].split(",")))
        ),
        detection_score=values["detection_score"],
        detection_objects=values["detection_objects"],
        detection_restart=values["detection_restart"],
        following=following(values),
    )


def following(values: Mapping[str, Any]) -> Following:
    """How objects are followed, from the parameters."""
    names = ("margin", "search", "min_score", "max_growth", "sure_score")
    return Following(**{name: values[name] for name in names})


def table() -> str:
    """The README's table of parameters."""
    rows = ["| parameter | default | | |", "|---|---|---|---|"]
    for p in PARAMETERS:
        values = ", ".join(p.choices)
        if p.limits:
            values = f"{p.limits[0]:g} to {p.limits[1]:g}"
        text = p.description.replace("|", "\\|") + (" *" if p.dynamic else "")
        default = str(p.default).lower() if isinstance(p.default, bool) else str(p.default)
        rows.append(f"| `{p.name}` | {default} | {text} | {values} |")
    return "\n".join(rows)


def checked(parameter: Parameter, value: Any) -> Any:
    """Checks a value; an int for a float parameter is converted.

    Raises:
        ValueError: the value has a wrong type, is none of the choices, or is out of its range.
    """
    kind = type(parameter.default)
    if kind is float and type(value) is int:
        value = float(value)
    right = f"one of {', '.join(parameter.choices)}" if parameter.choices else kind.__name__
    if parameter.limits:
        right = f"{kind.__name__}, {parameter.limits[0]:g} to {parameter.limits[1]:g}"
    wrong = type(value) is not kind or (parameter.choices and value not in parameter.choices)
    if not wrong and parameter.limits:
        wrong = not parameter.limits[0] <= value <= parameter.limits[1]
    if wrong:
        raise ValueError(f"parameter {parameter.name} is {value!r}; it must be {right}")
    return value
