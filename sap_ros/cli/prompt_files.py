"""Prompts for many pictures, from a file: csv or jsonl."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PicturePrompts:
    """The prompts of one picture.

    Attributes:
        picture: its path, relative to the folder of pictures.
        objects: by id: ``points`` (u, v, label), ``box`` (left, top, right, bottom) or ``mask`` (a file,
            relative to the prompts' file), in pixels.
    """

    picture: str
    objects: dict[int, dict[str, Any]]


def read_prompts(path: Path) -> Iterator[PicturePrompts]:
    """Reads the prompts picture by picture; the file may be of any length.

    A csv has the columns ``picture`` and ``id`` (1 if it is missing or empty), and ``u``, ``v`` and ``label``
    (1 on the object, 0 off it), or ``left``, ``top``, ``right`` and ``bottom``, or ``mask``. The rows of one
    picture follow one another. A jsonl has a picture a line: ``{"picture": "a.jpg", "objects": [{"id": 1,
    "points": [[u, v, label], ...], "box": [left, top, right, bottom], "mask": "a.png"}]}``.

    Raises:
        ValueError: a line is invalid; the message names it.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{path} must be a .csv or a .jsonl")
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            yield from _from_csv(path, csv.DictReader(file))
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                objects = {int(o.get("id", 1)): _checked(o) for o in row["objects"]}
                picture = str(row["picture"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number}: {error!r}; a line must be like "
                    '{"picture": "a.jpg", "objects": [{"id": 1, "points": [[2100, 1180, 1]]}]}'
                ) from error
            yield PicturePrompts(picture, objects)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    points = [
        (float(u), float(v), int(label[0]) if label else 1)
        for u, v, *label in row.get("points", [])
    ]
    box = [float(value) for value in row.get("box", [])]
    if len(box) not in (0, 4):
        raise ValueError(f"a box has {len(box)} numbers; it must have 4")
    if not points and not box and not row.get("mask"):
        raise ValueError("an object has no points, box or mask")
    return {"points": points, "box": box, "mask": row.get("mask", "")}


def _from_csv(path: Path, rows: csv.DictReader[str]) -> Iterator[PicturePrompts]:
    if "picture" not in (rows.fieldnames or ()):
        raise ValueError(
            f"{path} has the columns {rows.fieldnames}; it must have picture, and u and v, or left, top, right "
            "and bottom, or mask"
        )
    picture = ""
    objects: dict[int, dict[str, Any]] = {}
    for row in rows:
        if objects and row["picture"] != picture:
            yield PicturePrompts(picture, objects)
            objects = {}
        picture = row["picture"]
        try:
            prompt = objects.setdefault(
                int(row.get("id") or 1), {"points": [], "box": [], "mask": ""}
            )
            if row.get("u"):
                point = float(row["u"]), float(row["v"]), int(row.get("label") or 1)
                prompt["points"].append(point)
            elif row.get("left"):
                prompt["box"] = [float(row[name]) for name in ("left", "top", "right", "bottom")]
            elif row.get("mask"):
                prompt["mask"] = row["mask"]
            else:
                raise ValueError("there is neither a point nor a box nor a mask")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
    if objects:
        yield PicturePrompts(picture, objects)
