"""Following a topic from outside any consumer group: reads only, commits nothing."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from bus.closing import close_consumer, dead_task
from bus.connection import KafkaConnection
from contracts.errors import BusUnavailable


class Follower:
    """A reader of one topic, at its own position."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def next(self, timeout_s: float) -> Sequence[Any]:
        """The records that came since the last call; waits up to `timeout_s` for the first.

        Raises BusUnavailable: the client broke, and will find nothing more.
        """
        if dead := dead_task(self._consumer):
            raise BusUnavailable(f"Kafka: the client's {dead} has ended")
        found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        return [record for records in found.values() for record in records]

    async def rest(self) -> Sequence[Any]:
        """Every record up to where the topic ends now."""
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        found: list[Any] = []
        while any([await self._consumer.position(p) < end for p, end in ends.items()]):
            found.extend(await self.next(0.2))
        return found


@contextlib.asynccontextmanager
async def follow(connection: KafkaConnection, topic: str, *, from_start: bool) -> AsyncIterator[Follower]:
    """Follow a topic from its beginning, or from its present end on. Raises BusUnavailable: no broker answers."""
    consumer = AIOKafkaConsumer(topic, **connection.client_options(), auto_offset_reset="earliest")
    try:
        await consumer.start()
    except KafkaError as error:
        await close_consumer(consumer)
        raise BusUnavailable(f"Kafka: {error}") from error
    try:
        partitions = list(consumer.assignment())
        for partition in partitions:
            await consumer.position(partition)  # the first one is found in the background, and would undo a seek
        if not from_start:
            for partition, end in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, end)
        yield Follower(consumer)
    finally:
        await close_consumer(consumer)
