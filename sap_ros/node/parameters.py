"""The node's parameters: one table, declared from here, documented from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from sap_ros.core.model import DEFAULT_MODEL, MODELS


@dataclass(frozen=True)
class Parameter:
    """A parameter of the node; its type is its default's.

    Attributes:
        choices: the values it may have; empty: any.
    """

    name: str
    default: str | int | float | bool
    description: str
    choices: tuple[str, ...] = ()


PARAMETERS = (
    Parameter("model", DEFAULT_MODEL, "model to load", tuple(MODELS)),
    Parameter("checkpoint", "", "file with other weights for that model; empty: its own"),
    Parameter("device", "cpu", "torch device: cpu, cuda, cuda:1"),
    Parameter(
        "strategy",
        "scan",
        "how the panorama is shown to the model: as views of a scan, whole, or as crops",
        ("scan", "direct", "patches"),
    ),
    Parameter(
        "fusion",
        "auto",
        "how overlapping views are fused; auto: max (the method), weighted for sap-nano",
        ("auto", "max", "weighted"),
    ),
    Parameter(
        "mask_encoding",
        "mono8",
        "encoding of the masks: mono8 holds ids to 254, mono16 to 65534",
        ("mono8", "mono16"),
    ),
)


def declare_parameters(node: Node) -> None:
    """Declares all parameters, read-only: they are read when the node is configured."""
    for parameter in PARAMETERS:
        constraint = f"one of: {', '.join(parameter.choices)}" if parameter.choices else ""
        node.declare_parameter(
            parameter.name,
            parameter.default,
            ParameterDescriptor(
                description=parameter.description, additional_constraints=constraint
            ),
        )


def read_parameters(node: Node) -> dict[str, Any]:
    """The parameters' values.

    Raises:
        ValueError: a value that is none of the choices.
    """
    values = {}
    for parameter in PARAMETERS:
        value = node.get_parameter(parameter.name).value
        if parameter.choices and value not in parameter.choices:
            raise ValueError(
                f"parameter {parameter.name} is {value!r}; it must be one of "
                f"{', '.join(parameter.choices)}"
            )
        values[parameter.name] = value
    return values
