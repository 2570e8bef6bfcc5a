"""Publishing: one idempotent producer, acknowledged by all replicas, replaced when it no longer works."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, UnknownTopicOrPartitionError
from aiokafka.structs import RecordMetadata

from bus.closing import close_producer
from bus.connection import KafkaConnection
from contracts.errors import BusUnavailable, ContractBroken
from contracts.ports import OutgoingRecord, Position
from contracts.topics import TICKETS

Publish = Callable[[Sequence[OutgoingRecord]], Awaitable[list[Position]]]
"""Publishes records in order, as `Publisher.publish` does."""

_log = logging.getLogger(__name__)
_LARGEST_REQUEST_BYTES = 4 * 1024 * 1024  # above any topic's limit: the broker decides
_AT_ONCE = 500  # plain tickets on their way at the same time


class Publisher:
    """Publishes records, each acknowledged before the call returns. Safe to share between tasks.

    A producer that timed out or failed is thrown away: aiokafka's idempotent producer waits for ever for a
    broker that is gone, and is useless once its sequence broke. The next call makes a new one.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None

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
            await close_producer(producer)
        elif starting is not None:
            starting.cancel()
            await asyncio.wait([starting])

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
            await self._discard(producer)  # a batch that the broker refused leaves a gap in the sequence
            raise ContractBroken(f"the record is larger than {topic} takes") from error
        except (KafkaError, TimeoutError) as error:
            await self._discard(producer)
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
            request_timeout_ms=int(self._timeout_s * 1000),
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

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """Throw a producer away, once, for all who share it."""
        if producer is self._running():
            self._starting = None
            _log.warning("replacing a Kafka producer that failed")
            await close_producer(producer)

    def _running(self) -> AIOKafkaProducer | None:
        started = self._starting
        if started is None or not started.done() or started.cancelled() or started.exception() is not None:
            return None
        return started.result()


def _position(sent: RecordMetadata) -> Position:
    return Position(sent.topic, sent.partition, sent.offset)


async def _send_empty(producer: AIOKafkaProducer, topic: str, headers: Sequence[Any]) -> RecordMetadata:
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
    partition = min(await producer.partitions_for(topic))
    return await (await producer.send_batch(batch, topic, partition=partition))
