"""Prompts for many pictures, from a file: csv or jsonl."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath
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
    seen: set[str] = set()
    for number, of_picture in _lines(path):
        picture = of_picture.picture
        parts = PurePath(picture).parts
        if not parts or PurePath(picture).is_absolute() or ".." in parts:
            raise ValueError(
                f"{path}, line {number}: the picture is {picture!r}; it must be relative to the folder of "
                "pictures"
            )
        if picture in seen:
            raise ValueError(
                f"{path}, line {number}: {picture} has prompts in an earlier line, too; those of one picture "
                "must follow one another"
            )
        seen.add(picture)
        yield of_picture


def count_pictures(path: Path) -> int | None:
    """The number of pictures that a file of prompts names, without reading their prompts; None: it is invalid."""
    try:
        with path.open(newline="") as file:
            if path.suffix != ".csv":
                return sum(not line.isspace() for line in file)
            rows = csv.reader(file)
            column = next(rows, []).index("picture")
            return sum(1 for _ in groupby(row[column] for row in rows if row))
    except (ValueError, IndexError, csv.Error):
        return None


def _lines(path: Path) -> Iterator[tuple[int, PicturePrompts]]:
    """The prompts, and the line with the last ones of each picture."""
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
                objects: dict[int, dict[str, Any]] = {}
                for given in row["objects"]:
                    object_id = int(given.get("id", 1))
                    if object_id in objects:
                        raise ValueError(f"there are two objects with the id {object_id}")
                    objects[object_id] = _checked(given)
                picture = str(row["picture"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number}: {error!r}; a line must be like "
                    '{"picture": "a.jpg", "objects": [{"id": 1, "points": [[2100, 1180, 1]]}]}'
                ) from error
            yield number, PicturePrompts(picture, objects)


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


def _from_csv(path: Path, rows: csv.DictReader[str]) -> Iterator[tuple[int, PicturePrompts]]:
    if "picture" not in (rows.fieldnames or ()):
        raise ValueError(
            f"{path} has the columns {rows.fieldnames}; it must have picture, and u and v, or left, top, right "
            "and bottom, or mask"
        )
    picture = ""
    objects: dict[int, dict[str, Any]] = {}
    for row in rows:
        if objects and row["picture"] != picture:
            yield rows.line_num, PicturePrompts(picture, objects)
            objects = {}
        picture = row["picture"]
        try:
            prompt = objects.setdefault(
                int(row.get("id") or 1), {"points": [], "box": [], "mask": ""}
            )
            kinds = [name for name in ("u", "left", "mask") if row.get(name)]
            if len(kinds) != 1:
                raise ValueError(
                    "a row must have a point (u, v), a box (left, top, right, bottom) or a mask; this one has "
                    f"{len(kinds)} of them"
                )
            if kinds == ["u"]:
                point = float(row["u"]), float(row["v"]), int(row.get("label") or 1)
                prompt["points"].append(point)
            elif kinds == ["left"]:
                prompt["box"] = [float(row[name]) for name in ("left", "top", "right", "bottom")]
            else:
                prompt["mask"] = row["mask"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
    if objects:
        yield rows.line_num, PicturePrompts(picture, objects)
