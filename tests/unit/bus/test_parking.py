"""The scheduler resumes what is due on time, never early, each record once at a time, in the order of its queue."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from bus.parking import Scheduler
from contracts.errors import StoreUnavailable
from contracts.ports import ParkedRecord, Record
from state.leases import MemoryLeases
from state.memory_parking import MemoryParking
from tests.unit.bus.kit import WithoutStalls, until

GROUP = "triage"


def record(offset: int = 10) -> Record:
    return Record("support.tickets.v1", 0, offset, 0, b"t1", b"{}")


@dataclass(slots=True)
class FaultyParking(MemoryParking):
    """Parking that can be away, and whose look-ups can be held up on their way there and back."""

    away: bool = False
    asked: int = 0
    looks: int = 0
    requests: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.requests.set()
        self.answers.set()

    async def due(
        self, group: str, *, within_s: float, limit: int, besides: Collection[int] = ()
    ) -> Sequence[ParkedRecord]:
        self.asked += 1
        await self.requests.wait()
        self._refuse_when_away()
        found = await MemoryParking.due(self, group, within_s=within_s, limit=limit, besides=besides)
        self.looks += 1
        await self.answers.wait()
        return found

    async def release(self, group: str, ticket_id: str, parked_id: int) -> ParkedRecord | None:
        self._refuse_when_away()
        return await MemoryParking.release(self, group, ticket_id, parked_id)

    def _refuse_when_away(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


@pytest.fixture
def parking() -> FaultyParking:
    return FaultyParking()


@pytest.fixture
def leases() -> MemoryLeases:
    return MemoryLeases()


@dataclass
class Resumed:
    """What a scheduler handed out, and when."""

    records: list[ParkedRecord] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    def __call__(self, parked: ParkedRecord) -> None:
        self.records.append(parked)
        self.at.append(time.monotonic())

    @property
    def offsets(self) -> list[int]:
        return [parked.record.offset for parked in self.records]

    def __len__(self) -> int:
        return len(self.records)


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[Scheduler]:
    task = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


async def looked(parking: FaultyParking, times: int = 3) -> None:
    """Return when so many more look-ups were answered."""
    enough = parking.looks + times
    await until(lambda: parking.looks >= enough)


async def park(parking: MemoryParking, ticket_id: str = "t1", offset: int = 10, *, wait_s: float = 0) -> None:
    await parking.park(GROUP, ticket_id, record(offset), wait_s=wait_s, attempts=1, error="")


@pytest.mark.parametrize("skew_s", [0, 3600, -3600])
async def test_all_are_resumed_on_time_and_none_early_whatever_time_the_database_has(
    leases: MemoryLeases, skew_s: float
) -> None:
    parking, resumed, due_at = MemoryParking(clock=lambda: time.monotonic() + skew_s), Resumed(), {}
    rng = random.Random(5)
    for n in range(300):
        wait_s = rng.uniform(0, 0.5)
        due_at[n] = time.monotonic() + wait_s
        await park(parking, f"t{n}", n, wait_s=wait_s)
    async with running(Scheduler(parking, leases, GROUP, "a", resumed)):
        await until(lambda: len(resumed) >= 300)
    assert sorted(resumed.offsets) == list(range(300))
    late = sorted(at - due_at[offset] for at, offset in zip(resumed.at, resumed.offsets, strict=True))
    assert late[0] >= 0
    assert late[297] <= 0.25


async def test_a_record_in_hand_is_not_handed_out_again(parking: FaultyParking, leases: MemoryLeases) -> None:
    await park(parking)
    resumed = Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.001)):
        await looked(parking, 20)
    assert resumed.offsets == [10]


async def test_the_next_of_a_queue_is_resumed_as_soon_as_the_first_is_settled(
    parking: FaultyParking, leases: MemoryLeases
) -> None:
    await park(parking)
    await parking.queue(GROUP, [("t1", record(offset)) for offset in (11, 12)])
    resumed = Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=60)) as scheduler:
        await until(lambda: len(resumed) == 1)
        await scheduler.settled(resumed.records[0])
        await scheduler.settled(resumed.records[1])
        await scheduler.settled(resumed.records[2])
    assert resumed.offsets == [10, 11, 12]
    assert parking.parked_of(GROUP) == set()


async def test_parked_again_it_is_resumed_at_its_new_time(parking: FaultyParking, leases: MemoryLeases) -> None:
    await park(parking)
    resumed = Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.01)) as scheduler:
        await until(lambda: len(resumed) == 1)
        again_at = time.monotonic() + 0.1
        await park(parking, wait_s=0.1)
        scheduler.parked_again(resumed.records[0])
        await until(lambda: len(resumed) == 2)
    assert resumed.at[1] >= again_at


@pytest.mark.parametrize("parked_again", [True, False])
async def test_an_answer_that_was_overtaken_resumes_nothing(
    parking: FaultyParking, leases: MemoryLeases, parked_again: bool
) -> None:
    await park(parking)
    await parking.queue(GROUP, [("t1", record(11))])
    resumed = Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.001)) as scheduler:
        await until(lambda: len(resumed) == 1)
        parking.requests.clear()
        asked = parking.asked
        await until(lambda: parking.asked > asked)
        await scheduler.settled(resumed.records[0])
        assert resumed.offsets == [10, 11]
        parking.answers.clear()
        parking.requests.set()
        await looked(parking, 1)  # it tells of 11, due now
        if parked_again:
            await park(parking, offset=11, wait_s=60)
            scheduler.parked_again(resumed.records[1])
        parking.answers.set()
        await looked(parking)
    assert resumed.offsets == [10, 11]


async def test_the_lease_is_renewed_before_it_ends(parking: FaultyParking) -> None:
    clock = WithoutStalls()
    leases, resumed = MemoryLeases(clock=clock), Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.005, lease_s=0.2)):
        await looked(parking, 1)
        while clock() < 0.6:  # three leases
            assert not await leases.hold(f"parking/{GROUP}", "b", lease_s=60)
            await asyncio.sleep(0.005)


async def test_no_more_are_in_hand_than_allowed(parking: FaultyParking, leases: MemoryLeases) -> None:
    """A queue of retries without a bound took all memory (confluentinc/parallel-consumer#832)."""
    for n in range(25):
        await park(parking, f"t{n}", n)
    resumed, settled = Resumed(), set[int]()
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.001, most_in_hand=10)) as scheduler:
        await until(lambda: len(resumed) == 10)
        while in_hand := [one for one in resumed.records if one.parked_id not in settled]:
            assert len(in_hand) <= 10
            settled.add(in_hand[0].parked_id)
            await scheduler.settled(in_hand[0])
            await until(lambda: len(resumed) == min(10 + len(settled), 25))
    assert sorted(resumed.offsets) == list(range(25))


