"""Panoramas of InfiniGen's scenes, indoors and outdoors, with an instance id for each object.

InfiniGen (Raistrick et al., "Infinite Photorealistic Worlds Using Procedural Generation", CVPR 2023;
"Infinigen Indoors", CVPR 2024) makes the scenes with its own programs and job manager, on one machine or on
Slurm. It has no panoramic camera, and its ids are those of parts of objects. Therefore this module replaces
its render task: the job manager starts this module instead of InfiniGen's scene script
(``get_cmd.driver_script``), with the same arguments.

Runs in InfiniGen's environment: Python 3.11, requirements/infinigen.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

import sap_ros
from sap_ros.synthesis.dataset import DatasetWriter, write_index

Place = Literal["indoors", "outdoors"]

_SCRIPTS = {
    "indoors": "infinigen_examples.generate_indoors",
    "outdoors": "infinigen_examples.generate_nature",
}
#: InfiniGen's kinds of landscape; a seed always gets the same one.
_LANDSCAPES = ("forest", "river", "desert", "mountain", "canyon", "plain", "coast", "cliff")
#: InfiniGen's configurations that are used for the scenes.
_CONFIGS = {"indoors": ("singleroom", "fast_solve"), "outdoors": ("simple",)}
_OVERRIDES = {"indoors": ("compose_indoors.restrict_single_supported_roomtype=True",)}
#: Parts of a house and of the landscape; they are background.
_HOUSE = re.compile(
    r"\.(wall|floor|ceiling|exterior|meshed)|skirting|Staircase|Pillar|atmosphere|terrain|cloud",
    re.I,
)
#: Other places of the camera are within this of InfiniGen's, in m (x, y, z) ...
_REACH = (4.0, 4.0, 0.4)
#: ... and nothing in any of many directions within this, in m.
_CLEARANCE = 0.5


def write_scenes(
    folder: Path,
    seeds: Iterable[int],
    place: Place,
    size: tuple[int, int],
    samples: int,
    positions: int = 1,
    at_once: int = 1,
    manager: str = "local_64GB",
    overrides: Iterable[str] = (),
) -> list[int]:
    """Makes one scene per seed with InfiniGen's job manager and renders each as labelled panoramas.

    Existing panoramas are kept. Unfinished scenes continue after their last finished task.

    Args:
        folder: the data set, see :mod:`sap_ros.synthesis.dataset`; InfiniGen's own files are in ``work/``.
        seeds: seeds of the scenes.
        place: which of InfiniGen's two scene scripts is used.
        size: (width, height) of the panoramas.
        samples: Cycles' samples per pixel.
        positions: number of panoramas of a scene: from InfiniGen's camera, and from other free places that
            it sees. A scene where there is room for fewer has fewer. Of indoor scenes: outdoors, what is
            rendered is hidden from the rays that look for free places.
        at_once: number of concurrent jobs.
        manager: InfiniGen's configuration of the machine: ``local_64GB``, ``slurm``, ...
        overrides: overrides of InfiniGen's scene settings (gin).

    Returns:
        The seeds whose scenes were not finished; their logs are in ``work/``.

    Raises:
        ValueError: several positions outdoors, or the folder was made with other settings.
    """
    if positions > 1 and place != "indoors":
        raise ValueError(f"positions is {positions}; of scenes outdoors it must be 1")
    settings = {
        "kind": "infinigen", "place": place, "size": list(size), "samples": samples,
        "overrides": list(overrides), **({"positions": positions} if positions > 1 else {}),
    }  # fmt: skip
    writer = DatasetWriter(folder, settings)
    missing = [seed for seed in seeds if not writer.has(_name(seed))]
    batches = [path.parent for path in sorted(folder.glob("work/*/scenes_db.csv"))]
    begun = {int(path.name, 16): batch for batch in batches for path in batch.glob("*/")}
    for batch in dict.fromkeys(begun[seed] for seed in missing if seed in begun):
        _manage(batch, ["--use_existing"], place, at_once, manager, overrides)
    fresh = [seed for seed in missing if seed not in begun]
    if fresh:
        chosen = ["--specific_seed", *(f"{seed:x}" for seed in fresh), "--overwrite"]
        _manage(folder / "work" / _name(fresh[0]), chosen, place, at_once, manager, overrides)
    write_index(folder)
    return [seed for seed in missing if not writer.has(_name(seed))]


def _name(seed: int) -> str:
    return f"{seed:08d}"


def _manage(
    batch: Path,
    chosen: list[str],
    place: Place,
    at_once: int,
    manager: str,
    overrides: Iterable[str],
) -> None:
    """Runs InfiniGen's job manager until each of its scenes has succeeded or failed."""
    import infinigen

    batch.mkdir(parents=True, exist_ok=True)
    settings = [*_OVERRIDES.get(place, ()), *overrides]
    command = [
        sys.executable, "-m", __name__, "manage",
        "--output_folder", str(batch.resolve()), *chosen,
        "--configs", *_CONFIGS[place],
        *(["--overrides", *settings] if settings else []),
        "--pipeline_configs", manager, "monocular",
        "--pipeline_overrides",
        f"get_cmd.driver_script='{__name__}'",
        f"manage_datagen_jobs.num_concurrent={at_once}",
        "LocalScheduleHandler.use_gpu=False",
        "queue_render.gpus=0", "rendershort/queue_render.gpus=0", "renderbackup/queue_render.gpus=0",
        "--cleanup", "big_files",
    ]  # fmt: skip
    # InfiniGen looks for its configurations relative to the folder that it is installed in.
    home = Path(infinigen.__file__).parents[1]
    ours = str(Path(sap_ros.__file__).parents[1])
    path = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    with (batch / "manager.log").open("a") as log:
        subprocess.run(
            command, cwd=home, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )


