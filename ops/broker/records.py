"""Record batches (format v2) as bytes: what the broker must read of them, and no more."""

import gzip
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cramjam
from crc32c import crc32c
from kio.schema.errors import ErrorCode

HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_STARTS_AT = 21  # the checksum covers attributes and everything behind them
_COMPRESSION = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL_OR_CONTROL = 0x30
_XERIAL_MAGIC = b"\x82SNAPPY\x00"


class BatchRefused(Exception):
    """The batch is not stored; `code` is what the producer is told."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class BatchHeader(NamedTuple):
    """The fixed part of a batch, in the order of the wire."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + 12

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last record."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last record; numbers wrap to 0 after 2**31 - 1."""
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    def plausible(self) -> bool:
        """Whether the fields fit one another; random bytes hardly ever do."""
        return (
            self.magic == 2 and self.length >= HEADER.size - 12 and self.record_count == self.last_offset_delta + 1 > 0
        )


def header_at(data: bytes | memoryview, position: int = 0) -> BatchHeader:
    """Read the header that stands at a position. Raises struct.error: there are fewer than 61 bytes."""
    return BatchHeader._make(HEADER.unpack_from(data, position))


def checksum_holds(header: BatchHeader, batch: bytes | memoryview) -> bool:
    """Whether the bytes are those that the producer made."""
    return crc32c(memoryview(batch)[_CRC_STARTS_AT:]) == header.crc


def checked(batch: bytes) -> BatchHeader:
    """The header of a batch that a producer sent. Raises BatchRefused: it is not exactly one sound batch."""
    if len(batch) < HEADER.size:
        raise BatchRefused(ErrorCode.corrupt_message, "shorter than a batch header")
    header = header_at(batch)
    if header.magic != 2:
        raise BatchRefused(ErrorCode.unsupported_for_message_format, "only record format v2 is kept")
    if header.size > len(batch) or not header.plausible():
        raise BatchRefused(ErrorCode.corrupt_message, "the header does not fit the bytes")
    if header.size < len(batch):
        raise BatchRefused(ErrorCode.invalid_record, "more than one batch for a partition")
    if not checksum_holds(header, batch):
        raise BatchRefused(ErrorCode.corrupt_message, "the checksum does not hold")
    if header.attributes & _TRANSACTIONAL_OR_CONTROL:
        raise BatchRefused(ErrorCode.invalid_record, "transactions are not supported")
    if header.attributes & _LOG_APPEND_TIME:
        raise BatchRefused(ErrorCode.invalid_timestamp, "only the producer's timestamps are kept")
    return header


def first_at_or_after(batch: bytes, timestamp: int, min_offset: int) -> tuple[int, int] | None:
    """Offset and timestamp of the batch's first record that is late enough, at `min_offset` or behind it.

    Raises ValueError: the records cannot be read (a bad compressed block, say).
    """
    header = header_at(batch)
    for timestamp_delta, offset_delta in _deltas(_uncompressed(header, batch), header.record_count):
        found = header.base_offset + offset_delta, header.base_timestamp + timestamp_delta
        if found[0] >= min_offset and found[1] >= timestamp:
            return found
    return None


def _deltas(records: bytes, count: int) -> Iterator[tuple[int, int]]:
    position = 0
    for _ in range(count):
        length, position = _varint(records, position)
        timestamp_delta, inside = _varint(records, position + 1)
        offset_delta, _ = _varint(records, inside)
        yield timestamp_delta, offset_delta
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if position >= len(data):
            raise ValueError("a record ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise ValueError("a number is too long")


def _uncompressed(header: BatchHeader, batch: bytes) -> bytes:
    records = batch[HEADER.size : header.size]
    try:
        match header.attributes & _COMPRESSION:
            case 0:
                return records
            case 1:
                return gzip.decompress(records)
            case 2:
                return _unsnappied(records)
            case 3:
                return bytes(cramjam.lz4.decompress(records))
            case 4:
                return bytes(cramjam.zstd.decompress(records))
    except (OSError, EOFError, cramjam.DecompressionError) as error:
        raise ValueError("the records cannot be decompressed") from error
    raise ValueError("an unknown compression")


def _unsnappied(data: bytes) -> bytes:
    """Snappy comes bare or in xerial's frame: 16 bytes of header, then blocks behind their length."""
    if not data.startswith(_XERIAL_MAGIC):
        return bytes(cramjam.snappy.decompress_raw(data))
    blocks, position = [], 16
    while position + 4 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        blocks.append(bytes(cramjam.snappy.decompress_raw(data[position + 4 : position + 4 + length])))
        position += 4 + length
    return b"".join(blocks)
