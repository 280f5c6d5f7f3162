"""Workers on this machine: in this process, or one process each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from sap_ros.jobs.run import Item, Outcome, Worker, attempt

_STOP = 10.0  # s, how long worker processes have to end
_STARTS = 4  # processes that die one after another while they start, after which the run ends


class InProcess:
    """One worker, in this process."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._item: Item | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker = None

    def start(self, make_worker: Callable[[], Worker]) -> None:
        self._worker = make_worker()

    @property
    def free(self) -> int:
        return int(self._item is None)

    def submit(self, item: Item) -> None:
        self._item = item

    def wait(self) -> Sequence[Outcome]:
        assert self._worker is not None
        assert self._item is not None
        item, self._item = self._item, None
        return [attempt(self._worker, item)]


class Processes:
    """Worker processes; one that dies is replaced.

    Args:
        count: number of processes.
        threads: of each; 0: so many that they share the machine's cores.

    Raises:
        ValueError: the number is less than 1.
    """

    def __init__(self, count: int, threads: int = 0) -> None:
        if count < 1:
            raise ValueError(f"the number of jobs is {count}; it must be at least 1")
        self._count = count
        self._threads = threads or max(1, (os.cpu_count() or 1) // count)
        # A forked process would share the threads' locks of torch and of ONNX Runtime.
        self._context = multiprocessing.get_context("spawn")
        self._make_worker: Callable[[], Worker] | None = None
        self._workers: list[_Process] = []
        self._not_started = 0  # processes that died one after another while they started

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.connection.close()  # the process reads its end
        end = time.monotonic() + _STOP
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            worker.process.join()
        self._workers = []

    def start(self, make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker
        self._workers = [self._new() for _ in range(self._count)]
        for worker in self._workers:
            try:
                problem = worker.connection.recv()
            except EOFError:
                problem = f"a worker process died while it started ({worker.end()})"
            if problem:
                raise ValueError(problem)
            worker.ready = True

    def _new(self) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._make_worker, self._threads), daemon=True
        )
        process.start()
        theirs.close()  # so that the end of the process ends the connection
        return _Process(process, ours)

    @property
    def free(self) -> int:
        return sum(worker.ready and worker.item is None for worker in self._workers)

    def submit(self, item: Item) -> None:
        worker = next(w for w in self._workers if w.ready and w.item is None)
        worker.item = item
        with suppress(OSError):  # it has died, which wait() finds out
            worker.connection.send(item)

    def wait(self) -> Sequence[Outcome]:
        outcomes = []
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection)):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                said = connection.recv()
            except (EOFError, OSError):
                end = worker.end()
                self._not_started = 0 if worker.ready else self._not_started + 1
                if self._not_started >= _STARTS:
                    raise ValueError(f"worker processes die while they start ({end})") from None
                self._workers[self._workers.index(worker)] = self._new()
                if worker.item is not None:
                    error = f"its worker process died ({end})"
                    outcomes.append(Outcome(worker.item, error=error, lost=True))
                continue
            if not worker.ready:
                if said:
                    raise ValueError(said)
                worker.ready = True
                continue
            worker.item = None
            outcomes.append(said)
        return outcomes


class _Process:
    """A worker process, and what it is doing."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self.process, self.connection = process, connection
        self.ready = False
        self.item: Item | None = None

    def end(self) -> str:
        """How a process that has died did so."""
        self.process.join(_STOP)
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, make_worker: Callable[[], Worker], threads: int) -> None:
    """The main function of a worker process; it ends when its connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    try:
        worker = make_worker()
    except Exception as error:
        expected = isinstance(error, ValueError | OSError)
        _send(connection, str(error) if expected and str(error) else repr(error))
        return
    _send(connection, "")
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        _send(connection, attempt(worker, item))


def _send(connection: Connection, message: object) -> None:
    with suppress(OSError):  # the first process has ended
        connection.send(message)
