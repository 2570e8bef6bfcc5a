"""Following a topic from outside any consumer group: reads only, commits nothing."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer

from bus.connection import KafkaConnection


class Follower:
    """A reader of one topic, at its own position."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def next(self, timeout_s: float) -> Sequence[Any]:
        """The records that came since the last call; waits up to `timeout_s` for the first."""
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
    """Follow a topic from its beginning, or from its present end on."""
    consumer = AIOKafkaConsumer(topic, **connection.client_options(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = list(consumer.assignment())
        await (consumer.seek_to_beginning if from_start else consumer.seek_to_end)(*partitions)
        for partition in partitions:
            await consumer.position(partition)  # seek is lazy: resolve it before anything more is published
        yield Follower(consumer)
    finally:
        await consumer.stop()
