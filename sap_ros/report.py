"""Objects as a file and as a table."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sap_ros.core.instances import Instances


def write_objects(path: Path, instances: Instances) -> None:
    """Writes the objects as JSON: angles in degrees, the direction as a unit vector."""
    rows = []
    for thing in instances.objects:
        found = thing.solid_angle > 0
        degrees = {
            name: round(math.degrees(getattr(thing, name)), 3)
            for name in (
                "azimuth", "elevation", "azimuth_centre", "azimuth_width",
                "elevation_min", "elevation_max",
            )
        }  # fmt: skip
        rows.append(
            {
                "id": thing.object_id,
                "state": thing.state.name,
                "direction": [round(float(x), 6) for x in thing.direction] if found else None,
                **{f"{name}_deg": value if found else None for name, value in degrees.items()},
                "solid_angle_sr": round(thing.solid_angle, 6),
                "score": round(thing.score, 4),
            }
        )
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(rows, indent=2) + "\n")
    part.replace(path)


def print_objects(instances: Instances, iou: dict[int, tuple[str, float]] | None = None) -> None:
    """Prints a table of the objects; ``iou``: true name, and IoU with the true mask, by id."""
    names = ("id", "state", "azimuth", "elevation", "width", "sr", "score")
    table = Table(*names, box=None, pad_edge=False, padding=(0, 1))  # fits into 80 columns
    if iou is not None:
        table.add_column("object")
        table.add_column("IoU")
    for thing in instances.objects:
        cells = [str(thing.object_id), thing.state.name]
        angles = (thing.azimuth, thing.elevation, thing.azimuth_width)
        cells += [f"{math.degrees(a):{sign}.1f}°" for a, sign in zip(angles, "++-", strict=True)]
        cells += [f"{thing.solid_angle:.4f}", f"{thing.score:.2f}"]
        if iou is not None:
            name, value = iou[thing.object_id]
            cells += [name, f"{value:.3f}"]
        table.add_row(*cells)
    Console().print(table)
