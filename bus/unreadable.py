"""Records that aiokafka cannot read: Kafka takes header names of any bytes, aiokafka only UTF-8.

One such record, from any producer, would stop its partition for good. So it is fetched and read here, leniently.
"""

from collections.abc import Iterator
from typing import Any, SupportsIndex

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy

from contracts.ports import Record

_READ_COMMITTED = 1
_LENGTH_AT, _LENGTH_ENDS = 8, 12  # of a batch: its base offset, then how many bytes follow these two


class _Lenient(bytearray):
    """Bytes whose slices decode whatever they hold; a byte that is not UTF-8 becomes a lone surrogate."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "surrogateescape")


async def unreadable_at(consumer: AIOKafkaConsumer, partition: TopicPartition, max_bytes: int) -> Record | None:
    """The record a consumer would read next from a partition, if it is one that aiokafka cannot read.

    Key, value and header values are as they were; in header names a byte that is not UTF-8 becomes `\\xNN`.
    """
    position = await consumer.position(partition)
    wanted = [(partition.topic, [(partition.partition, position, max_bytes)])]
    node = consumer._client.cluster.leader_for_partition(partition)
    response = await consumer._client.send(node, FetchRequest(0, 0, max_bytes, _READ_COMMITTED, wanted))
    [(_, [(_, _, _, *_, batches)])] = response.topics
    for read in _records(batches or b""):
        if read.offset >= position:
            return _record(partition, read) if _has_odd_names(read) else None
    return None


def _records(batches: bytes) -> Iterator[Any]:
    """Every record of whole batches, leniently; the last batch may be cut."""
    rest = memoryview(batches)
    while len(rest) >= _LENGTH_ENDS:
        size = _LENGTH_ENDS + int.from_bytes(rest[_LENGTH_AT:_LENGTH_ENDS], "big")
        if size > len(rest):
            return
        batch = iter(_DefaultRecordBatchPy(rest[:size]))
        if not batch.is_control_batch:
            batch._buffer = _Lenient(batch._buffer)
            yield from batch
        rest = rest[size:]


def _has_odd_names(read: Any) -> bool:
    return any(name != _readable(name) for name, _ in read.headers)


def _readable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _record(partition: TopicPartition, read: Any) -> Record:
    return Record(
        topic=partition.topic,
        partition=partition.partition,
        offset=read.offset,
        timestamp=read.timestamp,
        key=read.key,
        value=read.value,
        headers=tuple((_readable(name), value) for name, value in read.headers),
        timestamp_type=read.timestamp_type,
    )
