"""Small state in an append-only file: one checksummed JSON line a change, written anew when most of it is stale."""

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Change = dict[str, Any]
_COMPACT_AFTER_BYTES = 8 * 1024 * 1024
_flush = getattr(os, "fdatasync", os.fsync)


class DamagedJournal(Exception):
    """A line in the middle of the file is broken: no crash does that, so nothing is guessed and nothing is deleted."""


class Journal:
    """Appends changes before they are answered, and replays them at start.

    `snapshot` tells the whole state as changes; it replaces the file at `open` and now and then later.
    """

    def __init__(self, path: Path, snapshot: Callable[[], Iterable[Change]], *, fsync: bool) -> None:
        self._path = path
        self._snapshot = snapshot
        self._fsync = fsync
        self._fd = -1
        self._size = 0
        self._compact_at = 0

    def open(self, apply: Callable[[Change], None]) -> None:
        """Apply every change on file but a torn last one, then compact. Raises DamagedJournal."""
        data = self._path.read_bytes() if self._path.exists() else b""
        for change in _changes(self._path.name, data):
            apply(change)
        self._compact()

    def append(self, *changes: Change) -> None:
        """Write changes: all of them or, on an OSError, none."""
        data = b"".join(map(_line, changes))
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError("the disk took only a part of the change")
            if self._fsync:
                _flush(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def compact_if_large(self) -> None:
        """Write the file anew when it has outgrown what it holds."""
        if self._size > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        data = b"".join(map(_line, self._snapshot()))
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(fd)
        new.replace(self._path)
        self.close()
        self._fd, self._size = fd, len(data)
        self._compact_at = _COMPACT_AFTER_BYTES + 2 * len(data)

    def close(self) -> None:
        """Flush to the disk and let go of the file."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1


def _line(change: Change) -> bytes:
    text = json.dumps(change, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _changes(name: str, data: bytes) -> Iterator[Change]:
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        text = line[9:-1]
        if line.endswith(b"\n") and line[:8] == b"%08x" % zlib.crc32(text):
            yield json.loads(text)
        elif number == len(lines):
            logger.warning("cut off an unfinished change: %s, line %d", name, number)
        else:
            raise DamagedJournal(f"{name} is damaged at line {number}")
