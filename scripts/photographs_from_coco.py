"""Writes photographs of COCO, or of a part of it, in SA-1B's format, for `sap train` and `sap synth composite`.

    python scripts/photographs_from_coco.py images/val2017 annotations/instances_val2017.json \
        data/photographs/coco_more --licence 4 --licence 5 --licence 7 --held-out data/sa1b_mini_index.csv

Licences by COCO's numbers: 4 is CC BY, 5 CC BY-SA, 7 no known restriction, 8 a work of the US government; 1, 2 and 3
are for non-commercial use, 6 is without derivatives. Crowds are left out, and outlines that are mere boxes.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from sap_ros.places import write_whole

_BOX = 8  # coordinates of a polygon with four corners
_LEAST_AREA = 100  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of the photographs")
    parser.add_argument("annotations", type=Path, help="COCO's instances_*.json")
    parser.add_argument("out", type=Path, help="folder; photographs that are there are kept")
    parser.add_argument("--licence", type=int, action="append", required=True)
    parser.add_argument(
        "--held-out",
        type=Path,
        action="append",
        default=[],
        help="index.csv; photographs of its split val (source coco:ID or coco128:ID) are left out",
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    index = given.out / "index.csv"
    rows = _rows(index)
    others = [row for path in given.held_out for row in _rows(path) if row["split"] == "val"]
    left_out = {_coco_id(row["source"]) for row in [*others, *rows]}
    content = json.loads(given.annotations.read_text())
    outlines = defaultdict(list)
    for annotation in content["annotations"]:
        outlines[annotation["image_id"]].append(annotation)
    for image in sorted(content["images"], key=lambda image: image["id"]):
        picture = given.images / image["file_name"]
        if image["license"] not in given.licence or image["id"] in left_out or not picture.exists():
            continue
        masks = _masks(outlines[image["id"]], image["height"], image["width"])
        if not masks:
            continue
        name = f"{given.out.name}_{image['id']}"
        write_whole(given.out / f"{name}.jpg", picture.read_bytes())
        write_whole(given.out / f"{name}.json", json.dumps({"annotations": masks}).encode())
        source = f"coco:{image['id']}:license{image['license']}"
        rows.append({"name": name, "source": source, "split": "train", "annotations": len(masks)})
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, ["name", "source", "split", "annotations"])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(index, table.getvalue().encode())
    print(f"{len(rows)} photographs, {sum(int(row['annotations']) for row in rows)} masks")


def _rows(index: Path) -> list[dict[str, Any]]:
    """The rows of an index.csv; none if there is no such file."""
    if not index.exists():
        return []
    with index.open(newline="") as file:
        return list(csv.DictReader(file))


def _coco_id(source: str) -> int | None:
    found = re.match(r"coco(?:128)?:(\d+)", source)
    return int(found[1]) if found else None


def _masks(annotations: list[dict[str, Any]], height: int, width: int) -> list[dict[str, Any]]:
    """The annotations of a photograph that have an outline, as SA-1B's: with run-length masks."""
    masks = []
    for annotation in annotations:
        polygons = annotation["segmentation"]
        if annotation["iscrowd"] or annotation["area"] < _LEAST_AREA:
            continue
        if all(len(polygon) <= _BOX for polygon in polygons):
            continue
        runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        masks.append(
            {
                "id": annotation["id"],
                "segmentation": {"size": [height, width], "counts": runs["counts"].decode()},
                "bbox": annotation["bbox"],
                "area": int(coco_mask.area(runs)),
            }
        )
    return masks


if __name__ == "__main__":
    main()
