"""Downloads a file once into a cache folder; the file is complete and its hash is checked.

pooch is not used, because it restarts an interrupted download of 900 MB from the beginning.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int], None]

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte


def cache_folder() -> Path:
    """``$SAP_CACHE``, otherwise ``sap_ros`` in the user's cache folder (XDG)."""
    if "SAP_CACHE" in os.environ:
        return Path(os.environ["SAP_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sap_ros"


def download(
    url: str, path: Path, sha256: str, size: int, progress: Progress | None = None, tries: int = 3
) -> Path:
    """Downloads ``url`` to ``path``, unless the file exists already.

    An interrupted download (``PATH.part``) is continued, also by a later call. The file is renamed to
    ``path`` when its hash has been checked.

    Args:
        url: http or https address.
        path: where to write the file.
        sha256: its hash, in hexadecimal.
        size: its size, in bytes.
        progress: called with the number of bytes downloaded so far and ``size``.
        tries: number of attempts if the connection breaks.

    Raises:
        OSError: the download failed; the message contains the address, the reason and a command to
            download the file by hand.
        ValueError: the server's file is not the expected one.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reason: Exception | None = None
    for _ in range(tries):
        try:
            _fetch(url, part, size, progress)
        except urllib.error.HTTPError as error:
            error.close()
            reason = error
            break  # an HTTP error; another attempt would not help
        except OSError as error:
            reason = error
            continue
        if part.stat().st_size < size:
            reason = OSError(f"it ended after {part.stat().st_size:,} of {size:,} bytes")
            continue
        digest = sha256_of(part)
        if digest != sha256:
            part.unlink()
            raise ValueError(
                f"{url} is not the expected file: its SHA-256 is {digest}, it should be {sha256}"
            )
        part.rename(path)
        return path
    raise OSError(
        f"{url} could not be downloaded ({reason}); the part downloaded so far is kept, and the next "
        f"attempt continues it. By hand: curl -L -o {path} {url}"
    )


def _fetch(url: str, part: Path, size: int, progress: Progress | None) -> None:
    there = part.stat().st_size if part.exists() else 0
    if there > size:
        part.unlink()
        there = 0
    if there == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        if there and answer.status != 206:  # a server without ranges sends the whole file
            there = 0
        with part.open("ab" if there else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                there += len(chunk)
                if progress:
                    progress(there, size)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
