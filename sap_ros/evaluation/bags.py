"""Reads and writes rosbag2 bags without ROS; bags may be compressed or truncated.

Uses ``rosbags``. A truncated MCAP file (a full disk, a robot switched off) is read as far as possible with
``mcap``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rosbags.highlevel import AnyReader
from rosbags.highlevel.anyreader import AnyReaderError
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

import sap_ros

# A bag in sqlite3 may lack definitions of messages, and rosbags does not know this one.
_VIDEO_PACKET = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data
"""

Storage = Literal["mcap", "sqlite3"]

#: A recorded message: topic, receive time in ns, message.
Recorded = tuple[str, int, Any]


@cache
def types() -> Typestore:
    """The message types of ROS 2 Jazzy and of this package."""
    store = get_typestore(Stores.ROS2_JAZZY)
    package = Path(sap_ros.__file__).parent
    folders = (package / "definitions", package.parent / "msg")
    for path in sorted(next(f for f in folders if f.is_dir()).glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"sap_ros/msg/{path.stem}"))
    store.register(
        get_types_from_msg(_VIDEO_PACKET, "ffmpeg_image_transport_msgs/msg/FFMPEGPacket")
    )
    return store


class Bag:
    """Reads a bag; a context manager.

    Args:
        path: the bag's folder, or a single file (.mcap, .db3).

    Attributes:
        topics: type of each topic, for example ``sensor_msgs/msg/Image``.
        damage: why the bag cannot be read to its end, or empty. Known only after the messages have been
            read.

    Raises:
        ValueError: there is no bag, or no part of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damage = path, ""
        self.topics: dict[str, str] = {}
        self._reader: AnyReader | None = None
        self._files: list[Path] = []

    def __enter__(self) -> Bag:
        if not self.path.exists():
            raise ValueError(f"{self.path} is not a bag: there is no such file or folder")
        try:
            reader = AnyReader([self.path], default_typestore=types())
            reader.open()
        except (AnyReaderError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            self.damage = f"{self.path} is damaged or truncated ({error})"
            self._find_pieces()
            return self
        self._reader = reader
        self.topics = {name: info.msgtype or "" for name, info in reader.topics.items()}
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def _find_pieces(self) -> None:
        inside = list(self.path.iterdir()) if self.path.is_dir() else [self.path]
        self._files = sorted(p for p in inside if p.suffix == ".mcap")
        for file in self._files:
            with suppress(Exception):
                for topic, kind, _, _ in _whole_messages(file):
                    self.topics[topic] = kind
        if not self.topics:
            sqlite = any(p.suffix == ".db3" for p in inside)
            tip = "; `sqlite3 FILE.db3 .recover` may get some of it back" if sqlite else ""
            raise ValueError(f"{self.damage}, and nothing of it can be read{tip}")

    def need(self, topic: str, kinds: Iterable[str]) -> None:
        """Checks that a topic exists and has one of the given types.

        Raises:
            ValueError: it does not; the message lists the existing topics or the accepted types.
        """
        there = ", ".join(f"{name} ({kind})" for name, kind in sorted(self.topics.items()))
        if topic not in self.topics:
            raise ValueError(f"{self.path} has no topic {topic}; it has {there or 'none'}")
        if self.topics[topic] not in kinds:
            raise ValueError(
                f"{topic} is of the type {self.topics[topic]}; it must be {' or '.join(kinds)}"
            )

    def of_kind(self, kinds: Iterable[str]) -> list[str]:
        """The topics that have one of the given types."""
        return sorted(name for name, kind in self.topics.items() if kind in kinds)

    def messages(self, topics: Iterable[str]) -> Iterator[Recorded]:
        """The messages of the given topics in the order of recording, as far as they can be read."""
        wanted = set(topics)
        if self._reader is None:
            for file in self._files:
                try:
                    for topic, kind, time, data in _whole_messages(file):
                        if topic in wanted:
                            yield topic, time, types().deserialize_cdr(data, kind)
                except Exception as error:  # any error means that the rest cannot be read
                    self.damage = f"{file} ends early ({error or type(error).__name__})"
            return
        connections = [c for c in self._reader.connections if c.topic in wanted]
        if not connections:
            return
        try:
            for connection, time, data in self._reader.messages(connections):
                yield connection.topic, time, self._reader.deserialize(data, connection.msgtype)
        except (AnyReaderError, OSError, ValueError, sqlite3.Error) as error:
            self.damage = f"{self.path} ends early ({error})"


def _whole_messages(file: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """Topic, type, time and data of the messages of an MCAP file, up to where it is truncated."""
    from mcap.reader import NonSeekingReader

    with file.open("rb") as stream:
        reader = NonSeekingReader(stream)
        for schema, channel, message in reader.iter_messages(log_time_order=False):
            if schema is not None:
                yield channel.topic, schema.name, message.log_time, message.data


class BagWriter:
    """Writes a bag; a context manager. Message definitions are embedded.

    The bag is written to a temporary folder, which is renamed when the bag is complete.

    Args:
        path: the bag's folder, which must not exist.
        storage: storage format of its file.

    Raises:
        ValueError: the folder exists.
    """

    def __init__(self, path: Path, storage: Storage = "mcap") -> None:
        if path.exists():
            raise ValueError(f"{path} exists; a bag needs a new folder")
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self.path, self._beside = path, path.with_name(f".{path.name}.part") / path.name
        self._writer = Writer(self._beside, version=9, storage_plugin=plugin)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        import shutil

        shutil.rmtree(self._beside.parent, ignore_errors=True)
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import shutil

        self._writer.close()
        if kind is None:
            self._beside.replace(self.path)
        shutil.rmtree(self._beside.parent, ignore_errors=True)

    def write(self, topic: str, time: int, message: Any) -> None:
        """Writes a message made by :func:`make`, with its time of recording in ns."""
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=types())
        self._writer.write(self._connections[topic], time, types().serialize_cdr(message, kind))


def make(kind: str, **fields: Any) -> Any:
    """Makes a message: ``make("std_msgs/msg/Header", stamp=..., frame_id=...)``."""
    return types().types[kind](**fields)


def header(time: int, frame: str) -> Any:
    """Makes a header from a stamp in ns and a frame id."""
    stamp = make("builtin_interfaces/msg/Time", sec=time // 10**9, nanosec=time % 10**9)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)
