"""One partition's log: segment files of raw batches, served from the page cache, never from memory of ours."""

import asyncio
import logging
import mmap
import os
import shutil
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kio.schema.errors import ErrorCode

from ops.broker.producers import Producers
from ops.broker.records import HEADER, BatchHeader, BatchRefused, checked, checksum_holds, first_at_or_after, header_at

logger = logging.getLogger(__name__)

_INDEX_EVERY_BYTES = 4096
_flush = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class LogLimits:
    """A topic's settings, as its logs need them; shared by them and changed in place. -1 is without limit."""

    segment_bytes: int
    max_message_bytes: int
    retention_ms: int
    retention_bytes: int
    deletes: bool  # false: the topic is compacted, and everything is kept


class Segment:
    """One file. Its name is the offset of its first record; its sparse index is rebuilt at start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base_offset = self.next_offset = int(path.stem)
        self.size = 0
        self.max_timestamp = -1
        self._offsets = array("q")
        self._positions = array("q")
        self._max_timestamps_before = array("q")

    def recover(self, seen: Callable[[BatchHeader], None], *, verify: bool) -> None:
        """Read the batch headers and cut the file off behind the last sound batch; `verify` checks the bytes too."""
        with self.path.open("r+b") as file:
            file_size = file.seek(0, os.SEEK_END)
            for header in _batches(file.fileno(), file_size, verify=verify):
                if header.base_offset < self.next_offset:
                    break
                self.added(header)
                seen(header)
            if self.size < file_size:
                file.truncate(self.size)
                cut = file_size - self.size
                logger.warning(
                    "cut off an unfinished batch: %s, %d bytes, at offset %d", self.path, cut, self.next_offset
                )

    def added(self, header: BatchHeader) -> None:
        """Note a batch that stands at the end of the file."""
        if not self._positions or self.size - self._positions[-1] >= _INDEX_EVERY_BYTES:
            self._offsets.append(header.base_offset)
            self._positions.append(self.size)
            self._max_timestamps_before.append(self.max_timestamp)
        self.size += header.size
        self.next_offset = header.next_offset
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)

    def headers_from_offset(self, fd: int, offset: int) -> Iterator[tuple[int, BatchHeader]]:
        """Positions and headers of the batches, from the one that holds the offset."""
        nearest = max(bisect_right(self._offsets, offset) - 1, 0)
        found = self._headers_from_index(fd, nearest)
        return ((position, header) for position, header in found if header.next_offset > offset)

    def headers_from_time(self, fd: int, timestamp: int) -> Iterator[tuple[int, BatchHeader]]:
        """Positions and headers of the batches that may hold a record of that time or later."""
        nearest = max(bisect_left(self._max_timestamps_before, timestamp) - 1, 0)
        found = self._headers_from_index(fd, nearest)
        return ((position, header) for position, header in found if header.max_timestamp >= timestamp)

    def _headers_from_index(self, fd: int, entry: int) -> Iterator[tuple[int, BatchHeader]]:
        position = self._positions[entry] if self._positions else 0
        while position < self.size:
            header = header_at(os.pread(fd, HEADER.size, position))
            yield position, header
            position += header.size


def _batches(fd: int, size: int, *, verify: bool) -> Iterator[BatchHeader]:
    """The headers of the sound batches of a file, up to the first that is not."""
    if size == 0:
        return
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
        position = 0
        while position + HEADER.size <= size:
            header = header_at(data, position)
            end = position + header.size
            if not header.plausible() or end > size:
                return
            with data[position:end] as batch:
                if verify and not checksum_holds(header, batch):
                    return
            yield header
            position = end


class PartitionLog:
    """Appends batches, reads them back, forgets old segments. Offsets are `start_offset` <= o < `next_offset`.

    Not safe for threads: everything happens on the broker's loop.
    """

    def __init__(self, folder: Path, limits: LogLimits, *, start_offset: int, fsync: bool) -> None:
        self.limits = limits
        self._folder = folder
        self._fsync = fsync
        self._producers = Producers()
        self._watchers: set[asyncio.Event] = set()
        folder.mkdir(parents=True, exist_ok=True)
        paths = sorted(folder.glob("*.log")) or [self._new_file(start_offset)]
        self._segments = [Segment(path) for path in paths]
        for segment in self._segments:
            segment.recover(self._producers.appended, verify=segment is self._segments[-1])
        self._fd = os.open(self._active.path, os.O_RDWR)
        self.start_offset = min(max(start_offset, self._segments[0].base_offset), self.next_offset)

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    @property
    def next_offset(self) -> int:
        """The offset that the next record gets: the high watermark, for there is but one replica."""
        return self._active.next_offset

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def append(self, batch: bytes) -> int:
        """Store one batch and return its base offset; a producer's repeated batch returns its old one.

        Raises BatchRefused: nothing is stored. OSError (a full disk, say): nothing is stored either.
        """
        if len(batch) > self.limits.max_message_bytes:
            raise BatchRefused(ErrorCode.message_too_large, "larger than max.message.bytes")
        header = checked(batch)
        earlier = self._producers.earlier(header)
        if earlier is not None:
            return earlier
        if self._active.size and self._active.size + len(batch) > self.limits.segment_bytes:
            self._roll()
        header = header._replace(base_offset=self.next_offset, leader_epoch=0)
        self._write(header, batch)
        self._active.added(header)
        self._producers.appended(header)
        self.wake_watchers()
        return header.base_offset

    def _write(self, header: BatchHeader, batch: bytes) -> None:
        """The offset and the leader's epoch stand before the checksummed part, so the rest is written as it came."""
        head = struct.pack(">qii", header.base_offset, header.length, header.leader_epoch)
        os.lseek(self._fd, self._active.size, os.SEEK_SET)
        try:
            if os.writev(self._fd, [head, memoryview(batch)[len(head) :]]) != len(batch):
                raise OSError("the disk took only a part of the batch")
            if self._fsync:
                _flush(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._active.size)
            raise

    def _roll(self) -> None:
        path = self._new_file(self.next_offset)
        fd = os.open(path, os.O_RDWR)
        os.close(self._fd)
        self._fd = fd
        self._segments.append(Segment(path))

    def _new_file(self, base_offset: int) -> Path:
        path = self._folder / f"{base_offset:020d}.log"
        path.touch()
        return path

    def has(self, offset: int) -> bool:
        """Whether a fetch may begin here; the end is a valid place to wait at."""
        return self.start_offset <= offset <= self.next_offset

    def bytes_from(self, offset: int) -> int:
        """Bytes a reader at this offset has before it."""
        if offset >= self.next_offset:
            return 0
        first = self._segment_index(offset)
        return sum(segment.size for segment in self._segments[first + 1 :]) + self._bytes_left(first, offset)

    def _bytes_left(self, index: int, offset: int) -> int:
        segment = self._segments[index]
        with self._opened(segment) as fd:
            for position, _ in segment.headers_from_offset(fd, offset):
                return segment.size - position
        return 0

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> bytes:
        """Raw batches from the one that holds the offset; the last may be cut short.

        `at_least_one`: the first batch is whole even when it is larger than `max_bytes`.
        """
        for segment in self._segments[self._segment_index(offset) :]:
            with self._opened(segment) as fd:
                for position, header in segment.headers_from_offset(fd, offset):
                    if header.size > max_bytes and not at_least_one:
                        return b""
                    return os.pread(fd, min(max(max_bytes, header.size), segment.size - position), position)
        return b""

    def offset_of_time(self, timestamp: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record of that time (ms) or later."""
        for segment in self._segments:
            if segment.max_timestamp < timestamp:
                continue
            with self._opened(segment) as fd:
                for position, header in segment.headers_from_time(fd, timestamp):
                    found = self._first_in_batch(os.pread(fd, header.size, position), header, timestamp)
                    if found is not None:
                        return found
        return None

    def _first_in_batch(self, batch: bytes, header: BatchHeader, timestamp: int) -> tuple[int, int] | None:
        if header.next_offset <= self.start_offset:
            return None
        try:
            return first_at_or_after(batch, timestamp, self.start_offset)
        except ValueError:
            logger.warning("cannot look into a batch: %s, offset %d", self._folder.name, header.base_offset)
            return max(header.base_offset, self.start_offset), header.max_timestamp

    def _segment_index(self, offset: int) -> int:
        return max(bisect_right(self._segments, offset, key=lambda segment: segment.base_offset) - 1, 0)

    @contextmanager
    def _opened(self, segment: Segment) -> Iterator[int]:
        """Only the newest file is held open."""
        if segment is self._active:
            yield self._fd
            return
        fd = os.open(segment.path, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def delete_before(self, offset: int) -> None:
        """Forget the records before an offset; the files go when no record of theirs is left."""
        self.start_offset = max(self.start_offset, offset)
        while len(self._segments) > 1 and self._segments[0].next_offset <= self.start_offset:
            self._segments.pop(0).path.unlink()

    def enforce_retention(self, now_ms: int) -> None:
        """Delete whole segments that are too old, or beyond the size the topic may have."""
        if not self.limits.deletes:
            return
        if self._active.size and self._expired(self._active, now_ms):
            self._roll()
        while len(self._segments) > 1 and (self._expired(self._segments[0], now_ms) or self._too_large()):
            self.delete_before(self._segments[1].base_offset)

    def _expired(self, segment: Segment, now_ms: int) -> bool:
        # Records without a time are not known to be old.
        return segment.max_timestamp >= 0 and 0 <= self.limits.retention_ms < now_ms - segment.max_timestamp

    def _too_large(self) -> bool:
        return 0 <= self.limits.retention_bytes <= self.size - self._segments[0].size

    @contextmanager
    def watched_by(self, event: asyncio.Event) -> Iterator[None]:
        """The event is set whenever something is appended, or the log goes away."""
        self._watchers.add(event)
        try:
            yield
        finally:
            self._watchers.discard(event)

    def wake_watchers(self) -> None:
        """Tell those who wait that something has changed."""
        for event in self._watchers:
            event.set()

    def close(self) -> None:
        """Flush to the disk and let go of the file."""
        _flush(self._fd)
        os.close(self._fd)

    def delete(self) -> None:
        """Remove the files."""
        os.close(self._fd)
        shutil.rmtree(self._folder)
        self.wake_watchers()
