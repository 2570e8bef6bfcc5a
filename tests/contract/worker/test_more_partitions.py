"""Partitions are added while workers are at it: nothing is lost or done twice, and what order is left is told."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from bus.admin import apply_topics
from bus.batches import partition_of
from bus.consumer import Worker
from bus.publisher import Publisher
from contracts.events import Event
from contracts.topics import Topic
from state.stores import postgres_stores
from tests.contract.backends import until
from tests.contract.worker.bench import FAST, Answering, Bench

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]

SEEN_WITHIN_S = 90.0  # workers look for new partitions every 30 s
TICKETS = 40
FEW_LANES = 8  # so that the old partitions have a backlog when the new ones are found


@dataclass
class Desk:
    """Writes to tickets, and knows what was written in which order, before and after partitions were added."""

    bench: Bench
    pool: asyncpg.Pool
    publisher: Publisher
    written: dict[str, list[str]] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)  # by ticket: how many it had when the writer noticed

    async def write(self, ticket_id: str) -> str:
        said = f"{ticket_id} says {len(self.written.get(ticket_id, ()))}"
        value = json.dumps({"ticket_id": ticket_id, "body": said}).encode()
        await self.publisher.put(self.bench.topic.name, key=ticket_id.encode(), value=value)
        self.written.setdefault(ticket_id, []).append(said)
        return said

    async def add_partitions(self, count: int) -> Topic:
        """Our writer notices only later, as producers do: within five minutes if nobody tells it."""
        more = replace(self.bench.topic, partitions=count)
        [change] = await apply_topics(self.bench.connection, [more])
        assert change.change == "partitions raised"
        return more

    def notices(self, fresh: Publisher) -> None:
        """From here on what is written goes to where its key belongs now."""
        self.publisher = fresh
        self.raised = {ticket_id: len(said) for ticket_id, said in self.written.items()}

    async def answered(self) -> dict[str, list[str]]:
        """What each ticket was answered with, in the order of its rounds."""
        rows = await self.pool.fetch("SELECT ticket_id, state FROM tickets")
        return {row["ticket_id"]: [one["reply"] for one in json.loads(row["state"])["rounds"]] for row in rows}

    async def outcomes(self) -> Counter[str]:
        """How often each reply was sent out."""
        rows = await self.pool.fetch("SELECT value FROM emitted WHERE type = 'TicketResolved'")
        return Counter(json.loads(row["value"])["reply"] for row in rows)

    async def all_is_sent(self) -> bool:
        return (await self.outcomes()).total() >= sum(map(len, self.written.values()))

    async def parked(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM parked_tickets"))

    async def all_is_answered(self) -> bool:
        answered = await self.answered()
        return all(len(answered.get(ticket_id, ())) >= len(said) for ticket_id, said in self.written.items())


@pytest.fixture
async def desk(bench: Bench, pool: asyncpg.Pool) -> Desk:
    bench.stores = postgres_stores(pool)
    return Desk(bench, pool, bench.publisher)


@contextlib.asynccontextmanager
async def workers(bench: Bench, agents: list[Answering], lanes: int) -> AsyncIterator[list[Worker]]:
    options = replace(FAST, lanes=lanes)
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(bench.worker(agent, options)) for agent in agents]


def at_a_pace(longest_s: float) -> Callable[[Event], Awaitable[None]]:
    chance = random.Random(7)

    async def meanwhile(_: Event) -> None:
        await asyncio.sleep(chance.uniform(0, longest_s))

    return meanwhile


async def test_under_load_nothing_is_lost_or_done_twice_and_each_partition_keeps_its_order(desk: Desk) -> None:
    bench = desk.bench
    name, pace = bench.agent.name, at_a_pace(0.2)
    agents = [Answering(name, meanwhile=pace) for _ in range(3)]
    async with workers(bench, agents, FEW_LANES), Publisher(bench.connection) as fresh:

        async def a_new_partition_is_begun() -> bool:
            """Whether a worker has settled something of it; under load until then."""
            for number in range(TICKETS):
                await desk.write(f"t{number}")
            return any(partition >= bench.topic.partitions for partition in await bench.committed())

        for number in range(10 * TICKETS):
            await desk.write(f"t{number % TICKETS}")
        await desk.add_partitions(8)
        for number in range(5 * TICKETS):  # the writer has not noticed yet
            await desk.write(f"t{number % TICKETS}")
        desk.notices(fresh)
        await until(a_new_partition_is_begun, SEEN_WITHIN_S)
        await until(desk.all_is_answered, SEEN_WITHIN_S)
        await until(desk.all_is_sent, SEEN_WITHIN_S)
    answered = await desk.answered()
    assert {ticket_id: sorted(said) for ticket_id, said in answered.items()} == {
        ticket_id: sorted(said) for ticket_id, said in desk.written.items()
    }
    for ticket_id, said in desk.written.items():
        before, after = set(said[: desk.raised[ticket_id]]), set(said[desk.raised[ticket_id] :])
        assert [one for one in answered[ticket_id] if one in before] == said[: len(before)]
        assert [one for one in answered[ticket_id] if one in after] == said[len(before) :]
    assert await desk.outcomes() == Counter({said: 1 for of_ticket in desk.written.values() for said in of_ticket})
    assert not await desk.pool.fetchval("SELECT count(*) FROM outbox") + await desk.parked()


async def test_the_first_on_a_new_partition_may_overtake_the_last_on_the_old_one_and_both_count_once(
    desk: Desk,
) -> None:
    """A lane is of one process, so order holds in it; two workers meet at the ticket's version alone."""
    bench, gate = desk.bench, asyncio.Event()

    async def held(event: Event) -> None:
        if event.data.body == f"{event.ticket_id} says 0":  # type: ignore[attr-defined]
            await gate.wait()

    agents = [Answering(bench.agent.name, meanwhile=held) for _ in range(2)]
    names = [f"t{number}" for number in range(TICKETS)]
    async with workers(bench, agents, 2 * TICKETS), Publisher(bench.connection) as fresh:
        for name in names:
            await desk.write(name)
        more = await desk.add_partitions(7)  # no multiple: whoever has which, some tickets change hands
        desk.notices(fresh)
        moved = [name for name in names if partition_of(name, 4) != partition_of(name, more.partitions)]
        for name in names:
            await desk.write(name)

        async def one_was_overtaken() -> bool:
            return any(await desk.answered())

        await until(one_was_overtaken, SEEN_WITHIN_S)
        gate.set()
        await until(desk.all_is_answered, SEEN_WITHIN_S)
        await until(desk.all_is_sent, SEEN_WITHIN_S)
    answered = await desk.answered()
    assert {name: sorted(said) for name, said in answered.items()} == desk.written
    overtaken = [name for name, said in answered.items() if said != desk.written[name]]
    assert overtaken
    assert {*overtaken} <= {*moved}
    assert await desk.outcomes() == Counter({said: 1 for of_ticket in desk.written.values() for said in of_ticket})


async def test_in_one_worker_a_ticket_keeps_its_order_across_partitions(desk: Desk) -> None:
    """Its lane is the ticket's, whichever partition a record stood in; what comes first is handled first."""
    bench = desk.bench
    gate = asyncio.Event()
    marker = next(name for number in range(1_000) if partition_of(name := f"m{number}", 8) >= 4)

    async def held(event: Event) -> None:
        if event.data.body == f"{event.ticket_id} says 0" and event.ticket_id != marker:  # type: ignore[attr-defined]
            await gate.wait()

    bench.agent.meanwhile = held
    async with workers(bench, [bench.agent], 2 * TICKETS), Publisher(bench.connection) as fresh:
        for number in range(TICKETS):
            await desk.write(f"t{number}")
        await desk.add_partitions(8)
        desk.notices(fresh)
        for number in range(TICKETS):
            await desk.write(f"t{number}")
        await desk.write(marker)

        async def a_new_partition_is_read() -> bool:
            return bool(await desk.answered())

        await until(a_new_partition_is_read, SEEN_WITHIN_S)
        gate.set()
        await until(desk.all_is_answered, SEEN_WITHIN_S)
        await until(desk.all_is_sent, SEEN_WITHIN_S)
    assert await desk.answered() == desk.written
