"""Workers on a Ray cluster, or on a cluster of this machine alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sap_ros.jobs.run import Item, Outcome, Worker, attempt

_WAIT = 1.0  # s, longest time between looks for lost workers
_STARTS = 4  # workers that are lost one after another while they start, after which the run ends
_PATIENCE = 120.0  # s, how long no worker may be ready before the run ends


class RayPool:
    """One actor a worker: as many as fit, or ``count``. One that is lost is replaced where there is room.

    The package must be installed on each machine, and files must have the same paths there.

    Args:
        address: of the cluster: ``auto`` for the one that this machine is part of, ``local`` for a new one on
            this machine, else ``HOST:PORT`` or ``ray://HOST:PORT``.
        count: number of workers; 0: as many as there are CPUs, or GPUs.
        gpu: whether each worker needs a GPU.
    """

    def __init__(self, address: str, count: int = 0, gpu: bool = False) -> None:
        import ray

        self._ray = ray
        self._address, self._count, self._gpu = address, count, gpu
        self._make_worker: Callable[[], Worker] | None = None
        self._workers: list[_Actor] = []
        self._since = time.monotonic()  # when a worker was ready last
        self._joined = False  # whether it has connected to the cluster itself
        self._not_started = 0  # workers that were lost while they started, since one did start

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
        if self._joined:
            self._ray.shutdown()

    def start(self, make_worker: Callable[[], Worker]) -> None:
        ray = self._ray
        if not ray.is_initialized():
            self._joined = True
            try:
                ray.init(
                    address=self._address,
                    log_to_driver=False,
                    logging_level="error",
                    include_dashboard=False if self._address == "local" else None,
                )
            except ConnectionError as error:
                raise ValueError(
                    f"there is no Ray cluster at {self._address!r} ({error}); start one (ray start --head), "
                    "or use --ray local"
                ) from error
        self._make_worker = make_worker
        resources = ray.cluster_resources()
        there = int(resources.get("GPU" if self._gpu else "CPU", 0))
        count = self._count or there
        if count < 1 or there < 1:
            raise ValueError(
                f"the Ray cluster at {self._address!r} has no {'GPU' if self._gpu else 'CPU'}"
            )
        self._workers = [self._new() for _ in range(min(count, there))]
        self._since = time.monotonic()

    def _new(self) -> _Actor:
        ray = self._ray
        options = {"num_cpus": 0 if self._gpu else 1, "num_gpus": int(self._gpu), "max_restarts": 0}
        actor = ray.remote(**options)(_RayWorker).remote(self._make_worker)
        return _Actor(actor, actor.ready.remote())

    @property
    def free(self) -> int:
        return sum(worker.pending is None for worker in self._workers)

    def submit(self, item: Item) -> None:
        worker = next(w for w in self._workers if w.pending is None)
        worker.item, worker.pending = item, worker.actor.work.remote(item)

    def wait(self) -> Sequence[Outcome]:
        ray = self._ray
        by_task = {w.pending: w for w in self._workers if w.pending is not None}
        finished, _ = ray.wait(list(by_task), num_returns=1, timeout=_WAIT)
        outcomes = []
        for task in finished:
            worker = by_task[task]
            try:
                said = ray.get(task)
            except ray.exceptions.RayError as error:
                if worker.item is not None:
                    reason = f"its worker was lost ({type(error).__name__})"
                    outcomes.append(Outcome(worker.item, error=reason, lost=True))
                else:
                    self._not_started += 1
                    if self._not_started >= _STARTS:
                        cause = str(error).strip().splitlines()[-1]
                        raise ValueError(f"no worker starts on the Ray cluster: {cause}") from error
                self._workers[self._workers.index(worker)] = self._new()
                continue
            worker.pending = None
            if worker.item is None:  # it has started
                if said:
                    raise ValueError(said)
                self._not_started = 0
                continue
            worker.item = None
            outcomes.append(said)
        if any(w.item is not None or w.pending is None for w in self._workers):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > _PATIENCE:
            raise OSError(
                f"no worker could be started on the Ray cluster for {_PATIENCE:.0f} s; `ray status` says "
                "what is missing"
            )
        return outcomes


class _Actor:
    """An actor, its item, and the task that it works on; None: it is free."""

    def __init__(self, actor: Any, pending: Any) -> None:
        self.actor, self.pending = actor, pending
        self.item: Item | None = None


class _RayWorker:
    """The actor; Ray sets OMP_NUM_THREADS to the number of its CPUs."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None

    def ready(self) -> str:
        """Makes the worker; returns why that failed, else nothing."""
        try:
            self._worker = self._make_worker()
        except Exception as error:
            return str(error) if isinstance(error, ValueError | OSError) else repr(error)
        return ""

    def work(self, item: Item) -> Outcome:
        """Does an item's work."""
        assert self._worker is not None
        return attempt(self._worker, item)
