"""What every book of dead letters promises: one job has a letter, and a blocked ticket goes on from it."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import pytest

from contracts.letter_ports import LetterBook
from contracts.letters import Act, Blocked, Fate, Job, JobLetter, JobStatus, Letter, Origin
from contracts.ports import Parking, Position, Record
from state.letters import PostgresLetterBook
from state.memory_letters import MemoryLetterBook
from state.memory_parking import MemoryParking
from state.postgres_parking import PostgresParking

GROUP = "triage"
AT = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass
class Shelf:
    """A book, the parked tickets it is about, and what a worker would do with them."""

    book: LetterBook
    parking: Parking

    async def block(self, ticket_id: str, offset: int = 10, *behind: int) -> Blocked:
        """Have a ticket wait behind a dead letter, and records behind that."""
        await self.parking.block(GROUP, ticket_id, record(offset, ticket_id), attempts=8, error="ContractBroken: no 1")
        await self.parking.queue(GROUP, [(ticket_id, record(one, ticket_id)) for one in behind])
        [found] = [one for one in await self.book.blocked(GROUP) if one.ticket_id == ticket_id]
        return found

    async def begin(self, job_id: str, *letters: JobLetter, act: Act = Act.REDRIVE) -> None:
        await self.book.begin(Job(job_id, act, GROUP, "mia", "mended", 100.0), letters)

    async def fates(self, job_id: str) -> list[Fate]:
        return [letter.fate for letter in await self.book.letters_of(job_id)]

    async def work_off(self, ticket_id: str) -> list[int]:
        """Settle what is due of a ticket, as a worker would; returns the offsets."""
        found = await self.parking.due(GROUP, within_s=1, limit=1000)
        first = next((one for one in found if one.ticket_id == ticket_id), None)
        offsets = []
        while first is not None:
            offsets.append(first.record.offset)
            first = await self.parking.release(GROUP, ticket_id, first.parked_id)
        return offsets


def record(offset: int, ticket_id: str = "t1") -> Record:
    headers = (("ce_id", b"e"), ("none", None))
    return Record("support.tickets.v1", 3, offset, 1_700_000_000_000, ticket_id.encode(), b"\x00\xff", headers)


def origin(offset: int) -> Origin:
    return Origin("support.tickets.v1", 3, offset, 1_700_000_000_000)


def blocking(blocked: Blocked, nth: int = 1) -> JobLetter:
    """The letter that a ticket waits behind, in a job."""
    letter_id = f"{blocked.ticket_id}/{blocked.origin.offset}"
    return JobLetter(
        letter_id, nth, blocked.origin, blocked.ticket_id, "ContractBroken", "f1", blocked.parked_id, copy=None
    )


def loose(letter_id: str, nth: int = 1) -> JobLetter:
    """A letter that no ticket waits for, in a job."""
    copy = Position("support.tickets.v1.triage.dlt", 3, 7)
    return JobLetter(letter_id, nth, origin(99), "", "Undecodable", "f2", None, copy, put_back=1)


class LetterBookContract:
    async def test_it_tells_which_tickets_wait_behind_what(self, shelf: Shelf) -> None:
        await shelf.parking.park(GROUP, "t0", record(9, "t0"), wait_s=60, attempts=1, error="later")
        blocked = await shelf.block("t1", 10, 11, 12)
        assert (blocked.origin, blocked.error, blocked.attempts, blocked.behind) == (
            origin(10),
            "ContractBroken: no 1",
            8,
            2,
        )
        assert await shelf.book.blocked("lookup") == []
        assert [one.ticket_id for one in await shelf.book.blocked(GROUP)] == ["t1"]
        assert await shelf.book.kept(GROUP, blocked) == record(10)
        assert await shelf.book.kept(GROUP, blocked._replace(parked_id=-1)) is None

    async def test_it_tells_what_is_still_to_be_tried(self, shelf: Shelf) -> None:
        await shelf.parking.park(GROUP, "t0", record(9, "t0"), wait_s=60, attempts=1, error="later")
        await shelf.block("t1", 10, 11)
        asked = [("t0", origin(9)), ("t1", origin(10)), ("t1", origin(11)), ("t1", origin(12)), ("t2", origin(11))]
        assert await shelf.book.queued(GROUP, asked) == {origin(9), origin(11)}
        assert await shelf.book.queued("lookup", asked) == set()

    async def test_a_redriven_letter_is_due_at_once_and_what_waits_behind_it_follows_in_order(
        self, shelf: Shelf
    ) -> None:
        blocked = await shelf.block("t1", 10, 11, 12)
        await shelf.begin("j1", blocking(blocked))
        assert [letter.fate for letter in await shelf.book.take("j1", 10)] == [Fate.FREED]
        [due] = await shelf.parking.due(GROUP, within_s=0, limit=10)
        assert (due.record, due.attempts) == (record(10), 0)
        assert await shelf.work_off("t1") == [10, 11, 12]
        assert await shelf.book.blocked(GROUP) == []
        assert await shelf.book.take("j1", 10) == []

    async def test_a_discarded_letter_is_taken_and_told_again_until_it_is_noted(self, shelf: Shelf) -> None:
        """A worker may die between the two: its job is resumed."""
        blocked = await shelf.block("t1", 10, 11)
        await shelf.begin("j1", blocking(blocked), act=Act.DISCARD)
        for _ in range(2):
            assert [letter.fate for letter in await shelf.book.take("j1", 10)] == [Fate.TAKEN]
        assert await shelf.parking.due(GROUP, within_s=1, limit=10) == []
        await shelf.parking.release(GROUP, "t1", blocked.parked_id)
        await shelf.book.note("j1", "t1/10", Fate.DISCARDED)
        assert await shelf.book.take("j1", 10) == []
        assert await shelf.fates("j1") == [Fate.DISCARDED]
        assert await shelf.work_off("t1") == [11]

    async def test_a_letter_no_ticket_waits_for_is_the_callers_to_put_back(self, shelf: Shelf) -> None:
        await shelf.begin("j1", loose("l1"), loose("l2"))
        [first] = await shelf.book.take("j1", 1)
        assert (first.letter_id, first.fate, first.copy, first.put_back) == (
            "l1",
            Fate.TAKEN,
            Position("support.tickets.v1.triage.dlt", 3, 7),
            1,
        )
        await shelf.book.note("j1", "l1", Fate.PUBLISHED)
        await shelf.begin("j2", loose("l2"), act=Act.DISCARD)
        assert [letter.fate for letter in await shelf.book.take("j2", 10)] == [Fate.DISCARDED]
        assert [letter.fate for letter in await shelf.book.take("j1", 10)] == [Fate.ELSEWHERE]
        acts = await shelf.book.acts(GROUP)
        assert {letter_id: (acted.times, acted.last) for letter_id, acted in acts.items()} == {
            "l1": (1, Act.REDRIVE),
            "l2": (1, Act.DISCARD),
        }
        assert await shelf.book.acts("lookup") == {}

    async def test_of_jobs_at_once_one_has_a_letter(self, shelf: Shelf) -> None:
        tickets = [f"t{n}" for n in range(30)]
        blocked = [await shelf.block(ticket_id, 10, 11) for ticket_id in tickets]
        letters = [blocking(one) for one in blocked]
        jobs = {"j1": letters, "j2": letters[::-1], "j3": letters}
        for job_id, theirs in jobs.items():
            await shelf.begin(job_id, *theirs, act=Act.DISCARD if job_id == "j3" else Act.REDRIVE)

        async def work(job_id: str) -> list[str]:
            mine = []
            while taken := [one for one in await shelf.book.take(job_id, 7) if one.fate is not Fate.PLANNED]:
                for one in taken:
                    mine += [one.letter_id] * (one.fate in (Fate.FREED, Fate.TAKEN))
                    if one.fate is Fate.TAKEN:
                        await shelf.book.note(job_id, one.letter_id, Fate.DISCARDED)
                await asyncio.sleep(0)
            return mine

        had = await asyncio.gather(*map(work, jobs))
        assert sorted(itertools.chain(*had)) == sorted(letter.letter_id for letter in letters)
        fates = [fate for job_id in jobs for fate in await shelf.fates(job_id)]
        assert fates.count(Fate.ELSEWHERE) == 60

    async def test_a_letter_that_failed_again_is_not_redriven_by_who_saw_it_before(self, shelf: Shelf) -> None:
        blocked = await shelf.block("t1")
        await shelf.begin("j1", blocking(blocked))
        await shelf.begin("j2", blocking(blocked))
        await shelf.book.take("j1", 10)
        again = await shelf.block("t1")
        assert again.parked_id == blocked.parked_id
        assert [letter.fate for letter in await shelf.book.take("j2", 10)] == [Fate.ELSEWHERE]
        assert [one.ticket_id for one in await shelf.book.blocked(GROUP)] == ["t1"]
        await shelf.begin("j3", blocking(again, nth=2))
        assert [letter.fate for letter in await shelf.book.take("j3", 10)] == [Fate.FREED]
        assert (await shelf.book.acts(GROUP))["t1/10"].times == 2

    async def test_a_letter_its_ticket_does_not_wait_for_any_more_is_gone(self, shelf: Shelf) -> None:
        blocked = await shelf.block("t1", 10, 11)
        await shelf.begin("j1", blocking(blocked))
        await shelf.parking.release(GROUP, "t1", blocked.parked_id)
        assert [letter.fate for letter in await shelf.book.take("j1", 10)] == [Fate.GONE]
        assert await shelf.book.acts(GROUP) == {}
        assert await shelf.work_off("t1") == [11]

    async def test_what_is_tried_again_by_itself_by_now_is_left_alone(self, shelf: Shelf) -> None:
        await shelf.parking.park(GROUP, "t1", record(10), wait_s=60, attempts=1, error="later")
        [due] = await shelf.parking.due(GROUP, within_s=100, limit=1)
        before = Blocked(due.parked_id, "t1", origin(10), "", 1, AT, 0)
        for job_id, act in (("j1", Act.REDRIVE), ("j2", Act.DISCARD)):
            await shelf.begin(job_id, blocking(before), act=act)
            assert [letter.fate for letter in await shelf.book.take(job_id, 10)] == [Fate.GONE]
        assert await shelf.parking.due(GROUP, within_s=0, limit=1) == []

    async def test_a_cancelled_job_takes_no_more(self, shelf: Shelf) -> None:
        await shelf.begin("j1", *[blocking(await shelf.block(ticket_id)) for ticket_id in ("t1", "t2")])
        await shelf.book.take("j1", 1)
        assert await shelf.book.end("j1", JobStatus.CANCELLED)
        assert await shelf.book.take("j1", 1) == []
        assert not await shelf.book.end("j1", JobStatus.DONE)
        job = await shelf.book.find("j1")
        assert job is not None
        assert (job.status, job.ended_at is not None) == (JobStatus.CANCELLED, True)
        assert await shelf.fates("j1") == [Fate.FREED, Fate.PLANNED]

    async def test_a_groups_jobs_that_were_not_ended_are_told_the_latest_first(self, shelf: Shelf) -> None:
        for job_id in ("j1", "j2", "j3", "j4"):
            await shelf.begin(job_id)
        await shelf.book.begin(Job("other", Act.REDRIVE, "lookup", "mia", "", 1.0), [])
        await shelf.book.end("j2", JobStatus.CANCELLED)
        await shelf.book.end("j3", JobStatus.DONE)
        assert [job.job_id for job in await shelf.book.running(GROUP)] == ["j4", "j1"]

    async def test_what_is_held_back_is_noted_and_not_taken(self, shelf: Shelf) -> None:
        blocked = await shelf.block("t1")
        await shelf.begin("j1", replace(blocking(blocked), fate=Fate.HELD_BACK))
        assert await shelf.book.take("j1", 10) == []
        assert await shelf.fates("j1") == [Fate.HELD_BACK]

    async def test_the_book_tells_who_did_what_and_when(self, shelf: Shelf) -> None:
        letters = [blocking(await shelf.block(ticket_id)) for ticket_id in ("t2", "t1")]
        await shelf.begin("j1", *letters)
        await shelf.begin("j2", act=Act.DISCARD)
        await shelf.begin("j1", loose("never"))  # said twice, it is noted once
        await shelf.book.take("j1", 10)
        assert await _ids(shelf) == ["j2", "j1"]
        job = await shelf.book.find("j1")
        assert job is not None
        assert job.created_at is not None
        assert (job.act, job.group, job.by, job.reason, job.rate) == (Act.REDRIVE, GROUP, "mia", "mended", 100.0)
        noted = await shelf.book.letters_of("j1")
        assert [replace(one, fate=Fate.PLANNED, acted_at=None) for one in noted] == letters
        assert all(one.acted_at is not None for one in noted)
        assert await shelf.book.find("j9") is None
        assert await shelf.book.letters_of("j9") == []


async def _ids(shelf: Shelf) -> Sequence[str]:
    return [job.job_id for job in await shelf.book.latest(10)]


class TestInMemory(LetterBookContract):
    @pytest.fixture
    def shelf(self) -> Shelf:
        parking = MemoryParking()
        return Shelf(MemoryLetterBook(parking), parking)


@pytest.mark.postgres
class TestOnPostgres(LetterBookContract):
    @pytest.fixture
    def shelf(self, pool: asyncpg.Pool) -> Shelf:
        return Shelf(PostgresLetterBook(pool), PostgresParking(pool))


def test_failures_that_differ_in_numbers_and_quotes_have_one_fingerprint() -> None:
    def letter(message: str, error: str = "ContractBroken") -> Letter:
        return Letter(GROUP, origin(1), "t1", "default", error, message, 1, AT)

    one = letter("order 12 of 'Ann' is larger than 34 bytes")
    assert letter("order 7 of 'Bob' is larger than 1 bytes").fingerprint == one.fingerprint
    assert letter("order 7 of 'Bob' is smaller than 1 bytes").fingerprint != one.fingerprint
    assert letter(one.message, "Undecodable").fingerprint != one.fingerprint
    assert replace(one, group="lookup").letter_id != one.letter_id
