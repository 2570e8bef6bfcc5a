"""What every parking promises; and what PostgreSQL must do when two meet at the same ticket."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg
import pytest

from contracts.errors import ContractBroken, StoreUnavailable
from contracts.ports import ParkedRecord, Record
from state.memory_parking import MemoryParking
from state.postgres_parking import PostgresParking
from tests.contract.backends import migrated_pool, until, until_one_waits
from tests.contract.cable import cable_to

Parking = MemoryParking | PostgresParking
GROUP = "triage"
SOON_S = 1000.0  # a horizon in which everything that has a due time falls due


def record(offset: int, ticket_id: str = "t1", *, timestamp: int = 1_700_000_000_000) -> Record:
    return Record(
        topic="support.tickets.v1",
        partition=3,
        offset=offset,
        timestamp=timestamp,
        key=ticket_id.encode(),
        value=f"record {offset}".encode(),
        headers=(("ce_id", f"e{offset}".encode()),),
    )


async def park(parking: Parking, offset: int = 10, ticket_id: str = "t1", *, wait_s: float = 0) -> ParkedRecord:
    """Park a ticket behind its record at that offset; returns what is first in its queue now."""
    await parking.park(GROUP, ticket_id, record(offset, ticket_id), wait_s=wait_s, attempts=1, error="no luck")
    [first] = [one for one in await due(parking) if one.ticket_id == ticket_id]
    return first


async def queue(parking: Parking, *offsets: int, ticket_id: str = "t1") -> Sequence[bool]:
    return await parking.queue(GROUP, [(ticket_id, record(offset, ticket_id)) for offset in offsets])


async def due(parking: Parking, *, within_s: float = SOON_S, limit: int = 1000) -> Sequence[ParkedRecord]:
    return await parking.due(GROUP, within_s=within_s, limit=limit)


async def drain(parking: Parking, ticket_id: str = "t1") -> list[int]:
    """Release a ticket's records one after the other; returns their offsets."""
    [first, *_] = [one for one in await due(parking) if one.ticket_id == ticket_id] or [None]
    offsets = []
    while first is not None:
        offsets.append(first.record.offset)
        first = await parking.release(GROUP, ticket_id, first.parked_id)
    return offsets


