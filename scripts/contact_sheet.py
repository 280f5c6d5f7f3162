"""Draws a contact sheet: one cell per click, with the view around it and its mask.

    python scripts/contact_sheet.py docs/clicks.csv PANORAMAS docs/clicks.jpg [MODEL=WEIGHTS]

The csv has columns panorama (NAME of PANORAMAS/NAME.jpg), u and v (shares of width and height).
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import cv2
import numpy as np

from sap_ros.core import sphere
from sap_ros.core.camera import View, direction_to_view
from sap_ros.core.loading import load_model
from sap_ros.core.prompts import from_pixels
from sap_ros.core.rendering import ViewRenderer
from sap_ros.core.session import PanoramaSession

_CELL, _COLUMNS, _FOV = 320, 5, math.radians(75)
_COLOUR = np.array([40, 90, 255], np.float32)  # BGR


def main(clicks: Path, folder: Path, out: Path, model: str = "sap-nano") -> None:
    name, _, weights = model.partition("=")
    session = PanoramaSession(load_model(name, Path(weights) if weights else None))
    cells, shown = [], ""
    with clicks.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["panorama"] != shown:
                image = cv2.imread(str(folder / f"{row['panorama']}.jpg"))
                session.set_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                shown = row["panorama"]
            size = session.size
            pixel = float(row["u"]) * size[0], float(row["v"]) * size[1]
            session.reset()
            session.add_prompt(from_pixels(1, [pixel], size))
            instances = session.segment()
            cells.append(_cell(image, instances.labels, pixel, instances.objects[0].score))
            print(f"{shown}: {pixel[0]:.0f},{pixel[1]:.0f}: {instances.objects[0].score:.2f}")
    rows = [np.hstack(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)]
    cv2.imwrite(str(out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def _cell(
    image: np.ndarray, labels: np.ndarray, pixel: tuple[float, float], score: float
) -> np.ndarray:
    """A view (S, S, 3) BGR centred on the click, with the mask."""
    direction = sphere.pixel_to_direction(np.array(pixel), (image.shape[1], image.shape[0]))
    azimuth, elevation = (float(a) for a in sphere.direction_to_angles(direction))
    view = View(azimuth, max(-math.pi / 2, min(math.pi / 2, elevation)), _FOV)
    picture = ViewRenderer(image, _CELL).render(view).astype(np.float32)
    mask = ViewRenderer(labels, _CELL, labels=True).render(view) > 0
    picture[mask] += 0.4 * (_COLOUR - picture[mask])
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, _COLOUR.tolist(), 1, cv2.LINE_AA)
    (u, v) = direction_to_view(direction[None], view, _CELL)[0]
    cv2.circle(picture, (round(u), round(v)), 4, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.circle(picture, (round(u), round(v)), 5, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(picture, f"{score:.2f}", (6, _CELL - 8), 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