async def test_another_scheduler_takes_over_when_the_first_one_ends(
    parking: FaultyParking, leases: MemoryLeases
) -> None:
    first, second = Resumed(), Resumed()
    async with running(Scheduler(parking, leases, GROUP, "a", first, poll_s=0.001)):
        await park(parking)
        await until(lambda: len(first) == 1)
        async with running(Scheduler(parking, leases, GROUP, "b", second, poll_s=0.001)):
            await park(parking, "t2", 20)
            await until(lambda: len(first) == 2)
            assert second.offsets == []
    async with running(Scheduler(parking, leases, GROUP, "b", second, poll_s=0.001)):
        await until(lambda: len(second) == 2)
    assert sorted(second.offsets) == [10, 20]


async def test_without_the_lease_nothing_is_handed_out_and_what_is_in_hand_is_settled(
    parking: FaultyParking, leases: MemoryLeases
) -> None:
    await park(parking)
    await parking.queue(GROUP, [("t1", record(11))])
    await park(parking, "t2", 20, wait_s=0.1)
    mine, theirs = Resumed(), Resumed()
    async with running(Scheduler(parking, leases, GROUP, "zombie", mine, poll_s=0.01, lease_s=0.1)) as zombie:
        await until(lambda: len(mine) == 1)
        await leases.release(f"parking/{GROUP}", "zombie")
        async with running(Scheduler(parking, leases, GROUP, "heir", theirs, poll_s=0.01, lease_s=10)) as heir:
            await until(lambda: len(theirs) == 2)
            await zombie.settled(mine.records[0])
            await heir.settled(theirs.records[theirs.offsets.index(10)])
            await until(lambda: len(theirs) == 3)
            await heir.settled(theirs.records[2])
    assert mine.offsets == [10]
    assert sorted(theirs.offsets) == [10, 11, 20]
    assert parking.parked_of(GROUP) == {"t2"}


async def test_held_up_it_leaves_what_is_due_to_others_and_forgets_what_was_dropped(
    parking: FaultyParking, leases: MemoryLeases
) -> None:
    held_up, mine, theirs = False, Resumed(), Resumed()
    await park(parking)
    scheduler = Scheduler(parking, leases, GROUP, "a", mine, poll_s=0.001, held_up=lambda: held_up)
    async with running(scheduler):
        await until(lambda: len(mine) == 1)
        held_up = True
        async with running(Scheduler(parking, leases, GROUP, "b", theirs, poll_s=0.001)):
            await until(lambda: len(theirs) == 1)
            await park(parking, "t2", 20)
            await until(lambda: len(theirs) == 2)
        assert mine.offsets == [10]
        scheduler.forget()
        held_up = False
        await until(lambda: len(mine) == 3)
    assert sorted(mine.offsets) == [10, 10, 20]


async def test_an_outage_is_waited_out_and_told_once(
    parking: FaultyParking, leases: MemoryLeases, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = Resumed()
    await park(parking)
    await parking.queue(GROUP, [("t1", record(11))])
    async with running(Scheduler(parking, leases, GROUP, "a", resumed, poll_s=0.001)) as scheduler:
        await until(lambda: len(resumed) == 1)
        parking.away = True
        settling = asyncio.create_task(scheduler.settled(resumed.records[0]))
        asked = parking.asked
        await until(lambda: parking.asked > asked + 3)
        assert not settling.done()
        assert len(caplog.messages) == 2  # the look-up and the release
        parking.away = False
        await settling
        await park(parking, "t2", 20)
        await until(lambda: len(resumed) == 3)
    assert resumed.offsets == [10, 11, 20]


async def test_where_the_store_is_away_the_end_comes_all_the_same(parking: FaultyParking) -> None:
    class NoLeases(MemoryLeases):
        async def release(self, name: str, owner: str) -> None:
            raise StoreUnavailable("away")

    async with running(Scheduler(parking, NoLeases(), GROUP, "a", Resumed(), poll_s=0.001)):
        await looked(parking, 1)
