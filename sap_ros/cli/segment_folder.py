"""`sap segment FOLDER --prompts FILE`: many pictures, over several workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sap_ros.core.prompts import Prompt
    from sap_ros.core.search import Strategy
    from sap_ros.core.session import FusionChoice, PanoramaSession
    from sap_ros.jobs.run import Item, Job


@dataclass(frozen=True)
class SegmentSettings:
    """What a worker needs to make its session: the options of `sap segment`."""

    model: str
    checkpoint: Path | None
    device: str
    backend: str
    strategy: str
    fusion: str
    view_size: int | None
    coarse: int
    projection: str = "equirectangular"
    camera: str = ""

    def of(self, prompts: Any) -> str:
        """A hash of a picture's prompts and of the settings that its masks depend on."""
        settings = {k: v for k, v in asdict(self).items() if k not in ("device", "backend")}
        given = json.dumps([settings, prompts], sort_keys=True, default=str)
        return hashlib.sha256(given.encode()).hexdigest()[:16]

    def session(self) -> PanoramaSession:
        """A session with a model of its own."""
        from sap_ros.camera_files import projection_of
        from sap_ros.core.loading import Backend, load_model
        from sap_ros.core.session import PanoramaSession

        model = load_model(
            self.model,
            self.checkpoint,
            self.device,
            self.view_size,
            backend=cast("Backend", self.backend),
        )
        return PanoramaSession(
            model,
            cast("Strategy", self.strategy),
            fusion=cast("FusionChoice", self.fusion),
            coarse=self.coarse,
            projection=projection_of(self.projection, self.camera),
        )


@contextmanager
def segment_job(folder: Path, prompts: Path, out: Path, settings: SegmentSettings) -> Iterator[Job]:
    """Segments the pictures of a folder; writes ``masks/PICTURE.png`` and, last, ``objects/PICTURE.json``.

    ``done.jsonl`` says by which prompts and settings: with others, a picture is segmented anew.
    """
    from sap_ros.jobs.run import Job
    from sap_ros.places import Existing, absolute, appended, check_input, check_output, make_folder

    folder, prompts, out = absolute(folder), absolute(prompts), absolute(out)
    check_input(folder)
    check_output(out)
    make_folder(out)
    there = Existing(out / "objects")
    with appended(out / "done.jsonl") as (record, keep):
        made = _read_record(record)

        def is_done(item: Item) -> bool:
            same = made.get(item.name) == settings.of(item.work.objects)
            return same and f"{item.name}.json" in there

        def finished(item: Item, _: Any) -> None:
            with record.open("a") as file:
                # The leading newline ends a line that was truncated when an earlier run was killed.
                file.write("\n" + json.dumps([item.name, settings.of(item.work.objects)]) + "\n")
            keep()

        worker = partial(_make_worker, folder, prompts.parent, out, settings)
        yield Job(worker, is_done, finished)


def _read_record(record: Path) -> dict[str, str]:
    """By picture, the hash of what it was made by. Truncated lines are skipped."""
    made = {}
    if record.exists():
        with record.open() as lines:
            for line in lines:
                try:
                    picture, key = json.loads(line)
                except ValueError:
                    continue
                made[picture] = key
    return made


def segment_items(prompts: Path) -> Iterator[Item]:
    """One item a picture.

    Raises:
        ValueError: the file of prompts is invalid.
    """
    from sap_ros.jobs.run import Item
    from sap_ros.prompt_files import read_prompts

    for of_picture in read_prompts(prompts):
        yield Item(of_picture.picture, of_picture)


def _masks(out: Path, picture: str) -> Path:
    return out / "masks" / f"{picture}.png"


def _objects(out: Path, picture: str) -> Path:
    return out / "objects" / f"{picture}.json"


def _make_worker(
    folder: Path, masks: Path, out: Path, settings: SegmentSettings
) -> Callable[[Any], None]:
    return partial(_segment, settings.session(), folder, masks, out)


def _segment(session: PanoramaSession, folder: Path, masks: Path, out: Path, work: Any) -> None:
    from sap_ros.core.projection import Equirectangular
    from sap_ros.files import read_image, read_panorama, write_image
    from sap_ros.places import make_folder
    from sap_ros.report import write_objects

    read = read_panorama if isinstance(session.projection, Equirectangular) else read_image
    image = read(folder / work.picture)
    size = session.projection.panorama_size((image.shape[1], image.shape[0]))
    prompts = [_prompt(i, given, size, masks) for i, given in sorted(work.objects.items())]
    session.reset()
    session.set_image(image)
    for prompt in prompts:
        session.add_prompt(prompt)
    instances = session.segment()
    picture, objects = _masks(out, work.picture), _objects(out, work.picture)
    for path in (picture, objects):
        make_folder(path.parent)
    write_image(picture, instances.labels)
    write_objects(objects, instances)


def _prompt(object_id: int, given: Any, size: tuple[int, int], masks: Path) -> Prompt:
    import numpy as np

    from sap_ros.core.prompts import Prompt, from_pixels
    from sap_ros.files import open_image

    mask = None
    if given["mask"]:
        with open_image(masks / given["mask"]) as image:
            pixels = np.array(image)
        mask = pixels.reshape(*pixels.shape[:2], -1).any(-1)
    if not given["points"] and not given["box"]:
        return Prompt(object_id, mask=mask)
    points = np.array(given["points"], np.float64).reshape(-1, 3)
    box = np.array(given["box"], np.float64) if given["box"] else None
    prompt = from_pixels(object_id, points[:, :2], size, points[:, 2].astype(np.int32), box)
    return prompt if mask is None else prompt.extended(Prompt(object_id, mask=mask))