class ParkingContract:
    async def test_a_ticket_is_parked_until_its_record_is_released(self, parking: Parking) -> None:
        assert await queue(parking, 11) == [False]
        first = await park(parking)
        assert (first.ticket_id, first.record, first.attempts) == ("t1", record(10), 1)
        assert await queue(parking, 11) == [True]
        following = await parking.release(GROUP, "t1", first.parked_id)
        assert following is not None
        assert await parking.release(GROUP, "t1", following.parked_id) is None
        assert await queue(parking, 12) == [False]
        assert await due(parking) == []

    @pytest.mark.parametrize(
        "odd",
        [
            Record("t", 0, 0, -1, None, None),
            Record("t", 0, 2**62, 0, b"", b"", (), 1),
            Record("t", 2**31 - 1, 1, 2**62, b"\x00\xff", b"\xf0\x28\x00" * 1000, (("", b""), ("n\0ul\x7fü", b"\0"))),
            Record("t", 0, 1, 1, b"k", b"v", (("twice", b"1"), ("twice", None), ("twice", b"\xff\xfe"))),
        ],
    )
    async def test_a_record_comes_back_byte_for_byte(self, parking: Parking, odd: Record) -> None:
        await parking.park(GROUP, "t1", odd, wait_s=0, attempts=1, error="")
        await park(parking, ticket_id="t2")
        await parking.queue(GROUP, [("t2", odd), ("t2", odd)])
        first, second = await due(parking)
        assert first.record == odd
        follower = await parking.release(GROUP, "t2", second.parked_id)
        assert follower is not None
        assert follower.record == odd

    async def test_it_falls_due_after_its_wait_and_not_before(self, parking: Parking) -> None:
        first = await park(parking, wait_s=30)
        assert 25 < first.due_in_s <= 30
        assert await due(parking, within_s=20) == []
        await park(parking, wait_s=0.2)
        assert await due(parking, within_s=0) == []

        async def is_due() -> bool:
            return bool(await due(parking, within_s=0))

        await until(is_due)
        assert (await due(parking))[0].due_in_s <= 0

    async def test_those_due_first_come_first_and_no_more_than_asked_for(self, parking: Parking) -> None:
        for ticket_id, wait_s in {"t1": 30, "t2": 10, "t3": 20}.items():
            await park(parking, ticket_id=ticket_id, wait_s=wait_s)
        assert [one.ticket_id for one in await due(parking)] == ["t2", "t3", "t1"]
        assert [one.ticket_id for one in await due(parking, limit=2)] == ["t2", "t3"]
        assert [one.ticket_id for one in await due(parking, within_s=25)] == ["t2", "t3"]

    async def test_those_in_hand_make_room_for_others(self, parking: Parking) -> None:
        in_hand = [(await park(parking, ticket_id=ticket_id)).parked_id for ticket_id in ("t1", "t2")]
        await park(parking, ticket_id="t3")
        others = await parking.due(GROUP, within_s=SOON_S, limit=1, besides=in_hand)
        assert [one.ticket_id for one in others] == ["t3"]

    async def test_parked_again_the_first_record_stays_first_with_a_new_due_time(self, parking: Parking) -> None:
        first = await park(parking)
        await queue(parking, 11)
        await parking.park(GROUP, "t1", record(10), wait_s=30, attempts=2, error="still no luck")
        [again] = await due(parking)
        assert (again.parked_id, again.record, again.attempts) == (first.parked_id, record(10), 2)
        assert 25 < again.due_in_s <= 30
        assert await drain(parking) == [10, 11]

    async def test_attempts_never_go_back(self, parking: Parking) -> None:
        await parking.park(GROUP, "t1", record(10), wait_s=0, attempts=4, error="")
        await parking.park(GROUP, "t1", record(10), wait_s=0, attempts=1, error="from a worker long gone")
        assert [one.attempts for one in await due(parking)] == [4]

    async def test_a_record_that_is_not_the_first_one_waits_behind_it_when_parked(self, parking: Parking) -> None:
        first = await park(parking, wait_s=30)
        await queue(parking, 11)
        await parking.park(GROUP, "t1", record(12), wait_s=0, attempts=1, error="")
        await parking.block(GROUP, "t1", record(13), attempts=1, error="")
        await parking.park(GROUP, "t1", record(11), wait_s=0, attempts=1, error="")
        assert [one.parked_id for one in await due(parking)] == [first.parked_id]
        assert await drain(parking) == [10, 11, 12, 13]

    async def test_groups_and_tickets_have_queues_of_their_own(self, parking: Parking) -> None:
        await park(parking)
        assert await parking.queue("lookup", [("t1", record(11))]) == [False]
        assert await queue(parking, 11, ticket_id="t2") == [False]
        assert await parking.due("lookup", within_s=SOON_S, limit=10) == []
        await parking.park("lookup", "t1", record(10), wait_s=0, attempts=7, error="")
        assert [one.attempts for one in await due(parking)] == [1]
        assert await drain(parking) == [10]
        assert await parking.queue("lookup", [("t1", record(11))]) == [True]

    async def test_followers_keep_their_order_between_tickets_parked_and_not(self, parking: Parking) -> None:
        for ticket_id in ("t1", "t3"):
            await park(parking, ticket_id=ticket_id)
        followers = [(f"t{n % 4}", record(100 + n, f"t{n % 4}")) for n in range(200)]
        assert await parking.queue(GROUP, followers) == [ticket_id in ("t1", "t3") for ticket_id, _ in followers]
        assert await drain(parking, "t1") == [10, *range(101, 300, 4)]
        assert await drain(parking, "t3") == [10, *range(103, 300, 4)]
        assert await parking.queue(GROUP, []) == []

    async def test_what_comes_again_after_a_rebalance_is_queued_once(self, parking: Parking) -> None:
        await park(parking)
        assert await queue(parking, 11, 12) == [True, True]
        assert await queue(parking, 10, 11, 12, 13, 13) == [True] * 5
        assert await drain(parking) == [10, 11, 12, 13]

    async def test_the_same_offset_of_a_topic_created_anew_is_another_record(self, parking: Parking) -> None:
        await park(parking)
        later = record(10, timestamp=1_800_000_000_000)
        assert await parking.queue(GROUP, [("t1", later), ("t1", later)]) == [True, True]
        assert await drain(parking) == [10, 10]

    async def test_the_same_offset_of_another_topic_is_another_record(self, parking: Parking) -> None:
        """One key in two topics was one shard, and its records were taken for each other
        (confluentinc/parallel-consumer#184)."""
        await park(parking)
        elsewhere = [replace(record(10), topic="support.replies.v1"), replace(record(10), partition=4)]
        assert await parking.queue(GROUP, [("t1", one) for one in (*elsewhere, *elsewhere)]) == [True] * 4
        assert await drain(parking) == [10, 10, 10]

    async def test_a_dead_letter_holds_its_ticket_and_is_never_due(self, parking: Parking) -> None:
        await parking.block(GROUP, "t1", record(10), attempts=3, error="poison")
        await parking.block(GROUP, "t1", record(10), attempts=3, error="poison")
        assert await queue(parking, 11) == [True]
        assert await due(parking) == []

    async def test_a_record_that_was_tried_again_in_vain_is_due_no_more(self, parking: Parking) -> None:
        first = await park(parking)
        await parking.block(GROUP, "t1", record(10), attempts=2, error="poison")
        assert await due(parking) == []
        await parking.park(GROUP, "t1", record(10), wait_s=0, attempts=1, error="from a worker long gone")
        assert await due(parking) == []
        await queue(parking, 11)
        following = await parking.release(GROUP, "t1", first.parked_id)
        assert following is not None
        assert following.record.offset == 11

    async def test_what_moves_up_is_due_at_once_with_no_attempt_spent(self, parking: Parking) -> None:
        first = await park(parking, wait_s=30)
        await queue(parking, 11)
        following = await parking.release(GROUP, "t1", first.parked_id)
        assert following is not None
        assert following.due_in_s <= 0
        assert (following.ticket_id, following.record, following.attempts) == ("t1", record(11), 0)
        [found] = await due(parking, within_s=0)
        assert found.parked_id == following.parked_id

    async def test_a_release_said_twice_drops_one_record(self, parking: Parking) -> None:
        first = await park(parking)
        await queue(parking, 11, 12)
        following = await parking.release(GROUP, "t1", first.parked_id)
        assert following is not None
        await parking.park(GROUP, "t1", record(11), wait_s=30, attempts=1, error="")
        again = await parking.release(GROUP, "t1", first.parked_id)
        assert again is not None
        assert (again.parked_id, again.attempts) == (following.parked_id, 1)
        assert 25 < again.due_in_s <= 30
        await parking.block(GROUP, "t1", record(11), attempts=2, error="")
        assert await parking.release(GROUP, "t1", first.parked_id) is None
        assert await queue(parking, 13) == [True]

    async def test_a_release_of_a_ticket_that_is_not_parked_does_nothing(self, parking: Parking) -> None:
        first = await park(parking)
        await parking.release(GROUP, "t1", first.parked_id)
        assert await parking.release(GROUP, "t1", first.parked_id) is None
        second = await park(parking, 11)
        assert await parking.release(GROUP, "t1", first.parked_id) is not None
        assert await parking.release(GROUP, "t1", second.parked_id) is None

    async def test_settled_but_not_released_it_is_due_again(self, parking: Parking) -> None:
        """A worker may die between the two: whoever resumes the record finds it handled, and releases it."""
        first = await park(parking)
        await queue(parking, 11)
        [again] = await due(parking)
        assert again.parked_id == first.parked_id
        assert await drain(parking) == [10, 11]

    async def test_an_error_may_say_anything(self, parking: Parking) -> None:
        await parking.park(GROUP, "t1", record(10), wait_s=0, attempts=1, error="nul \0, half \ud800" + "x" * 100_000)
        assert len(await due(parking)) == 1

    async def test_of_two_schedulers_that_release_the_same_records_none_skips_one(self, parking: Parking) -> None:
        """A zombie and the new holder of the lease release what both have settled."""
        await park(parking)
        await queue(parking, *range(11, 40))
        seen: set[int] = set()

        async def work() -> None:
            while found := await due(parking):
                await asyncio.sleep(0)
                seen.add(found[0].record.offset)
                await parking.release(GROUP, "t1", found[0].parked_id)

        await asyncio.gather(work(), work())
        assert seen == set(range(10, 40))

    async def test_nothing_is_lost_between_those_who_queue_and_those_who_release(self, parking: Parking) -> None:
        """Whatever meets: a record is handled by who holds it or waits in its ticket's queue, in order, once."""
        tickets = [f"t{n}" for n in range(4)]
        handled: dict[str, list[int]] = {ticket_id: [] for ticket_id in tickets}
        finished = asyncio.Event()

        async def feed() -> None:
            rng = random.Random(7)
            for offset in range(60):
                answers = await parking.queue(GROUP, [(t, record(offset, t)) for t in tickets])
                for ticket_id, parked in zip(tickets, answers, strict=True):
                    if not parked and rng.random() < 0.7:
                        await parking.park(GROUP, ticket_id, record(offset, ticket_id), wait_s=0, attempts=1, error="")
                    elif not parked:
                        handled[ticket_id].append(offset)
            finished.set()

        async def resume() -> None:
            while (found := await due(parking)) or not finished.is_set():
                for one in found:
                    handled[one.ticket_id].append(one.record.offset)
                    await parking.release(GROUP, one.ticket_id, one.parked_id)
                await asyncio.sleep(0)

        await asyncio.gather(feed(), resume())
        assert handled == {ticket_id: list(range(60)) for ticket_id in tickets}


