"""Writes objects to a file, and prints them as a table."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sap_ros.core.instances import Instances, State
from sap_ros.files import write_text

# Below this score a mask is said to be uncertain.
_UNSURE = 0.5


def write_objects(path: Path, instances: Instances) -> None:
    """Writes the objects as JSON: angles in degrees, the direction as a unit vector."""
    rows = []
    for instance in instances.objects:
        found = instance.solid_angle > 0
        degrees = {
            name: round(math.degrees(getattr(instance, name)), 3)
            for name in (
                "azimuth", "elevation", "azimuth_centre", "azimuth_width",
                "elevation_min", "elevation_max",
            )
        }  # fmt: skip
        rows.append(
            {
                "id": instance.object_id,
                "state": instance.state.name,
                "direction": [round(float(x), 6) for x in instance.direction] if found else None,
                **{f"{name}_deg": value if found else None for name, value in degrees.items()},
                "solid_angle_sr": round(instance.solid_angle, 6),
                "score": round(instance.score, 4),
            }
        )
    write_text(path, json.dumps(rows, indent=2) + "\n")


def print_objects(instances: Instances, iou: dict[int, tuple[str, float]] | None = None) -> None:
    """Prints a table of the objects; ``iou``: by id, true name and IoU with the true mask."""
    names = ("id", "state", "azimuth", "elevation", "width", "sr", "score")
    table = Table(*names, box=None, pad_edge=False, padding=(0, 1))  # fits into 80 columns
    if iou is not None:
        table.add_column("object")
        table.add_column("IoU")
    for instance in instances.objects:
        cells = [str(instance.object_id), instance.state.name]
        angles = (instance.azimuth, instance.elevation, instance.azimuth_width)
        cells += [
            f"{round(math.degrees(a), 1) + 0.0:{sign}.1f}°"
            for a, sign in zip(angles, "++-", strict=True)
        ]
        cells += [f"{instance.solid_angle:.4f}", f"{instance.score:.2f}"]
        if iou is not None:
            name, value = iou[instance.object_id]
            cells += [name, f"{value:.3f}"]
        table.add_row(*cells)
    Console().print(table)


def advice(instances: Instances) -> list[str]:
    """A line for each object that was not found, or whose mask is uncertain: what to give `sap segment`."""
    lines = []
    for instance in instances.objects:
        i, lost = instance.object_id, instance.state != State.TRACKED
        if lost or instance.score < _UNSURE:
            how = "not found" if lost else f"uncertain (score {instance.score:.2f})"
            lines.append(
                f"Object {i} is {how}: a further point may help, on it (--point U,V:{i}) or off it (--point U,V:{i}:-)"
            )
    return lines
