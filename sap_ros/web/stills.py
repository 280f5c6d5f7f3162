"""The page's back end for stills: the panoramas of a folder, with a session in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from sap_ros.core.instances import Instance
from sap_ros.web.commands import Box, Command, Done, Point, RemoveObject, Rename
from sap_ros.web.labelling import Labelling
from sap_ros.web.viewers import Viewers, finite, vector

#: Maximum width of the picture sent to pages; larger textures are not supported by all phones.
SHOWN_WIDTH = 4096

_JPEG_QUALITY = 90


class _StoppedError(Exception):
    """Stops the current search, because the server stops."""


class Stills:
    """The panoramas of a folder. One thread does all work, in the order of the commands.

    Args:
        labelling: the folder and its session.
    """

    def __init__(self, labelling: Labelling) -> None:
        self._labelling = labelling
        self._worker = ThreadPoolExecutor(1, "stills")
        self._stopping = False
        self._count = 0  # number of panoramas shown so far, used as their stamp

    async def start(self, viewers: Viewers) -> None:
        self._viewers = viewers
        await self._do(self._show_panorama)

    async def handle(self, command: Command) -> Done:
        return await self._do(lambda: self._handle(command))

    async def stop(self) -> None:
        self._stopping = True  # ends a search after the current view
        self._worker.shutdown(cancel_futures=True)
        if self._labelling.changed:  # as when another panorama is opened
            try:
                self._labelling.save()
            except OSError as error:
                raise ValueError(_not_written(error)) from error

    async def _do(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # Called in the worker's thread

    def _handle(self, command: Command) -> Done:
        labelling, shown = self._labelling, self._labelling.index
        try:
            if isinstance(command, Point | Box):
                return Done(object_id=self._prompt(command))
            if isinstance(command, RemoveObject):
                labelling.remove(command.object_id)
            elif isinstance(command, Rename):
                labelling.rename(command.object_id, command.label)
            elif command.name == "reset":
                labelling.reset()
            elif command.name == "undo":
                labelling.undo(self._progress)
            elif command.name == "save":
                labelling.save()
                return Done(f"saved to {labelling.folder.out}")
            else:
                return Done(labelling.step(1 if command.name == "next" else -1))
        except OSError as error:
            raise ValueError(_not_written(error)) from error
        finally:
            if labelling.index != shown:
                self._show_panorama()
            else:
                self._show_objects()
        return Done()

    def _prompt(self, command: Point | Box) -> int:
        if command.stamp != self._count:
            raise ValueError("another panorama was opened after the click; click again")
        object_id, told = command.object_id, self._progress
        if isinstance(command, Box):
            return self._labelling.box(np.array(command.corners), object_id, told)
        direction = np.array(command.direction)
        return self._labelling.point(direction, command.positive, object_id, told)

    def _progress(self, done: int, count: int, object_id: int) -> None:
        if self._stopping:
            raise _StoppedError
        self._tell(f"Looking for object {object_id}: view {done}")

    def _show_panorama(self) -> None:
        self._count += 1
        image = _fitted(self._labelling.image, cv2.INTER_AREA)
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
        self._viewers.show("image", {"stamp": str(self._count)}, jpeg.tobytes())
        self._show_objects()

    def _show_objects(self) -> None:
        folder = self._labelling.folder
        self._labelled = sum(map(folder.is_labelled, range(len(folder))))
        labels, self._found = self._labelling.found()
        small = _fitted(labels.astype(np.uint16), cv2.INTER_NEAREST)
        channels = np.stack([np.zeros_like(small), small >> 8, small & 255], -1)  # B, G, R
        _, png = cv2.imencode(".png", channels.astype(np.uint8))
        self._viewers.show("masks", {"stamp": str(self._count)}, png.tobytes())
        self._tell("")

    def _tell(self, busy: str) -> None:
        labelling = self._labelling
        folder = labelling.folder
        self._viewers.tell(
            {
                "mode": "stills",
                "title": folder.files[labelling.index].name,
                "stamp": str(self._count),
                "busy": busy,
                "alert": "",
                "objects": [self._row(i) for i in self._found],
                "folder": {
                    "index": labelling.index,
                    "count": len(folder),
                    "labelled": self._labelled,
                    "saved": folder.is_labelled(labelling.index) and not labelling.changed,
                    "changed": labelling.changed,
                    "can_undo": labelling.can_undo,
                },
            }
        )

    def _row(self, instance: Instance) -> dict[str, Any]:
        known = self._labelling.objects.get(instance.object_id)
        saved = known is not None and known.prompt is None
        return {
            "id": instance.object_id,
            "label": known.label if known else "",
            "state": "SAVED" if saved else instance.state.name,
            "direction": vector(*instance.direction),
            "azimuth": finite(instance.azimuth),
            "elevation": finite(instance.elevation),
            "score": None if saved else finite(instance.score),
            "range": None,
            "reason": "",
        }


def _fitted(image: np.ndarray, interpolation: int) -> np.ndarray:
    """An image, reduced to :data:`SHOWN_WIDTH` if it is wider."""
    if image.shape[1] <= SHOWN_WIDTH:
        return image
    return np.asarray(
        cv2.resize(image, (SHOWN_WIDTH, SHOWN_WIDTH // 2), interpolation=interpolation)
    )


def _not_written(error: OSError) -> str:
    return f"the labels could not be written: {error}"
