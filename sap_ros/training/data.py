"""Training samples by index: the same index gives the same sample in every process.

Thus a resumed run continues with the same samples as an uninterrupted one, and each of n processes takes
every nth index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset, Sampler

from sap_ros.training.camera import as_photographed
from sap_ros.training.config import TrainConfig
from sap_ros.training.prompts import draw_prompt
from sap_ros.training.sources import Samples, Window, large_enough, open_source

#: One sample: tensors by name, see :class:`TrainingSamples`.
Sample = dict[str, Any]


class TrainingSamples(Dataset):
    """The unlimited samples of a run; sample k is generated from the random seed (seed, k).

    A sample of views (``kind`` "views"): ``images`` (B, S, S, 3) uint8; and for N objects in them
    ``image_index`` (N,), ``masks`` (N, S, S) bool, ``points`` (N, P, 2), ``labels`` (N, P). All prompts
    of a sample are of one kind. ``corrections``: the number of correction clicks per object; ``seed``:
    for random choices in the training step.

    A window (``kind`` "window"): ``images`` (V, S, S, 3); ``masks`` (V, N, S, S); ``points``
    (V, N, 1, 2), the position of the click in each view; ``labels`` (V, N, 1), 1 where the view sees
    the click, -1 elsewhere; ``clicked`` (V,) bool, the views that are prompted with the click;
    ``corrected`` (V,) bool, the views that get a correction; ``seed``: for random choices in the
    training step.
    """

    def __init__(self, config: TrainConfig, size: int) -> None:
        self.config, self.size = config, size
        self._sources: list[Samples] | None = None
        ratios = np.array([source.ratio for source in config.sources.values()], float)
        self._shares = ratios / ratios.sum()
        self._open()  # reports a missing folder now, not in the first step

    def _open(self) -> list[Samples]:
        if self._sources is None:
            config = self.config
            self._sources = [
                open_source(source, config.scan_windows, config.overlap, config.object_views)
                for source in config.sources.values()
            ]
        return self._sources

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, index: int) -> Sample:
        cv2.setNumThreads(1)
        rng = np.random.default_rng([self.config.seed, index])
        config, sources = self.config, self._open()
        if config.stage == "views" or rng.random() < config.view_share:
            return self._views(rng)
        for _ in range(1000):
            source = sources[rng.choice(len(sources), p=self._shares)]
            window = source.window(self.size, config.window, config.objects, rng)
            if window is not None:
                return self._window(window, rng)
        raise ValueError("none of 1000 random windows has an object in its first view")

    def _views(self, rng: Generator) -> Sample:
        config, sources = self.config, self._open()
        kind = str(rng.choice(list(config.kinds), p=list(config.kinds.values())))
        images: list[np.ndarray] = []
        index, masks, points, labels = [], [], [], []
        for _ in range(100 * config.views):
            view = sources[rng.choice(len(sources), p=self._shares)].view(self.size, rng)
            found = large_enough(view[1], config.smallest) if view is not None else ()
            if view is None or not len(found):
                continue
            for i in rng.permutation(len(found))[: config.objects]:
                at, label = draw_prompt(found[i], kind, rng)
                index.append(len(images))
                masks.append(found[i])
                points.append(at)
                labels.append(label)
            images.append(as_photographed(view[0], rng) if config.camera else view[0])
            if len(images) == config.views:
                break
        else:
            raise ValueError("too few of the randomly chosen views contain an object")
        corrections = (
            int(rng.integers(1, config.view_corrections + 1)) if config.view_corrections else 0
        )
        return {
            "kind": "views",
            "corrections": corrections,
            "seed": int(rng.integers(2**31)),
            "images": torch.from_numpy(np.stack(images)),
            "image_index": torch.tensor(index),
            "masks": torch.from_numpy(np.stack(masks)),
            "points": torch.from_numpy(np.stack(points)),
            "labels": torch.from_numpy(np.stack(labels)),
        }

    def _window(self, window: Window, rng: Generator) -> Sample:
        views = len(window.images)
        clicked = np.zeros(views, bool)
        if rng.random() < self.config.click_all:
            clicked = window.seen.all(1)  # a view is decoded for all objects at once
        clicked[0] = True
        corrected = np.zeros(views, bool)
        others = np.flatnonzero(~clicked)
        corrected[rng.permutation(others)[: self.config.corrections]] = rng.random() < 0.5
        return {
            "kind": "window",
            "images": torch.from_numpy(window.images),
            "masks": torch.from_numpy(window.masks),
            "points": torch.from_numpy(window.clicks[:, :, None]),
            "labels": torch.from_numpy(np.where(window.seen, 1, -1).astype(np.int32)[:, :, None]),
            "clicked": torch.from_numpy(clicked),
            "corrected": torch.from_numpy(corrected),
            "seed": int(rng.integers(2**31)),
        }


class Numbers(Sampler[int]):
    """The sample indices of one process, from a given step on: its share of each batch.

    Step s of a run with global batch size B uses the samples s * B to s * B + B - 1; process r of n takes
    every nth of them, from the rth on.
    """

    def __init__(
        self, first_step: int, steps: int, batch: int, process: int, processes: int
    ) -> None:
        self.first, self.steps, self.batch = first_step, steps, batch
        self.process, self.processes = process, processes

    def __iter__(self) -> Iterator[int]:
        whole = self.batch * self.processes
        for step in range(self.first, self.steps):
            for i in range(self.batch):
                yield step * whole + i * self.processes + self.process

    def __len__(self) -> int:
        return max(0, self.steps - self.first) * self.batch
