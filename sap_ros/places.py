"""Where files are: on a disk, or at a URL such as ``s3://bucket/folder``, which fsspec reaches.

:func:`place` makes a path of either; both are used as a ``pathlib.Path`` is. What differs between them is here:
a file that is written appears whole (on a disk it is renamed, an object of S3 is put in one piece), and what only
takes files of a disk is given a copy.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
# Packages whose exceptions say that a server or a bucket cannot be used; few of them are OSErrors.
_REMOTE = ("aiobotocore", "aiohttp", "botocore", "fsspec", "s3fs")
_KEEP_EVERY = 30.0  # s
_KEPT = 2  # remote files that are kept in memory: a picture and its labels


def place(text: str | Path) -> Path:
    """The path of a file or folder.

    Args:
        text: a path, or a URL of fsspec: ``s3://``, ``gs://``, ``http://``, ``memory://`` and so on. Servers and
            credentials are found as the package of that protocol does (s3fs: the environment and ~/.aws).

    Raises:
        OSError: the URL's protocol is unknown, or its package is not installed.
    """
    if isinstance(text, Path) or not _URL.match(str(text)):
        return Path(text)
    from upath import UPath

    try:
        # A listing that is kept would hide what other machines have written since.
        url = UPath(text, use_listings_cache=False)
        _ = url.fs
    except ImportError as error:
        raise OSError(f'{text}: {error}; s3fs comes with pip install ".[remote]"') from error
    except ValueError as error:
        raise OSError(f"{text}: {error}") from error
    return cast("Path", url)


def is_url(path: Path) -> bool:
    """Whether a path made by :func:`place` is a URL."""
    return not isinstance(path, Path)


def absolute(path: Path) -> Path:
    """A path that means the same in another working folder."""
    return path if is_url(path) else path.resolve()


def check_input(folder: Path) -> None:
    """Says why a folder at a URL cannot be read.

    Raises:
        ValueError: it cannot be, or it does not exist.
    """
    if not is_url(folder) or str(folder).startswith("http"):  # servers need not list folders
        return
    with _named(folder, "read"):
        if not folder.exists():
            raise ValueError("there is nothing at this URL")


def check_output(folder: Path) -> None:
    """Says why a folder at a URL cannot be written to, by writing a file.

    Raises:
        ValueError: it cannot be.
    """
    if not is_url(folder):
        return
    probe = folder / f".probe.{os.getpid()}"
    with _named(folder, "written to"):
        probe.write_bytes(b"")
        probe.unlink()


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = explained(error) or repr(error)
        if isinstance(error, PermissionError):
            reason = f"access is denied, see the credentials ({reason})"
        raise ValueError(f"{path} cannot be {what}: {reason}") from error


def explained(error: BaseException) -> str:
    """One line for an error of a server or of reaching one; empty if it is none."""
    known = isinstance(error, ValueError | OSError)
    if not known and type(error).__module__.split(".")[0] not in _REMOTE:
        return ""
    return " ".join(str(error).split()) or repr(error)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; at a URL there is nothing to make."""
    if not is_url(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is never seen incomplete; its folder must exist (:func:`make_folder`).

    Raises:
        OSError: it could not be written.
    """
    if is_url(path):
        path.write_bytes(data)  # an object appears when all of it has arrived
        return
    # Named after the process: a worker that was thought to be lost may still be writing.
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def local_or_bytes(path: Path) -> Path | bytes:
    """A file of a disk as it is; the contents of one at a URL (the last few are kept).

    Raises:
        ValueError: there is no file, at a URL.
    """
    return _contents(path) if is_url(path) else path


@lru_cache(maxsize=_KEPT)
def _contents(url: Path) -> bytes:
    try:
        return cast("Any", url).fs.cat_file(cast("Any", url).path)
    except FileNotFoundError:
        raise ValueError(f"{url} is no file") from None


@contextmanager
def appended(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file of a disk that lines are appended to, and a function to call after each.

    Of a URL it is a copy, which is put there at the end and meanwhile every 30 s: an object cannot be appended
    to. What a killed run appended since is lost.
    """
    if not is_url(path):
        yield path, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="sap_") as folder:
        copy, put = Path(folder) / path.name, time.monotonic()
        if path.exists():
            copy.write_bytes(path.read_bytes())

        def keep() -> None:
            nonlocal put
            if time.monotonic() - put > _KEEP_EVERY:
                write_whole(path, copy.read_bytes())
                put = time.monotonic()

        try:
            yield copy, keep
        finally:
            if copy.exists():
                write_whole(path, copy.read_bytes())


class Existing:
    """Which files of a folder exist. Of a URL, all names below it are asked for once, not file by file.

    Args:
        folder: the folder; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] | None = None

    def __contains__(self, name: str) -> bool:
        if not is_url(self._folder):
            return (self._folder / name).exists()
        if self._names is None:
            fs, start = (
                cast("Any", self._folder).fs,
                cast("Any", self._folder).path.rstrip("/") + "/",
            )
            self._names = {found.partition(start)[2] for found in fs.find(start)}
        return name in self._names


@contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """A file or folder of a disk as it is; a copy of one at a URL, which is removed afterwards.

    Raises:
        ValueError: there is nothing at the URL.
    """
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sap_") as folder:
        copy = Path(folder) / path.name
        if path.is_file():
            files = [(path, copy)]
        else:
            start = str(path).rstrip("/") + "/"
            files = [(file, copy / str(file).removeprefix(start)) for file in path.rglob("*")]
        files = [(file, to) for file, to in files if file.is_file()]
        if not files:
            raise ValueError(f"there is nothing at {path}")
        for file, to in files:
            to.parent.mkdir(parents=True, exist_ok=True)
            cast("Any", file).fs.get_file(cast("Any", file).path, str(to))
        yield copy


@contextmanager
def written(folder: Path, last: str) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder`` when the block has ended without an error.

    On a disk it is beside ``folder`` and renamed. To a URL its files are copied, ``last`` as the last one: the
    folder is complete if it exists.
    """
    if not is_url(folder):
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        yield part
        part.replace(folder)
        return
    with tempfile.TemporaryDirectory(prefix="sap_") as temporary:
        part = Path(temporary) / "written"
        yield part
        files = sorted((p for p in part.rglob("*") if p.is_file()), key=lambda p: p == part / last)
        for file in files:
            to: Any = folder / file.relative_to(part).as_posix()
            to.fs.put_file(str(file), to.path)
