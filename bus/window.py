"""Reading a part of a topic from outside any consumer group: nothing is committed, and nobody's offsets move."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from bus.connection import BROKEN, KafkaConnection
from contracts.errors import BusUnavailable, Misconfigured
from contracts.ports import Record

_WAIT_MS = 500
_STUCK_AFTER = 60  # waits in a row that brought nothing


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a window begins or ends: at one of these, the first that is set."""

    time: datetime | None = None
    offsets: Mapping[int, int] | None = None  # by partition; those not named take no part
    offset: int | None = None  # the same in every partition
    latest: bool = False  # else the earliest


Span = Mapping[TopicPartition, tuple[int, int]]


async def read_window(connection: KafkaConnection, topic: str, start: Bound, end: Bound) -> AsyncIterator[Record]:
    """The records from `start` on, up to but not including `end`; those of a partition in order.

    Raises Misconfigured: there is no such topic, or `start` is before what it still keeps. BusUnavailable.
    """
    async with _consumer(connection, topic) as consumer:
        spans = await _spans(consumer, topic, start, end)
        for partition, (first, _) in spans.items():
            consumer.seek(partition, first)
        async for record in _read(consumer, {partition: last for partition, (_, last) in spans.items()}):
            yield record


@contextlib.asynccontextmanager
async def _consumer(connection: KafkaConnection, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**connection.client_options(), group_id=None, enable_auto_commit=False)
    try:
        await consumer.start()
        cluster = await consumer._client.fetch_all_metadata()
        if topic not in cluster.topics():
            raise Misconfigured(f"there is no topic {topic}; `switchyard topics apply` makes those of the catalogue")
        consumer.assign([TopicPartition(topic, number) for number in sorted(cluster.partitions_for_topic(topic))])
        yield consumer
    except KafkaError as error:
        raise BusUnavailable(f"Kafka: {error}") from error
    finally:
        with contextlib.suppress(*BROKEN):
            await consumer.stop()


async def _spans(consumer: AIOKafkaConsumer, topic: str, start: Bound, end: Bound) -> Span:
    partitions = sorted(consumer.assignment())
    oldest = await consumer.beginning_offsets(partitions)
    newest = await consumer.end_offsets(partitions)
    first = await _offsets(consumer, start, oldest, newest)
    last = await _offsets(consumer, end, oldest, newest)
    for partition, offset in first.items():
        asked_before = start.time is not None and oldest[partition] and offset == oldest[partition]
        if offset < oldest[partition] or asked_before:
            raise Misconfigured(
                f"--from is before the oldest record that {topic} still keeps in partition {partition.partition} "
                f"(offset {oldest[partition]}); `--from earliest` begins there"
            )
    return {p: (first[p], last[p]) for p in partitions if p in first and p in last and first[p] < last[p]}


async def _offsets(
    consumer: AIOKafkaConsumer,
    bound: Bound,
    oldest: Mapping[TopicPartition, int],
    newest: Mapping[TopicPartition, int],
) -> Mapping[TopicPartition, int]:
    if bound.time is not None:
        at_ms = int(bound.time.astimezone(UTC).timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(oldest, at_ms))
        return {partition: at.offset if (at := found.get(partition)) else newest[partition] for partition in oldest}
    if bound.offsets is not None:
        named = bound.offsets
        return {p: min(named[p.partition], newest[p]) for p in oldest if p.partition in named}
    if bound.offset is not None:
        return {partition: min(bound.offset, newest[partition]) for partition in oldest}
    return newest if bound.latest else oldest


async def _read(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncIterator[Record]:
    consumer.pause(*(consumer.assignment() - ends.keys()))
    left, waits = dict(ends), 0
    while left:
        found = await consumer.getmany(*left, timeout_ms=_WAIT_MS)
        for partition, records in found.items():
            for record in records:
                if record.offset < left[partition]:
                    yield record
        for partition in list(left):
            if await consumer.position(partition) >= left[partition]:
                del left[partition]
                consumer.pause(partition)
        waits = 0 if found else waits + 1
        if waits > _STUCK_AFTER:
            raise BusUnavailable(f"Kafka: nothing came for {_STUCK_AFTER * _WAIT_MS // 1000} s; is a partition down?")
