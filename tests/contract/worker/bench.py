"""What the worker tests share: a topic and a group of the test's own on a real Kafka, tickets in memory."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.record._crc32c import crc as crc32c

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.consumer import Worker, WorkerOptions
from bus.publisher import Publisher
from contracts.events import CustomerReplied, Event, TicketSubmitted
from contracts.ports import Position, Stores, TicketStore
from contracts.ticket import Signature, Step, Ticket, close
from contracts.topics import Topic, dead_letters_of
from contracts.values import Disposition
from state.stores import memory_stores

LIMIT_S = 60.0
FAST = WorkerOptions(commit_interval_s=0.1, drain_timeout_s=5, session_timeout_s=6, retry_delays_s=(0.01,))


@dataclass
class Answering:
    """Answers each message with its own text; what it does meanwhile is the test's."""

    name: str
    version: str = "v1"
    meanwhile: Callable[[Event], Awaitable[None]] | None = None
    seen: list[Event] = field(default_factory=list)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        self.seen.append(event)
        if self.meanwhile is not None:
            await self.meanwhile(event)
        if not isinstance(event.data, TicketSubmitted | CustomerReplied):
            return Step(ticket)
        opened = ticket.open_round(event)
        by = Signature(self.name, self.version)
        return close(opened, opened.rounds[-1], Disposition.ANSWERED, by, reply=event.data.body)


@dataclass
class Bench:
    """A topic of the test's own, an agent with a group of its own, a store, and a producer."""

    connection: KafkaConnection
    publisher: Publisher
    topic: Topic
    agent: Answering
    stores: Stores = field(default_factory=memory_stores)

    @property
    def store(self) -> TicketStore:
        """The tickets."""
        return self.stores.tickets

    async def submit(self, ticket_id: str, body: str, *, key: bytes | None = None) -> Position:
        value = json.dumps({"ticket_id": ticket_id, "body": body}).encode()
        return await self.publisher.put(self.topic.name, key=ticket_id.encode() if key is None else key, value=value)

    @contextlib.asynccontextmanager
    async def worker(self, agent: Answering | None = None, options: WorkerOptions = FAST) -> AsyncIterator[Worker]:
        worker = Worker(agent or self.agent, self.stores, self.connection, topic=self.topic, options=options)
        running = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(worker.started.wait(), LIMIT_S)
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(running, LIMIT_S)

    @contextlib.asynccontextmanager
    async def odd_producer(self) -> AsyncIterator[Callable[..., Awaitable[None]]]:
        """Sends records with header names of any bytes, which aiokafka would not."""
        producer = AIOKafkaProducer(**self.connection.client_options())
        await producer.start()

        async def send(*, partition: int, key: bytes | None, value: bytes, odd_name: bytes) -> None:
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=[("?" * len(odd_name), b"v")])
            plain = bytes(batch._build())
            body = plain[21:].replace(b"?" * len(odd_name), odd_name)
            batch._buffer = plain[:17] + crc32c(body).to_bytes(4, "big") + body
            await (await producer.send_batch(batch, self.topic.name, partition=partition))

        try:
            yield send
        finally:
            await producer.stop()

    async def replies(self, ticket_id: str) -> list[str]:
        ticket = await self.store.load(ticket_id)
        return [round_.reply for round_ in ticket.rounds] if ticket else []

    async def apply(self, *topics: Topic) -> list[str]:
        return [change.change for change in await apply_topics(self.connection, topics)]

    async def delete(self, topic: str) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([topic])

            async def it_is_gone() -> bool:
                return topic not in await admin.list_topics()

            await until(it_is_gone)

    async def committed(self) -> dict[int, int]:
        async with self._admin() as admin:
            offsets = await admin.list_consumer_group_offsets(self.agent.name)
        return {tp.partition: found.offset for tp, found in offsets.items() if found.offset >= 0}

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self.connection.client_options())
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def ends(self) -> dict[int, int]:
        async with reader(self.connection, self.topic.name) as consumer:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            return {tp.partition: end for tp, end in ends.items() if end}

    async def all_committed(self) -> bool:
        return {p: offset for p, offset in (await self.committed()).items() if offset} == await self.ends()

    async def all_committed_but_gaps(self) -> bool:
        """Nothing is in hand: beyond what is committed there are at most markers of transactions."""
        committed = await self.committed()
        async with reader(self.connection, self.topic.name, isolation_level="read_committed") as consumer:
            for number, offset in committed.items():
                partition = TopicPartition(self.topic.name, number)
                await consumer.position(partition)  # the first one is found in the background, and would undo a seek
                consumer.seek(partition, offset)
            return not await consumer.getmany(timeout_ms=500)

    async def commit(self, offsets: dict[int, int]) -> None:
        """Set the group, which has no members, somewhere else."""
        consumer = AIOKafkaConsumer(
            **self.connection.client_options(), group_id=self.agent.name, enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(self.topic.name, partition) for partition in offsets])
            await consumer.commit({TopicPartition(self.topic.name, p): offset for p, offset in offsets.items()})
        finally:
            await consumer.stop()

    async def dead_letters(self, count: int) -> list[ConsumerRecord[bytes, bytes]]:
        return await self.read(dead_letters_of(self.topic, self.agent.name).name, count)

    async def read(self, topic: str, count: int, **wanted: bytes) -> list[ConsumerRecord[bytes, bytes]]:
        found: list[ConsumerRecord[bytes, bytes]] = []
        async with reader(self.connection, topic) as consumer, asyncio.timeout(LIMIT_S):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += [r for r in records if all(dict(r.headers).get(k) == v for k, v in wanted.items())]
        return found


@contextlib.asynccontextmanager
async def reader(connection: KafkaConnection, topic: str, **more: Any) -> AsyncIterator[AIOKafkaConsumer]:
    options = {"auto_offset_reset": "earliest", "max_partition_fetch_bytes": 4 * 1024 * 1024} | more
    consumer = AIOKafkaConsumer(topic, **connection.client_options(), **options)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + LIMIT_S
    while not await condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)
