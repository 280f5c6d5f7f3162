"""The commands of a page, and their validation; pages send them as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from sap_ros.core.prompts import MAX_OBJECT_ID
from sap_ros.engine.events import MAX_LABEL

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """A point on an object, or off it.

    Attributes:
        direction: in the panorama's axes (x forward, y left, z up), of any length.
        positive: whether it is on the object.
        object_id: the object to correct; 0: a new object.
        stamp: stamp of the image that was shown: in ns for a live camera, a counter for stills.
    """

    direction: Vector
    positive: bool
    object_id: int
    stamp: int


@dataclass(frozen=True)
class Box:
    """A box around an object: directions to its upper left and lower right corner; otherwise as Point."""

    corners: tuple[Vector, Vector]
    object_id: int
    stamp: int


@dataclass(frozen=True)
class RemoveObject:
    """Removes an object."""

    object_id: int


@dataclass(frozen=True)
class Rename:
    """Changes an object's label."""

    object_id: int
    label: str


@dataclass(frozen=True)
class Simple:
    """A command without arguments: ``reset`` removes all objects; the others are only for stills."""

    name: Literal["reset", "undo", "save", "next", "previous"]


Command = Point | Box | RemoveObject | Rename | Simple


@dataclass(frozen=True)
class Done:
    """Result of a command.

    Attributes:
        message: a line for the user; may be empty.
        object_id: id of the prompted object; otherwise 0.
    """

    message: str = ""
    object_id: int = 0


def parse(values: dict[str, Any]) -> Command:
    """Converts a page's message to a command.

    Raises:
        ValueError: the message is invalid; the error says what would be valid.
    """
    name = values.get("type")
    if name == "point":
        positive = values.get("positive")
        if not isinstance(positive, bool):
            raise ValueError(f"positive is {_shown(positive)}; it must be true or false")
        return Point(
            _vector(values.get("direction")), positive, _id(values, new=True), _stamp(values)
        )
    if name == "box":
        corners = values.get("corners")
        if not isinstance(corners, list) or len(corners) != 2:
            raise ValueError(f"corners is {_shown(corners)}; it must be two directions")
        first, second = (_vector(corner) for corner in corners)
        return Box((first, second), _id(values, new=True), _stamp(values))
    if name == "remove":
        return RemoveObject(_id(values))
    if name == "rename":
        label = values.get("label")
        if not isinstance(label, str) or len(label) > MAX_LABEL:
            raise ValueError(
                f"label is {_shown(label)}; it must be a text of at most {MAX_LABEL} characters"
            )
        return Rename(_id(values), " ".join(label.split()))
    if name in ("reset", "undo", "save", "next", "previous"):
        return Simple(name)
    raise ValueError(
        f"type is {_shown(name)}; it must be point, box, remove, rename, reset, undo, save, next or "
        "previous"
    )


def read_json(text: str) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        ValueError: the text is no valid JSON, or no object.
    """
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError("the message is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"the message is {_shown(values)}; it must be a JSON object")
    return values


def _vector(value: object) -> Vector:
    numbers = value if isinstance(value, list) else []
    fine = len(numbers) == 3 and all(_is_number(x) and math.isfinite(x) for x in numbers)
    if not fine or not any(numbers):
        raise ValueError(
            f"the direction is {_shown(value)}; it must be three finite numbers, not all 0"
        )
    x, y, z = (float(number) for number in numbers)
    return x, y, z


def _is_number(value: object) -> bool:
    # math.isfinite raises for integers with hundreds of digits, and no direction needs them.
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def _id(values: dict[str, Any], new: bool = False) -> int:
    value = values.get("object_id")
    if type(value) is not int or not (0 if new else 1) <= value <= MAX_OBJECT_ID:
        raise ValueError(
            f"object_id is {_shown(value)}; it must lie between {0 if new else 1} and "
            f"{MAX_OBJECT_ID}"
        )
    return value


def _stamp(values: dict[str, Any]) -> int:
    value = values.get("stamp")  # a string, because a browser's numbers have only 53 bits
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 19:
        raise ValueError(f"stamp is {_shown(value)}; it must be a text of up to 19 digits")
    return int(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
