"""The relay on stores in memory; `Wire` stands for Kafka."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from bus.publisher import Sent
from bus.relay import Relay
from contracts.errors import BusUnavailable, ContractBroken, StoreUnavailable
from contracts.ports import (
    OutgoingRecord,
    Position,
    Published,
    Stored,
    StoredRecord,
    Stores,
    worker_lease,
)
from state.stores import memory_stores
from tests.contract.samples import must_settle, new_ticket, record, settlement
from tests.unit.bus.kit import until

BRIEF_S = 0.25  # a lease that a test can outlast


@dataclass
class Wire:
    """What was acknowledged, in order. A call is held while `open` is clear; the test says what fails, and how."""

    sent: list[str] = field(default_factory=list)  # event ids
    open: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: set[str] = field(default_factory=set)  # topics whose calls end only when `loose` is set, and fail then
    loose: asyncio.Event = field(default_factory=asyncio.Event)
    refused: set[str] = field(default_factory=set)  # event ids
    failures: Counter[str] = field(default_factory=Counter)  # how often calls with this event id are still to fail
    stripes: int | None = 4

    def __post_init__(self) -> None:
        self.open.set()

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> list[Sent]:
        self.held.set()
        await self.open.wait()
        if any(record.topic in self.stuck for record in records):
            await self.loose.wait()
        if failing := [record.event_id for record in records if self.failures[record.event_id]]:
            self.failures.subtract(failing)
            return [BusUnavailable("down")] * len(records)
        return [self._publish(record) for record in records]

    def stripe(self, topic: str, ticket_id: str) -> int | None:
        return None if self.stripes is None else hash(ticket_id) % self.stripes

    def _publish(self, record: OutgoingRecord) -> Sent:
        if record.topic in self.stuck:
            return BusUnavailable("down")
        if record.event_id in self.refused:
            return ContractBroken("too large")
        self.sent.append(record.event_id)
        return Position(record.topic, 0, len(self.sent))


@dataclass
class Weather:
    """An outbox whose answers may fail or come late; what was asked is done all the same."""

    stores: Stores
    lost_take_overs: int = 0
    marks: int = 0  # statements that reached the store
    away: bool = False
    late: asyncio.Event = field(default_factory=asyncio.Event)  # clear: take-overs are done, their answers wait
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.late.set()

    async def mark_published(self, published: Sequence[Published]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.marks += 1
        await self.stores.outbox.mark_published(published)

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        rows = await self.stores.outbox.take_over(owner, limit=limit)
        if rows and not self.late.is_set():
            self.waiting.set()
            await self.late.wait()
        if rows and self.lost_take_overs:
            self.lost_take_overs -= 1
            raise StoreUnavailable("the answer got lost")
        return rows


@dataclass
class Bench:
    stores: Stores = field(default_factory=memory_stores)
    wire: Wire = field(default_factory=Wire)
    steps: Counter[str] = field(default_factory=Counter)
    lease_s: float = 30.0

    def __post_init__(self) -> None:
        self.outbox = Weather(self.stores)
        self.relay = Relay(
            self.outbox,
            self.stores.leases,
            self.wire,
            "w",
            lease_s=self.lease_s,
            renew_s=0.02,
            sweep_s=0.02,
            mark_s=0.001,
        )

    async def store(
        self, owner: str, *event_ids: str, ticket_id: str = "t1", topic: str = "orders"
    ) -> Sequence[StoredRecord]:
        """One more step of the ticket, which emits these events; returns the rows that are the owner's."""
        ticket = await self.stores.tickets.load(ticket_id) or new_ticket(ticket_id)
        self.steps[ticket_id] += 1
        outgoing = [record(event_id, ticket_id, topic=topic) for event_id in event_ids]
        step = settlement(ticket, f"{ticket_id}-step-{self.steps[ticket_id]}", outgoing=outgoing)
        stored: Stored = await must_settle(self.stores.tickets, step, owner)
        return stored.records

    async def put(self, *event_ids: str, ticket_id: str = "t1", topic: str = "orders") -> None:
        owner = self.relay.owner
        self.relay.put(await self.store(owner, *event_ids, ticket_id=ticket_id, topic=topic), owner)

    async def left_in_outbox(self) -> list[str]:
        """What is unpublished once every worker is gone."""
        assert await self.stores.leases.hold(worker_lease("heir"), "heir", lease_s=60)
        return [row.record.event_id for row in await self.stores.outbox.take_over("heir", limit=1000)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def brief() -> Bench:
    return Bench(lease_s=BRIEF_S)


@contextlib.asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def test_rows_are_published_in_order_and_marked(bench: Bench) -> None:
    async with running(bench.relay):
        for n in range(20):
            await bench.put(f"a{n}", f"b{n}")
        assert await bench.relay.drained(5)
    assert bench.wire.sent == [f"{one}{n}" for n in range(20) for one in "ab"]
    assert bench.relay.backlog == 0
    assert await bench.left_in_outbox() == []


async def test_rows_put_before_it_runs_are_published(bench: Bench) -> None:
    await bench.put("a")
    async with running(bench.relay):
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["a"]


async def test_what_failed_goes_first_again(bench: Bench) -> None:
    """A relay that queues a failed record behind those that came meanwhile reorders its ticket."""
    bench.wire.failures["a"] = 3
    bench.wire.open.clear()
    async with running(bench.relay):
        await bench.put("a")
        await bench.wire.held.wait()
        await bench.put("b", "c")
        bench.wire.open.set()
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["a", "b", "c"]


async def test_a_topic_that_cannot_be_written_holds_up_no_other(bench: Bench) -> None:
    bench.wire.stuck = {"orders"}
    async with running(bench.relay):
        await bench.put("a", topic="orders")
        await bench.put("b", topic="replies")
        await until(lambda: bench.wire.sent == ["b"])
        assert not await bench.relay.drained(0.05)
        bench.wire.loose.set()
        bench.wire.stuck = set()
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["b", "a"]


async def test_a_record_refused_for_good_stays_in_the_outbox_and_holds_up_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.wire.refused = {"b"}
    async with running(bench.relay):
        await bench.put("a", "b", "c")
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["a", "c"]
    assert await bench.left_in_outbox() == ["b"]
    assert [entry.levelname for entry in caplog.records if "cannot be published" in entry.message] == ["ERROR"]


async def test_marking_waits_out_an_outage_and_delays_no_record(bench: Bench) -> None:
    async with running(bench.relay):
        bench.outbox.away = True
        await bench.put("a")
        await until(lambda: bench.wire.sent == ["a"])
        await bench.put("b")
        await until(lambda: bench.wire.sent == ["a", "b"])
        assert bench.relay.backlog == 2
        bench.outbox.away = False
        assert await bench.relay.drained(5)
    assert await bench.left_in_outbox() == []


async def test_rows_acknowledged_together_are_marked_in_one_statement(bench: Bench) -> None:
    bench.wire.open.clear()
    async with running(bench.relay):
        for n in range(50):
            await bench.put(f"a{n}", ticket_id=f"t{n}")
        bench.wire.open.set()
        assert await bench.relay.drained(5)
    assert len(bench.wire.sent) == 50
    assert bench.outbox.marks <= 2


async def test_a_row_that_is_told_twice_is_published_once(bench: Bench) -> None:
    """The store tells a settlement's rows again when its first answer got lost."""
    rows = await bench.store("w", "a", "b")
    bench.wire.open.clear()
    async with running(bench.relay):
        bench.relay.put(rows, "w")
        await bench.wire.held.wait()
        bench.relay.put(rows, "w")
        bench.wire.open.set()
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["a", "b"]


async def test_a_ticket_stays_in_order_while_its_topic_becomes_known(bench: Bench) -> None:
    """Its first rows wait for the topic's partitions; those that come once these are known go behind."""
    bench.wire.stripes = None
    bench.wire.failures["a"] = 1
    bench.wire.open.clear()
    async with running(bench.relay):
        await bench.put("a")
        await bench.wire.held.wait()
        bench.wire.stripes = 4
        await bench.put("b")
        bench.wire.open.set()
        assert await bench.relay.drained(5)
    assert bench.wire.sent == ["a", "b"]


async def test_what_a_dead_worker_left_is_published(bench: Bench) -> None:
    await bench.stores.leases.hold(worker_lease("dead"), "dead", lease_s=0.1)
    await bench.store("dead", "a", "b")
    async with running(bench.relay):
        await until(lambda: bench.wire.sent == ["a", "b"])
        assert await bench.relay.drained(5)


async def test_a_clean_stop_leaves_what_is_unpublished_to_others_at_once(bench: Bench) -> None:
    bench.wire.stuck = {"orders"}
    async with running(bench.relay):
        await bench.put("a")
        await bench.put("b", topic="replies")
        await until(lambda: bench.wire.sent == ["b"])
    assert await bench.left_in_outbox() == ["a"]


async def frozen_with_a_row_on_its_way(brief: Bench, ticket_id: str = "t1") -> None:
    """Holds b and c, b being on its way, and is frozen for longer than its lease."""
    brief.wire.open.clear()
    await brief.put("b", ticket_id=ticket_id)
    await brief.wire.held.wait()
    await brief.put("c", ticket_id=ticket_id)
    time.sleep(BRIEF_S * 1.5)  # noqa: ASYNC251 - nothing of the process runs, as under SIGSTOP


async def test_rows_that_were_taken_over_during_a_freeze_are_forgotten(brief: Bench) -> None:
    """A stale owner that goes on publishes behind its heir's back, when the ticket may be further on."""
    async with running(brief.relay):
        await frozen_with_a_row_on_its_way(brief)
        assert await brief.left_in_outbox() == ["b", "c"]
        brief.wire.open.set()
        await until(lambda: brief.relay.owner != "w")
        await brief.put("d", ticket_id="t2")
        await until(lambda: "d" in brief.wire.sent)
    assert brief.wire.sent == ["b", "d"]


async def test_rows_that_nobody_took_during_a_freeze_are_taken_anew(brief: Bench) -> None:
    async with running(brief.relay):
        await frozen_with_a_row_on_its_way(brief)
        brief.wire.open.set()
        await until(lambda: "c" in brief.wire.sent)
        assert await brief.relay.drained(5)
    assert list(dict.fromkeys(brief.wire.sent)) == ["b", "c"]
    assert await brief.left_in_outbox() == []


async def test_rows_stored_under_a_name_that_was_given_up_are_left_to_others(brief: Bench) -> None:
    """The answer of the store comes after the relay woke up; its ticket's earlier rows are in other hands by now."""
    async with running(brief.relay):
        late = await brief.store("w", "a")
        await frozen_with_a_row_on_its_way(brief, "t2")
        assert await brief.left_in_outbox() == ["a", "b", "c"]
        brief.wire.open.set()
        await until(lambda: brief.relay.owner != "w")
        brief.relay.put(late, "w")
        await brief.put("d", ticket_id="t3")
        await until(lambda: "d" in brief.wire.sent)
        assert await brief.relay.drained(5)
    assert "a" not in brief.wire.sent


async def test_a_step_stored_during_a_take_over_does_not_overtake_what_that_brings(bench: Bench) -> None:
    """Taken over under the name steps are stored by, its ticket's next record could go out before the answer is in."""
    await bench.stores.leases.hold(worker_lease("dead"), "dead", lease_s=0.001)
    await bench.store("dead", "a")
    bench.outbox.late.clear()
    async with running(bench.relay):
        await bench.outbox.waiting.wait()
        await bench.put("b")
        await bench.put("c", ticket_id="t2")
        await until(lambda: "c" in bench.wire.sent)
        bench.outbox.late.set()
        await until(lambda: "b" in bench.wire.sent)
    assert bench.wire.sent == ["c", "a", "b"]


async def test_rows_of_a_take_over_whose_answer_got_lost_are_published(brief: Bench) -> None:
    """They are in the hands of a living worker that knows nothing of them."""
    await brief.stores.leases.hold(worker_lease("dead"), "dead", lease_s=0.001)
    await brief.store("dead", "a")
    brief.outbox.lost_take_overs = 1
    async with running(brief.relay):
        await until(lambda: brief.wire.sent == ["a"])
