"""A producer that is replaced when it no longer works."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError, UnknownTopicOrPartitionError

from bus.batches import LARGEST_BATCH_BYTES
from bus.closing import close_producer
from bus.connection import BROKEN, KafkaConnection
from contracts.errors import BusUnavailable, ContractBroken

LARGEST_REQUEST_BYTES = 4 * 1024 * 1024  # above any topic's limit: the broker decides

_log = logging.getLogger(__name__)


class Producers:
    """One idempotent producer at a time, acknowledged by all replicas, shared by all who ask.

    A producer that timed out or failed is thrown away: aiokafka's idempotent producer waits for ever for a
    broker that is gone, and is useless once its sequence broke. Who asks next gets a new one.
    """

    def __init__(self, connection: KafkaConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def bounded(self, topic: str) -> AsyncIterator[AIOKafkaProducer]:
        """The producer, for a bounded time; its errors become ours, and it is thrown away if it may be broken."""
        producer = await self.current()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield producer
        except UnknownTopicOrPartitionError as error:
            raise BusUnavailable(f"Kafka knows no topic {topic}") from error
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            self._discard(producer)  # a batch that the broker refused leaves a gap in the sequence
            raise too_large(topic) from error
        except BROKEN as error:
            self._discard(producer)
            raise BusUnavailable(f"Kafka did not acknowledge a record on {topic}: {type(error).__name__}") from error

    async def current(self) -> AIOKafkaProducer:
        """The producer in use, or a new one that all who wait share. Raises BusUnavailable."""
        if self._starting is None or (self._starting.done() and self._running() is None):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

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

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._connection.client_options(),
            enable_idempotence=True,
            acks="all",
            max_request_size=LARGEST_REQUEST_BYTES,
            max_batch_size=LARGEST_BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 800),  # before ours: its own errors say more than a timeout
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except BROKEN as error:
            await close_producer(producer)
            raise BusUnavailable(f"Kafka cannot be reached: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await close_producer(producer)
            raise
        return producer

    def _running(self) -> AIOKafkaProducer | None:
        started = self._starting
        if started is None or not started.done() or started.cancelled() or started.exception() is not None:
            return None
        return started.result()

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


def too_large(topic: str) -> ContractBroken:
    """What a record is that its topic never takes."""
    return ContractBroken(f"the record is larger than {topic} takes")
