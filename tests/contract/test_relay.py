"""The relay on a real Kafka: what stands on the topic after crashes and outages."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from bus.relay import Relay
from contracts.errors import StoreUnavailable
from contracts.ports import Published, StoredRecord, Stores
from contracts.topics import Topic
from state.stores import memory_stores
from tests.contract.backends import until
from tests.contract.kafka_way import KafkaWay, way_to
from tests.contract.samples import must_settle, new_ticket, record, settlement
from tests.contract.worker.bench import reader
from tests.drill.taps import PRODUCE

pytestmark = pytest.mark.kafka

TIMEOUT_S = 2.0
LEASE_S = 1.5
OUT_OF_ORDER_SEQUENCE = 45
LIMIT_S = 60


@dataclass
class Wall:
    """The database as a worker sees it that can be cut off from it."""

    stores: Stores
    cut: bool = False

    async def mark_published(self, published: Sequence[Published]) -> None:
        self._pass()
        await self.stores.outbox.mark_published(published)

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        self._pass()
        return await self.stores.outbox.take_over(owner, limit=limit)

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        self._pass()
        return await self.stores.leases.hold(name, owner, lease_s=lease_s)

    async def release(self, name: str, owner: str) -> None:
        self._pass()
        await self.stores.leases.release(name, owner)

    def _pass(self) -> None:
        if self.cut:
            raise StoreUnavailable("cut off")


@dataclass
class Bench:
    connection: KafkaConnection
    way: KafkaWay
    topic: str
    stores: Stores = field(default_factory=memory_stores)
    steps: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def worker(self, name: str, wall: Wall | None = None) -> AsyncIterator[Relay]:
        """A relay with a producer of its own, by the way."""
        store = wall or Wall(self.stores)
        async with Publisher(self.way.connection, timeout_s=TIMEOUT_S) as publisher:
            relay = Relay(store, store, publisher, name, lease_s=LEASE_S, renew_s=0.1, sweep_s=0.1)
            running = asyncio.create_task(relay.run())
            try:
                yield relay
            finally:
                running.cancel()
                await asyncio.wait([running], timeout=5)

    async def step(self, relay: Relay, count: int, tickets: int = 1, *, topic: str | None = None) -> None:
        """Steps of some tickets in turn, each with one event, stored and put."""
        for _ in range(count):
            n = next(self.steps)
            ticket_id = f"t{n % tickets}"
            ticket = await self.stores.tickets.load(ticket_id) or new_ticket(ticket_id)
            outgoing = [record(f"e{n}", ticket_id, topic=topic or self.topic)]
            owner = relay.owner
            stored = await must_settle(
                self.stores.tickets, settlement(ticket, f"s{n}", outgoing=outgoing, step=False), owner
            )
            relay.put(stored.records, owner)

    async def published(self, topic: str | None = None) -> dict[bytes | None, list[str]]:
        """The event ids on the topic, by ticket, in the order they stand there."""
        found: dict[bytes | None, list[str]] = {}
        async with reader(self.connection, topic or self.topic) as consumer:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            async with asyncio.timeout(LIMIT_S):
                count = 0
                while count < sum(ends.values()):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        count += len(records)
                        for one in records:
                            found.setdefault(one.key, []).append(dict(one.headers)["ce_id"].decode())
        return found


@pytest.fixture
async def bench(kafka_bootstrap: str) -> AsyncIterator[Bench]:
    connection = KafkaConnection(kafka_bootstrap)
    topic = Topic(f"relayed-{uuid.uuid4().hex[:12]}", (), partitions=4)
    await apply_topics(connection, [topic])
    async with way_to(kafka_bootstrap) as way:
        yield Bench(connection, way, topic.name)


def first_copies(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def in_order(count: int, tickets: int) -> dict[bytes, list[str]]:
    return {f"t{t}".encode(): [f"e{n}" for n in range(count) if n % tickets == t] for t in range(tickets)}


async def test_many_steps_of_many_tickets_stand_on_the_topic_once_and_in_order(bench: Bench) -> None:
    async with bench.worker("w") as relay:
        await bench.step(relay, 2000, tickets=37)
        assert await relay.drained(LIMIT_S)
    assert await bench.published() == in_order(2000, 37)


async def test_a_worker_killed_between_acknowledgement_and_mark_leaves_second_copies_in_order(bench: Bench) -> None:
    """Whoever takes its rows over cannot know; readers know a second copy by its event id."""
    wall = Wall(bench.stores)
    async with bench.worker("heir") as heir:
        async with bench.worker("dying", wall) as dying:
            await bench.step(dying, 20, tickets=3)
            assert await dying.drained(LIMIT_S)
            wall.cut = True
            await bench.step(dying, 20, tickets=3)
            await until(lambda: all_there(bench, 40))
        await until(lambda: all_there(bench, 60, copies=True))
        assert await heir.drained(LIMIT_S)
    found = await bench.published()
    assert {key: first_copies(ids) for key, ids in found.items()} == in_order(40, 3)
    assert sum(map(len, found.values())) == 60  # and no third ones


async def test_a_lost_acknowledgement_makes_a_second_copy_with_the_same_id_and_keeps_the_order(bench: Bench) -> None:
    """aiokafka#1017: the batch is there, its producer is of no use any more, and its records are sent anew."""
    async with bench.worker("w") as relay:
        await bench.step(relay, 10, tickets=2)
        assert await relay.drained(LIMIT_S)
        bench.way.meddle(PRODUCE, OUT_OF_ORDER_SEQUENCE, times=3)
        await bench.step(relay, 100, tickets=2)
        assert await relay.drained(LIMIT_S)
    assert bench.way.mischief.done == 3
    found = await bench.published()
    assert {key: first_copies(ids) for key, ids in found.items()} == in_order(110, 2)
    assert sum(map(len, found.values())) > 110


async def test_records_wait_out_a_broker_that_is_away_and_keep_their_order(bench: Bench) -> None:
    """aiokafka#1101: a producer that waits for ever would need a restart of the worker."""
    async with bench.worker("w") as relay:
        await bench.step(relay, 10, tickets=3)
        assert await relay.drained(LIMIT_S)
        bench.way.proxy.weather.silent = True
        await bench.step(relay, 30, tickets=3)
        assert not await relay.drained(0.1)
        await bench.step(relay, 30, tickets=3)  # behind what is on its way, and fails
        assert not await relay.drained(TIMEOUT_S * 1.5)
        bench.way.proxy.reset()
        bench.way.proxy.clear()
        assert await relay.drained(LIMIT_S)
    found = await bench.published()
    assert {key: first_copies(ids) for key, ids in found.items()} == in_order(70, 3)


async def test_a_topic_that_is_not_there_holds_up_no_other_and_gets_its_records_when_it_is(bench: Bench) -> None:
    late = Topic(f"late-{uuid.uuid4().hex[:12]}", (), partitions=2)
    async with bench.worker("w") as relay:
        await bench.step(relay, 5, topic=late.name)
        await bench.step(relay, 5)
        await until(lambda: all_there(bench, 5))
        assert relay.backlog >= 5
        await apply_topics(bench.connection, [late])
        assert await relay.drained(LIMIT_S)
    assert await bench.published(late.name) == {b"t0": [f"e{n}" for n in range(5)]}
    assert await bench.published() == {b"t0": [f"e{n}" for n in range(5, 10)]}


async def all_there(bench: Bench, count: int, *, copies: bool = False) -> bool:
    """Whether so many different events stand on the topic, or so many records."""
    ids = [one for ids in (await bench.published()).values() for one in ids]
    return len(ids if copies else set(ids)) == count
