"""Publishing: one idempotent producer, acknowledged by all replicas, replaced when it no longer works."""

import asyncio
import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, UnknownTopicOrPartitionError
from aiokafka.structs import RecordMetadata

from bus.batches import LARGEST_BATCH_BYTES, batch_of, partition_of
from bus.closing import close_producer
from bus.connection import KafkaConnection
from contracts.errors import BusUnavailable, ContractBroken
from contracts.ports import OutgoingRecord, Position
from contracts.topics import TICKETS

Publish = Callable[[Sequence[OutgoingRecord]], Awaitable[list[Position]]]
"""Publishes records in order, as `Publisher.publish` does."""

Sent = Position | ContractBroken | BusUnavailable
"""What became of a record. ContractBroken: refused for good, the others went on. BusUnavailable: not acknowledged,
it may be there all the same; and no later record of its partition was sent."""

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LARGEST_REQUEST_BYTES = 4 * 1024 * 1024  # above any topic's limit: the broker decides
_AT_ONCE = 500  # plain tickets on their way at the same time
_KEYS_KEPT = 10_000  # tickets whose partition is remembered


class Publisher:
    """Publishes records, each acknowledged before the call returns. Safe to share between tasks.

    A producer that timed out or failed is thrown away: aiokafka's idempotent producer waits for ever for a
    broker that is gone, and is useless once its sequence broke. The next call makes a new one.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None
        self._stripes: dict[str, int] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._partition_of = functools.lru_cache(_KEYS_KEPT)(partition_of)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(self, records: Sequence[OutgoingRecord]) -> list[Position]:
        """Publish in order, each record after the one before it was acknowledged.

        Raises BusUnavailable: not acknowledged in time, it may be there all the same. ContractBroken: too large.
        """
        return [
            await self.put(record.topic, key=record.ticket_id.encode(), value=record.value, headers=record.headers)
            for record in records
        ]

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> list[Sent]:
        """Publish many records, those of one ticket in order; what became of each stands at its place.

        A partition has one batch on its way at a time: what follows one that failed is not sent. Calls that
        overlap are in no order to each other.
        """
        by_topic: dict[str, list[OutgoingRecord]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record)
        sent = await _all([self._publish_topic(topic, theirs) for topic, theirs in by_topic.items()])
        if len(sent) == 1:
            return sent[0]
        in_turn = {topic: iter(theirs) for topic, theirs in zip(by_topic, sent, strict=True)}
        return [next(in_turn[record.topic]) for record in records]

    def stripe(self, topic: str, ticket_id: str) -> int | None:
        """Which of a topic's independent streams a ticket belongs to; None when that is not known yet.

        It is the ticket's partition, and stays what it was when the topic grows: those who publish stripe by
        stripe keep the order within a ticket all the same.
        """
        stripes = self._stripes.get(topic)
        return None if stripes is None else self._partition_of(ticket_id, stripes)

    async def publish_bare(self, tickets: Iterable[tuple[str, bytes]]) -> list[Position]:
        """Publish tickets (id, JSON) as any client would, without headers; those of one ticket in order."""
        positions: list[Position] = []
        waiting = iter(tickets)
        while batch := list(itertools.islice(waiting, _AT_ONCE)):
            async with self._producing(TICKETS.name) as producer:
                sent = [await producer.send(TICKETS.name, value, key=i.encode()) for i, value in batch]
                positions += [_position(metadata) for metadata in await asyncio.gather(*sent)]
        return positions

    async def put(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> Position:
        """Publish one record as it is given. Raises as `publish` does."""
        async with self._producing(topic) as producer:
            if key is None and value is None:  # `send` refuses such a record, Kafka does not
                return _position(await _send_empty(producer, topic, headers))
            return _position(await producer.send_and_wait(topic, value, key=key, headers=list(headers)))

    async def close(self) -> None:
        """End the producer; what was not acknowledged by now may be lost."""
        producer, starting, self._starting = self._running(), self._starting, None
        if producer is not None:
            self._retire(producer)
        elif starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def _publish_topic(self, topic: str, records: Sequence[OutgoingRecord]) -> list[Sent]:
        try:
            async with self._producing(topic) as producer:
                partitions = len(await producer.partitions_for(topic))
        except BusUnavailable as error:
            return [error] * len(records)
        self._stripes.setdefault(topic, partitions)
        places = [self._partition_of(record.ticket_id, partitions) for record in records]
        by_partition: dict[int, list[OutgoingRecord]] = {}
        for place, record in zip(places, records, strict=True):
            by_partition.setdefault(place, []).append(record)
        sent = await _all([self._publish_line(topic, place, theirs) for place, theirs in by_partition.items()])
        if len(sent) == 1:
            return sent[0]
        in_turn = {place: iter(theirs) for place, theirs in zip(by_partition, sent, strict=True)}
        return [next(in_turn[place]) for place in places]

    async def _publish_line(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> list[Sent]:
        """Publish one partition's records, each batch after the one before it was acknowledged."""
        sent: list[Sent] = []
        waiting, singly = deque(records), 0
        while waiting:
            try:
                batch, count = batch_of(await self._producer(), waiting, at_most=1 if singly else len(waiting))
                sent += await self._publish_packed(topic, partition, batch)
            except BusUnavailable as error:
                return sent + [error] * len(waiting)
            except ContractBroken as error:
                if count > 1:  # perhaps one of them alone is too large
                    singly = count
                    continue
                sent.append(error)
            singly = max(0, singly - count)
            for _ in range(count):
                waiting.popleft()
        return sent

    async def _publish_packed(self, topic: str, partition: int, batch: Any) -> list[Position]:
        """Publish a batch. Raises as `publish` does, then for all of it."""
        if batch.size() > _LARGEST_REQUEST_BYTES:
            raise _too_large(topic)
        async with self._producing(topic) as producer:
            first = (await (await producer.send_batch(batch, topic, partition=partition))).offset
        if first < 0:  # it was there already, and Kafka has forgotten where
            return [Position(topic, partition, -1)] * batch.record_count()
        return [Position(topic, partition, first + nth) for nth in range(batch.record_count())]

    @contextlib.asynccontextmanager
    async def _producing(self, topic: str) -> AsyncIterator[AIOKafkaProducer]:
        """The producer, for a bounded time; its errors become ours, and it is thrown away if it may be broken."""
        producer = await self._producer()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield producer
        except UnknownTopicOrPartitionError as error:
            raise BusUnavailable(f"Kafka knows no topic {topic}") from error
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            self._discard(producer)  # a batch that the broker refused leaves a gap in the sequence
            raise _too_large(topic) from error
        except (KafkaError, TimeoutError) as error:
            self._discard(producer)
            raise BusUnavailable(f"Kafka did not acknowledge a record on {topic}: {type(error).__name__}") from error

    async def _producer(self) -> AIOKafkaProducer:
        """The producer in use, or a new one that all who wait share."""
        if self._starting is None or (self._starting.done() and self._running() is None):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._connection.client_options(),
            enable_idempotence=True,
            acks="all",
            max_request_size=_LARGEST_REQUEST_BYTES,
            max_batch_size=LARGEST_BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 800),  # before ours: its own errors say more than a timeout
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except (KafkaError, TimeoutError, OSError) as error:
            await close_producer(producer)
            raise BusUnavailable(f"Kafka cannot be reached: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await close_producer(producer)
            raise
        return producer

    def _discard(self, producer: AIOKafkaProducer) -> None:
        """Throw a producer away, once, for all who share it; what they have on their way still has some seconds."""
        if producer is self._running():
            self._starting = None
            _log.warning("replacing a Kafka producer that failed")
            self._retire(producer)

    def _retire(self, producer: AIOKafkaProducer) -> None:
        closing = asyncio.create_task(close_producer(producer))
        self._retiring.add(closing)
        closing.add_done_callback(self._retiring.discard)

    def _running(self) -> AIOKafkaProducer | None:
        started = self._starting
        if started is None or not started.done() or started.cancelled() or started.exception() is not None:
            return None
        return started.result()


async def _all(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results; a lone one needs no task of its own."""
    if len(calls) == 1:
        return [await calls[0]]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(call) for call in calls]
    return [task.result() for task in running]


def _too_large(topic: str) -> ContractBroken:
    return ContractBroken(f"the record is larger than {topic} takes")


def _position(sent: RecordMetadata) -> Position:
    return Position(sent.topic, sent.partition, sent.offset)


async def _send_empty(producer: AIOKafkaProducer, topic: str, headers: Sequence[Any]) -> RecordMetadata:
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
    partition = min(await producer.partitions_for(topic))
    return await (await producer.send_batch(batch, topic, partition=partition))
