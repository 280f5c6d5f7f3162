"""Workers for tests: functions of a module, as the pools need them."""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial
from pathlib import Path


def make_writer(folder: Path, wait: float = 0.0):
    """A worker that writes an item's square into a file, and does as the item's text says."""
    (folder / f"made_{os.getpid()}").touch()
    return partial(_write, folder, wait)


def _write(folder: Path, wait: float, work):
    number, how = work
    (folder / f"worker_{os.getpid()}").touch()
    time.sleep(wait)
    if how == "raises":
        raise RuntimeError(f"{number} is odd")
    if how == "bad":
        raise ValueError(f"the number is {number};\nit must be even")
    if how == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "dies once" and not (folder / f"died_{number}").exists():
        (folder / f"died_{number}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    part = folder / f".{number}.part"
    part.write_text(str(number**2))
    part.replace(folder / f"{number}.txt")
    return number**2


def make_once(folder: Path):
    """The first worker is made, and dies with its item; further ones die while they start."""
    if list(folder.glob("made_*")):
        os.kill(os.getpid(), signal.SIGKILL)
    return make_writer(folder)


def make_nothing():
    raise ValueError("the model 'x' is unknown")