def _run_manager() -> None:
    """Runs InfiniGen's job manager; its wheel lacks the template of the summary page."""
    import jinja2

    def no_page(*_: object, **__: object) -> jinja2.BaseLoader:
        return jinja2.DictLoader({"template.html": ""})

    jinja2.FileSystemLoader = no_page  # type: ignore[assignment, misc]
    runpy.run_module("infinigen.datagen.manage_jobs", run_name="__main__", alter_sys=True)


def _run_scene() -> None:
    """Replaces InfiniGen's scene scripts: the same arguments, but another render task."""
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--output_folder", type=Path, required=True)
    parser.add_argument("--seed", required=True)
    known, _ = parser.parse_known_args(arguments)
    folder = next(
        path for path in known.output_folder.resolve().parents if (path / "manifest.json").exists()
    )
    settings = json.loads((folder / "manifest.json").read_text())
    seed = int(known.seed, 16)

    from infinigen.core import execute_tasks

    def render(*_: object, **__: object) -> None:
        _render(DatasetWriter(folder, settings), seed, settings)

    execute_tasks.render = render
    if settings["place"] == "outdoors":
        landscape = _LANDSCAPES[seed % len(_LANDSCAPES)]
        arguments.insert(arguments.index("-g") + 1, landscape)
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(_SCRIPTS[settings["place"]], run_name="__main__", alter_sys=True)


def _render(writer: DatasetWriter, seed: int, settings: Mapping[str, Any]) -> None:
    """Renders the open scene from InfiniGen's camera and other places, upright, and writes that.

    The first one, by whose name a scene is known to be finished, is written last.
    """
    import bpy

    from sap_ros.synthesis.blender import render

    names = _number_objects()
    camera = bpy.context.scene.camera.matrix_world
    ahead = -camera.col[2]
    eyes = _positions(tuple(camera.translation), settings.get("positions", 1), seed)
    heading = math.atan2(ahead[1], ahead[0])
    for number, eye in reversed(list(enumerate(eyes))):
        name = f"{_name(seed)}_{number}" if number else _name(seed)
        if not writer.has(name):
            panorama, instances = render(tuple(settings["size"]), settings["samples"], eye, heading)
            writer.write(name, panorama, instances, names)


def _positions(
    first: tuple[float, float, float], count: int, seed: int
) -> list[tuple[float, float, float]]:
    """Places for a camera in the open scene: ``first``, and free ones that it sees, far from each other.

    Args:
        first: position of InfiniGen's camera, in m.
        count: number of places; fewer are returned if there is no room for them.
        seed: seed of the places.
    """
    if count == 1:
        return [first]
    import bpy

    scene, evaluated = bpy.context.scene, bpy.context.evaluated_depsgraph_get()
    random = np.random.default_rng(seed)

    def is_free(start: np.ndarray, way: np.ndarray) -> bool:
        length = float(np.linalg.norm(way))
        return not scene.ray_cast(evaluated, tuple(start), tuple(way / length), distance=length)[0]

    origin = np.array(first)
    candidates = origin + random.uniform(-1, 1, (200, 3)) * _REACH
    around = random.normal(size=(24, 3))
    around *= _CLEARANCE / np.linalg.norm(around, axis=1, keepdims=True)
    free = [
        place
        for place in candidates
        if is_free(origin, place - origin) and all(is_free(place, way) for way in around)
    ]
    chosen = [origin]
    while free and len(chosen) < count:
        apart = [min(float(np.linalg.norm(place - other)) for other in chosen) for place in free]
        farthest = int(np.argmax(apart))
        if apart[farthest] < _CLEARANCE:
            break
        chosen.append(free.pop(farthest))
    return [(float(x), float(y), float(z)) for x, y, z in chosen]


def _number_objects() -> dict[int, str]:
    """Gives all parts of an object the same pass index; returns the objects' names by pass index.

    An object is anything spawned by an asset factory of InfiniGen: ``ChairFactory(1234).spawn_asset(0)``.
    """
    import bpy

    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for thing in bpy.data.objects:
        thing.pass_index = 0
        spawned = thing
        while spawned.parent is not None and "Factory" in spawned.parent.name:
            spawned = spawned.parent
        kind = re.match(r"(\w+?)Factory", spawned.name)
        if kind is None or _HOUSE.search(spawned.name):
            continue
        thing.pass_index = numbers.setdefault(spawned.name, len(numbers) + 1)
        names[thing.pass_index] = kind.group(1).lower()
    return names


if __name__ == "__main__":
    if sys.argv[1:2] == ["manage"]:
        del sys.argv[1]
        _run_manager()
    else:
        _run_scene()
