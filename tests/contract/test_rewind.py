"""Rewinding a group on a real Kafka: what is told before, and that nothing happens twice after."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from bus.codec import Codec
from bus.rewinding import Move, offsets_of
from contracts.errors import ContractBroken, SupportError
from contracts.events import Event
from contracts.topics import TICKETS
from ops.rewind import Absence, Outlook, Rewinding, Unattended, target_of
from state.rewinds import MemoryRewinds
from tests.contract.worker.bench import Bench, until
from tests.contract.worker.conftest import bench

__all__ = ["bench"]
pytestmark = pytest.mark.kafka

NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)


@dataclass
class Shift:
    """A worker that can be sent away for a moment."""

    bench: Bench
    stack: contextlib.AsyncExitStack

    async def begin(self) -> None:
        await self.stack.enter_async_context(self.bench.worker())

    @contextlib.asynccontextmanager
    async def of(self, group: str) -> AsyncIterator[None]:
        """See `ops.rewind.Absence`."""
        assert group == self.bench.agent.name
        await self.stack.aclose()
        try:
            yield
        finally:
            await self.begin()


@contextlib.asynccontextmanager
async def rewinding(bench: Bench, absence: Absence | None = None) -> AsyncIterator[Rewinding]:
    codec = Codec(timedelta(hours=1))
    async with offsets_of(bench.connection, bench.agent.name, bench.topic.name) as offsets:
        yield Rewinding(
            offsets,
            bench.agent.name,
            bench.topic,
            bench.store,
            bench.stores.leases,
            absence or Unattended(),
            codec,
            MemoryRewinds(),
        )


async def handle(bench: Bench, count: int) -> None:
    """Have a worker handle so many tickets, and go."""
    async with bench.worker():
        for n in range(count):
            await bench.submit(f"t{n}", f"body {n}")
        await until(bench.all_committed)


async def test_a_running_group_set_back_to_the_beginning_does_nothing_twice(bench: Bench) -> None:
    async with contextlib.AsyncExitStack() as stack:
        shift = Shift(bench, stack)
        await shift.begin()
        for n in range(40):
            await bench.submit(f"t{n % 10}", f"body {n}")
        await until(bench.all_committed)
        handled = list(bench.agent.seen)
        async with rewinding(bench, shift) as group:
            rewound, _ = await asyncio.gather(group.done("earliest", by="mia"), bench.submit("new", "under way"))
        assert rewound.moved
        assert rewound.outlook.dropped >= 40
        assert rewound.outlook.skipped == rewound.outlook.unreadable == rewound.outlook.queued == 0

        async def the_new_one_is_answered() -> bool:
            return await bench.replies("new") == ["under way"]

        await until(the_new_one_is_answered)
        await until(bench.all_committed)
    assert [event.id for event in bench.agent.seen[: len(handled)]] == [event.id for event in handled]
    assert len(bench.agent.seen) == len(handled) + 1
    for n in range(10):
        assert await bench.replies(f"t{n}") == [f"body {m}" for m in range(n, 40, 10)]


async def test_what_would_be_handled_again_is_told_and_nothing_is_changed(bench: Bench) -> None:
    async def think(event: Event) -> None:
        if event.ticket_id == "sick":
            raise ContractBroken("cannot be")

    bench.agent.meanwhile = think
    async with bench.worker():
        await bench.submit("well", "hello")
        await bench.submit("sick", "broken")
        await bench.submit("sick", "behind")
        await bench.publisher.put(bench.topic.name, key=b"k", value=b"no json")
        await bench.dead_letters(2)
        await until(bench.all_committed)
    before = await bench.committed()
    await bench.submit("late", "nobody read it")
    async with rewinding(bench) as group:
        told = await group.told("earliest")
        ahead = await group.told("latest")
    assert told.outlook == Outlook(dropped=1, queued=2, unreadable=1)
    assert ahead.outlook == Outlook(skipped=1)
    assert not told.moved
    assert await bench.committed() == before


async def test_one_partition_is_moved_to_an_offset_and_the_others_stay(bench: Bench) -> None:
    await handle(bench, 30)
    before = await bench.committed()
    moved = max(before, key=lambda partition: before[partition])
    async with rewinding(bench) as group:
        rewound = await group.done({moved: 1}, by="mia")
    [move] = rewound.moves
    assert move == Move(moved, 0, before[moved], before[moved], 1)
    assert await bench.committed() == before | {moved: 1}
    [noted] = await group.book.latest(10)
    assert (noted.by, noted.moves, noted.moved_at is not None) == ("mia", {moved: (before[moved], 1)}, True)
    assert rewound.outlook.dropped == before[moved] - 1
    async with bench.worker():
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 30


async def test_a_time_is_the_first_record_written_since(bench: Bench) -> None:
    await handle(bench, 10)
    between = datetime.now(UTC) + timedelta(milliseconds=1)

    async def it_is_past() -> bool:
        return datetime.now(UTC) > between

    await until(it_is_past)
    await handle(bench, 10)
    async with rewinding(bench) as group:
        told = await group.told(between)
        everything = await group.told(between - timedelta(hours=1))
        nothing = await group.told(datetime.now(UTC) + timedelta(hours=1))
    assert (told.outlook.dropped, everything.outlook.dropped, nothing.outlook.dropped) == (10, 20, 0)


async def test_the_beginning_is_where_the_topic_begins_now(bench: Bench) -> None:
    await handle(bench, 20)
    ends = await bench.ends()
    async with bench._admin() as admin:
        await admin.delete_records(
            {TopicPartition(bench.topic.name, p): RecordsToDelete(end - 1) for p, end in ends.items()}
        )
    async with rewinding(bench) as group:
        rewound = await group.done("earliest", by="mia")
        assert rewound.outlook.dropped == len(ends)
        assert {move.partition: move.to for move in rewound.moves if move.ends} == {p: e - 1 for p, e in ends.items()}
        partition = min(ends)
        with pytest.raises(SupportError, match=rf"offset {ends[partition] + 1} lies outside partition {partition} of"):
            await group.told({partition: ends[partition] + 1})
        with pytest.raises(SupportError, match="has no partition 99; it has 0 to 3"):
            await group.told("earliest", [99])


async def test_a_group_with_members_is_not_moved(bench: Bench) -> None:
    async with bench.worker():
        await bench.submit("t1", "hello")
        await until(bench.all_committed)
        before = await bench.committed()
        async with rewinding(bench) as group:
            with pytest.raises(SupportError, match="are in its group; they must leave it first"):
                await group.done("earliest", by="mia")
            assert [noted.moved_at for noted in await group.book.latest(10)] == [None]
        assert await bench.committed() == before


async def test_of_two_rewinds_of_a_group_at_once_one_is_refused(bench: Bench) -> None:
    await handle(bench, 1)

    class Busy:
        """While the first rewind has the workers away, the second one is tried."""

        @contextlib.asynccontextmanager
        async def of(self, group: str) -> AsyncIterator[None]:
            async with rewinding(bench) as other:
                with pytest.raises(SupportError, match="somebody rewinds"):
                    await other.done("earliest", by="mia")
            yield

    async with rewinding(bench, Busy()) as group:
        assert (await group.done("earliest", by="mia")).moved


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0:120,3:40", {0: 120, 3: 40}),
        ("-2h", NOW - timedelta(hours=2)),
        ("2026-11-21T14:00:00Z", NOW - timedelta(minutes=5)),
    ],
)
def test_where_to_is_an_end_offsets_or_a_time(given: str, meant: object) -> None:
    assert target_of(given, TICKETS, now=NOW) == meant


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("2026-11-22T14:05:00Z", "has not come yet; `--to latest`"),
        ("-8d", "keeps 7 days; `--to earliest`"),
        ("0:", "is no time"),
        ("first", "is no time"),
    ],
)
def test_where_nothing_is_to_be_found_is_refused(given: str, complaint: str) -> None:
    with pytest.raises(SupportError, match=complaint):
        target_of(given, TICKETS, now=NOW)
