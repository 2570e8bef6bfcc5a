"""Rewinding a group on either broker: its workers leave and return, what is told before, and nothing happens twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.consumer import Worker
from bus.rewinding import Move, offsets_of
from contracts.control import Mode, Presence
from contracts.errors import ContractBroken, SupportError
from contracts.events import Event, Pause
from contracts.letters import Act, Job
from contracts.ports import absence_lease
from contracts.topics import TICKETS
from ops.service.absence import SentAway
from ops.service.exclusion import job_lease
from ops.service.rewind import Outlook, Rewinding, target_of
from state.memory_letters import MemoryLetterBook
from state.memory_parking import MemoryParking
from state.rewinds import MemoryRewinds
from tests.contract.worker.bench import FAST, Bench, until
from tests.contract.worker.conftest import bench_on

NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)


@pytest.fixture
async def bench(connection: KafkaConnection) -> AsyncIterator[Bench]:
    async with bench_on(connection) as bench:
        yield bench


@contextlib.asynccontextmanager
async def rewinding(bench: Bench, *, limit_s: float = 20.0) -> AsyncIterator[Rewinding]:
    stores, group = bench.stores, bench.agent.name
    assert isinstance(stores.parking, MemoryParking)
    async with offsets_of(bench.connection, group, bench.topic.name) as offsets:
        yield Rewinding(
            offsets=offsets,
            group=group,
            topic=bench.topic,
            tickets=bench.store,
            leases=stores.leases,
            absence=SentAway(stores.controls, stores.leases, bench.connection, {group: bench.topic}, limit_s),
            codec=Codec(timedelta(hours=1)),
            book=MemoryRewinds(),
            letters=MemoryLetterBook(stores.parking),
        )


async def handle(bench: Bench, count: int) -> None:
    """Have a worker handle so many tickets, and go."""
    async with bench.worker():
        for n in range(count):
            await bench.submit(f"t{n}", f"body {n}")
        await until(bench.all_committed)


async def until_in(worker: Worker, mode: Mode) -> None:
    async def is_in() -> bool:
        return worker.presence().mode is mode

    await until(is_in)


async def test_a_running_group_set_back_to_the_beginning_does_nothing_twice(bench: Bench) -> None:
    async with bench.worker(options=replace(FAST, name="a")), bench.worker(options=replace(FAST, name="b")):
        for n in range(40):
            await bench.submit(f"t{n % 10}", f"body {n}")
        await until(bench.all_committed)
        handled = list(bench.agent.seen)
        async with rewinding(bench) as group:
            rewound, _ = await asyncio.gather(group.done("earliest", by="mia"), bench.submit("new", "under way"))
        assert (rewound.moved, rewound.workers) == (True, ["a", "b"])
        assert rewound.outlook.dropped >= 40
        assert rewound.outlook.skipped == rewound.outlook.unreadable == rewound.outlook.queued == 0
        assert sum(move.now for move in rewound.moves) >= 40
        assert {move.to for move in rewound.moves} == {0}

        async def the_new_one_is_answered() -> bool:
            return await bench.replies("new") == ["under way"]

        await until(the_new_one_is_answered)
        await until(bench.all_committed)
    assert [event.id for event in bench.agent.seen[: len(handled)]] == [event.id for event in handled]
    assert len(bench.agent.seen) == len(handled) + 1
    for n in range(10):
        assert await bench.replies(f"t{n}") == [f"body {m}" for m in range(n, 40, 10)]


async def test_what_is_in_flight_is_finished_first_and_who_starts_meanwhile_stays_out(bench: Bench) -> None:
    release = asyncio.Event()

    async def think(_event: Event) -> None:
        await release.wait()

    bench.agent.meanwhile = think
    async with bench.worker(options=replace(FAST, name="a")) as first, rewinding(bench) as group:
        await bench.submit("t1", "hello")

        async def begun() -> bool:
            return len(bench.agent.seen) == 1

        await until(begun)
        moving = asyncio.create_task(group.done("earliest", by="mia"))
        await until_in(first, Mode.DRAINING)
        async with bench.worker(options=replace(FAST, name="b")) as second:
            assert second.presence().mode is Mode.DRAINED
            release.set()
            rewound = await moving
            assert [(move.now, move.to) for move in rewound.moves if move.now] == [(1, 0)]
            await until_in(first, Mode.RUNNING)
            await until_in(second, Mode.RUNNING)
            await bench.submit("t2", "hello")
            await until(bench.all_committed)
    assert len(bench.agent.seen) == 2


async def test_who_was_paused_before_is_paused_afterwards(bench: Bench) -> None:
    await handle(bench, 3)
    order = Pause(command_id="c1", group=bench.agent.name, worker="a", by="ada")
    await bench.stores.controls.give(order)
    async with (
        bench.worker(options=replace(FAST, name="a")) as paused,
        bench.worker(options=replace(FAST, name="b")) as other,
        rewinding(bench) as group,
    ):
        assert (await group.done("earliest", by="mia")).moved
        await until_in(other, Mode.RUNNING)
        await until_in(paused, Mode.PAUSED)


async def test_workers_return_by_themselves_when_whoever_sent_them_away_was_killed(bench: Bench) -> None:
    async with bench.worker(options=replace(FAST, name="a")) as worker:
        await bench.stores.leases.hold(absence_lease(bench.agent.name), "mia/killed", lease_s=4)
        await until_in(worker, Mode.DRAINED)
        await bench.submit("t1", "hello")
        assert bench.agent.seen == []
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 1


async def test_a_worker_that_does_not_leave_is_named_and_nothing_is_moved(bench: Bench) -> None:
    """It hangs, and nobody has noticed yet."""
    async with bench.worker(options=replace(FAST, name="a")) as worker:
        await bench.submit("t1", "hello")
        await until(bench.all_committed)
        before = await bench.committed()
        async with rewinding(bench, limit_s=4.0) as group:
            ghost = Presence("ghost", group.group, "v1", "host", 1, Mode.RUNNING, 256, 7, 7, 0.0)
            await bench.stores.controls.report(ghost)
            with pytest.raises(SupportError, match=r"did not leave the group within 4 s: ghost \(running, 7 in flight"):
                await group.done("earliest", by="mia")
            assert await group.book.latest(10) == []
        await until_in(worker, Mode.RUNNING)
        assert await bench.committed() == before


async def test_a_member_that_is_no_worker_is_named_and_nothing_is_moved(bench: Bench) -> None:
    await handle(bench, 1)
    before = await bench.committed()
    stranger = AIOKafkaConsumer(
        bench.topic.name, **bench.connection.client_options(), group_id=bench.agent.name, enable_auto_commit=False
    )
    await stranger.start()
    try:
        async with rewinding(bench, limit_s=1.0) as group:
            with pytest.raises(SupportError, match=r"did not leave the group within 1 s: .* on .*; nothing was moved"):
                await group.done("earliest", by="mia")
    finally:
        await stranger.stop()
    assert await bench.committed() == before


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


async def test_of_two_rewinds_of_a_group_at_once_one_is_refused_and_names_the_other(bench: Bench) -> None:
    release = asyncio.Event()

    async def think(_event: Event) -> None:
        await release.wait()

    bench.agent.meanwhile = think
    async with (
        bench.worker(options=replace(FAST, name="a")) as worker,
        rewinding(bench) as one,
        rewinding(bench) as two,
    ):
        await bench.submit("t1", "hello")

        async def begun() -> bool:
            return len(bench.agent.seen) == 1

        await until(begun)
        first = asyncio.create_task(one.done("earliest", by="mia"))
        await until_in(worker, Mode.DRAINING)
        with pytest.raises(SupportError, match=r"mia rewinds .* at this moment; try again once that is done"):
            await two.done("latest", by="bo")
        release.set()
        assert (await first).moved
        assert (await two.done("latest", by="bo")).moved


async def test_a_group_whose_letters_somebody_redrives_is_not_rewound(bench: Bench) -> None:
    await handle(bench, 1)
    async with rewinding(bench) as group:
        await group.letters.begin(Job("j1", Act.REDRIVE, bench.agent.name, "bo", "mended", 100.0), [])
        lease = job_lease(group.leases, "j1")
        assert await lease.held()
        with pytest.raises(SupportError, match=r"bo redrives .* or end it with `switchyard dlt cancel j1`"):
            await group.done("earliest", by="mia")
        await lease.give_back()  # interrupted: nobody works on it, and it can be resumed afterwards
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