class TestInMemory(ParkingContract):
    @pytest.fixture
    def parking(self) -> MemoryParking:
        return MemoryParking()

    async def test_it_tells_which_tickets_are_parked(self, parking: MemoryParking) -> None:
        first = await park(parking)
        await parking.block(GROUP, "t2", record(11, "t2"), attempts=1, error="")
        assert parking.parked_of(GROUP) == {"t1", "t2"}
        assert parking.parked_of("lookup") == set()
        await parking.release(GROUP, "t1", first.parked_id)
        assert parking.parked_of(GROUP) == {"t2"}


@pytest.mark.postgres
class TestOnPostgres(ParkingContract):
    @pytest.fixture
    def parking(self, pool: asyncpg.Pool) -> PostgresParking:
        return PostgresParking(pool)

    @pytest.fixture
    async def other(self, postgres_dsn: str, pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
        """A session of somebody who takes their time."""
        connection = await asyncpg.connect(postgres_dsn)
        yield connection
        await connection.close()

    async def test_a_record_that_joins_while_the_queue_is_emptied_moves_up(
        self, parking: PostgresParking, other: asyncpg.Connection
    ) -> None:
        first = await park(parking)
        async with other.transaction():
            await other.execute("SELECT FROM parked_tickets FOR UPDATE")
            await _insert_follower(other, 11)
            release = asyncio.create_task(parking.release(GROUP, "t1", first.parked_id))
            async with parking.pool.acquire() as watching:
                await until_one_waits(watching)
        following = await release
        assert following is not None
        assert following.record.offset == 11
        assert await drain(parking) == [11]

    async def test_a_record_that_comes_while_the_queue_is_emptied_is_the_callers(
        self, parking: PostgresParking, other: asyncpg.Connection
    ) -> None:
        await park(parking)
        async with other.transaction():
            await other.execute("DELETE FROM parked_tickets")
            queueing = asyncio.create_task(queue(parking, 11, 12))
            async with parking.pool.acquire() as watching:
                await until_one_waits(watching)
        assert await queueing == [False, False]
        assert await due(parking) == []

    async def test_a_record_that_is_parked_while_the_queue_is_emptied_is_parked_anew(
        self, parking: PostgresParking, other: asyncpg.Connection
    ) -> None:
        await park(parking)
        async with other.transaction():
            await other.execute("DELETE FROM parked_tickets")
            parked = asyncio.create_task(park(parking, 11))
            async with parking.pool.acquire() as watching:
                await until_one_waits(watching)
        assert (await parked).record.offset == 11

    async def test_a_release_that_comes_late_leaves_the_queue_as_others_left_it(
        self, parking: PostgresParking, other: asyncpg.Connection
    ) -> None:
        """A zombie's: what it saw waiting has moved up and gone by the time it has the lock."""
        first = await park(parking)
        await queue(parking, 11, 12)
        async with other.transaction():
            await other.execute(
                "UPDATE parked_tickets SET parked_id = later.parked_id, kafka_offset = 12"
                " FROM parked_records AS later WHERE later.kafka_offset = 12"
            )
            await other.execute("DELETE FROM parked_records")
            release = asyncio.create_task(parking.release(GROUP, "t1", first.parked_id))
            async with parking.pool.acquire() as watching:
                await until_one_waits(watching)
        assert await release is None
        assert await drain(parking) == [12]

    async def test_parked_twice_at_once_it_is_there_once(self, parking: PostgresParking) -> None:
        for n in range(20):
            await asyncio.gather(*(park(parking, 10, f"t{n}") for _ in range(4)), queue(parking, 11, ticket_id=f"t{n}"))
        assert len(await due(parking)) == 20
        assert {tuple(await drain(parking, f"t{n}")) for n in range(20)} <= {(10,), (10, 11)}

    async def test_two_who_queue_for_the_same_tickets_do_not_lock_each_other_out(
        self, parking: PostgresParking
    ) -> None:
        tickets = [f"t{n}" for n in range(50)]
        for ticket_id in tickets:
            await park(parking, ticket_id=ticket_id)
        there = [(ticket_id, record(offset, ticket_id)) for offset in (11, 12) for ticket_id in tickets]
        await asyncio.gather(*(parking.queue(GROUP, order) for order in (there, there[::-1]) for _ in range(5)))
        for ticket_id in tickets:
            assert sorted(await drain(parking, ticket_id)) == [10, 11, 12]

    async def test_a_ticket_that_cannot_be_parked_keeps_no_other_from_it(self, parking: PostgresParking) -> None:
        tickets = ["t1", "nul \0", "t2"]
        results = await asyncio.gather(*(park(parking, ticket_id=t) for t in tickets), return_exceptions=True)
        assert [type(result) for result in results] == [ParkedRecord, ContractBroken, ParkedRecord]

    async def test_two_processes_that_park_and_release_the_same_tickets_do_not_lock_each_other_out(
        self, parking: PostgresParking, pool: asyncpg.Pool
    ) -> None:
        here, there = parking, PostgresParking(pool)
        tickets = [f"t{n}" for n in range(200)]
        for _ in range(10):
            await asyncio.gather(
                *(here.park(GROUP, t, record(10, t), wait_s=0, attempts=1, error="") for t in tickets),
                *(there.park(GROUP, t, record(10, t), wait_s=0, attempts=1, error="") for t in reversed(tickets)),
            )
            found = await due(parking)
            assert {one.ticket_id for one in found} == set(tickets)
            await asyncio.gather(
                *(here.release(GROUP, one.ticket_id, one.parked_id) for one in found),
                *(there.release(GROUP, one.ticket_id, one.parked_id) for one in reversed(found)),
            )
            assert await due(parking) == []

    async def test_a_person_sees_why_a_ticket_waits(self, parking: PostgresParking, pool: asyncpg.Pool) -> None:
        await park(parking)
        await parking.park(GROUP, "t1", record(10), wait_s=60, attempts=2, error="the model is away")
        row = await pool.fetchrow(
            "SELECT *, due_at > now() AS waits, failed_at > parked_at AS later FROM parked_tickets"
        )
        assert row is not None
        assert (row["attempts"], row["error"], row["waits"], row["later"]) == (2, "the model is away", True, True)
        await parking.block(GROUP, "t1", record(10), attempts=3, error="poison")
        assert tuple(await pool.fetchrow("SELECT due_at, attempts, error FROM parked_tickets")) == (None, 3, "poison")

    async def test_an_answer_lost_on_the_way_costs_no_record(self, parking: PostgresParking, postgres_dsn: str) -> None:
        first = await park(parking)
        await queue(parking, 11, 12)
        address = urlsplit(postgres_dsn)
        assert address.hostname is not None
        assert address.port is not None
        async with cable_to(address.hostname, address.port) as cable:
            dsn = postgres_dsn.replace(f":{address.port}/", f":{cable.port}/")
            async with migrated_pool(dsn, max_size=1) as pool:
                far = PostgresParking(pool)
                assert len(await due(far)) == 1
                cable.answers.clear()
                releasing = asyncio.create_task(far.release(GROUP, "t1", first.parked_id))
                await cable.held.wait()
                cable.cut()
                with pytest.raises(StoreUnavailable):
                    await releasing
                cable.answers.set()
                following = await far.release(GROUP, "t1", first.parked_id)
        assert following is not None
        assert following.record.offset == 11
        assert await drain(parking) == [11, 12]


async def _insert_follower(connection: asyncpg.Connection, offset: int) -> None:
    one = record(offset)
    await connection.execute(
        "INSERT INTO parked_records (group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms,"
        " timestamp_type, headers) VALUES ($1, 't1', $2, $3, $4, $5, 0, '[]')",
        GROUP,
        one.topic,
        one.partition,
        one.offset,
        one.timestamp,
    )
