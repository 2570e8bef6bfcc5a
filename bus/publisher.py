"""Publishing: records onto topics, one by one or many at once, each acknowledged by all replicas."""

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from bus.batches import batch_of, partition_of
from bus.connection import KafkaConnection
from bus.producers import LARGEST_REQUEST_BYTES, Producers, too_large
from contracts.errors import BusUnavailable, ContractBroken
from contracts.ports import OutgoingRecord, Position
from contracts.topics import TICKETS

Publish = Callable[[Sequence[OutgoingRecord]], Awaitable[list[Position]]]
"""Publishes records in order, as `Publisher.publish` does."""

Sent = Position | ContractBroken | BusUnavailable
"""What became of a record. ContractBroken: refused for good, the others went on. BusUnavailable: not acknowledged,
it may be there all the same; and no later record of its partition was sent."""

Place = TypeVar("Place")

_AT_ONCE = 500  # plain tickets on their way at the same time
_KEYS_KEPT = 10_000  # tickets whose partition is remembered


class Publisher:
    """Publishes records, each acknowledged before the call returns. Safe to share between tasks.

    Batches have a producer to themselves: a record put alone onto a topic that cannot be written, a dead letter
    say, does not slow them.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 10.0) -> None:
        self._alone = Producers(connection, timeout_s)
        self._batched = Producers(connection, timeout_s)
        self._stripes: dict[str, int] = {}
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
        return await _apart(records, [record.topic for record in records], self._publish_on)

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
            async with self._alone.bounded(TICKETS.name) as producer:
                sent = [await producer.send(TICKETS.name, value, key=i.encode()) for i, value in batch]
                positions += [_position(metadata) for metadata in await asyncio.gather(*sent)]
        return positions

    async def put(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> Position:
        """Publish one record as it is given. Raises as `publish` does."""
        async with self._alone.bounded(topic) as producer:
            if key is None and value is None:  # `send` refuses such a record, Kafka does not
                return _position(await _send_empty(producer, topic, headers))
            return _position(await producer.send_and_wait(topic, value, key=key, headers=list(headers)))

    async def close(self) -> None:
        """End the producers; what was not acknowledged by now may be lost."""
        await asyncio.gather(self._alone.close(), self._batched.close())

    async def _publish_on(self, topic: str, records: Sequence[OutgoingRecord]) -> list[Sent]:
        try:
            partitions = await self._partitions(topic)
        except BusUnavailable as error:
            return [error] * len(records)
        self._stripes.setdefault(topic, partitions)
        places = [self._partition_of(record.ticket_id, partitions) for record in records]
        return await _apart(records, places, functools.partial(self._publish_line, topic))

    async def _partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises BusUnavailable."""
        known = (await self._batched.current()).client.cluster.partitions_for_topic(topic)
        if known is None:
            async with self._batched.bounded(topic) as producer:
                known = await producer.partitions_for(topic)
        return len(known)

    async def _publish_line(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> list[Sent]:
        """Publish one partition's records, each batch after the one before it was acknowledged."""
        sent: list[Sent] = []
        waiting, singly = deque(records), 0
        while waiting:
            try:
                batch, count = batch_of(await self._batched.current(), waiting, at_most=1 if singly else len(waiting))
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
        if batch.size() > LARGEST_REQUEST_BYTES:
            raise too_large(topic)
        async with self._batched.bounded(topic) as producer:
            first = (await (await producer.send_batch(batch, topic, partition=partition))).offset
        if first < 0:  # it was there already, and Kafka has forgotten where
            return [Position(topic, partition, -1)] * batch.record_count()
        return [Position(topic, partition, first + nth) for nth in range(batch.record_count())]


async def _apart(
    records: Sequence[OutgoingRecord],
    places: Sequence[Place],
    publish: Callable[[Place, Sequence[OutgoingRecord]], Coroutine[Any, Any, list[Sent]]],
) -> list[Sent]:
    """Publish the records of each place at the same time as those of others; the results stand in the order given."""
    by_place: dict[Place, list[OutgoingRecord]] = {}
    for place, record in zip(places, records, strict=True):
        by_place.setdefault(place, []).append(record)
    if len(by_place) == 1:
        return await publish(places[0], records)
    async with asyncio.TaskGroup() as tasks:
        running = {place: tasks.create_task(publish(place, theirs)) for place, theirs in by_place.items()}
    sent = {place: iter(task.result()) for place, task in running.items()}
    return [next(sent[place]) for place in places]


def _position(sent: RecordMetadata) -> Position:
    return Position(sent.topic, sent.partition, sent.offset)


async def _send_empty(producer: AIOKafkaProducer, topic: str, headers: Sequence[Any]) -> RecordMetadata:
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
    partition = min(await producer.partitions_for(topic))
    return await (await producer.send_batch(batch, topic, partition=partition))
