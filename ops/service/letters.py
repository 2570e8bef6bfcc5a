"""Dead letters: found, shown, redriven and discarded."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass

from bus.connection import KafkaConnection
from bus.lease import Lease
from bus.letters import LetterReader, letter_reader, named_in, original, read_letters
from bus.publisher import Publisher
from contracts.errors import Permanent, SupportError, Transient
from contracts.letter_ports import LetterBook
from contracts.letters import (
    NEVER_BLOCK,
    Act,
    Acted,
    Blocked,
    Fate,
    Job,
    JobLetter,
    JobStatus,
    Letter,
    LetterFilter,
    Origin,
    Standing,
)
from contracts.ports import Leases, Parking, Record
from contracts.topics import Topic, dead_letter_topic
from ops.service.exclusion import LEASE_S, job_lease, require_no_rewind
from ops.settings import Settings
from ops.wiring import INBOXES, database, kafka_connection
from state.leases import PostgresLeases
from state.letters import PostgresLetterBook
from state.postgres_parking import PostgresParking

MOST_REDRIVES = 3  # after so many somebody has to insist
WAIT_FOR_A_PERSON = (Standing.BLOCKS, Standing.OPEN)
_AT_ONCE = 100  # letters in one write
_JOBS_LISTED = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, and what became of it so far."""

    letter: Letter
    standing: Standing
    acts: int = 0  # how often somebody acted on it
    blocked: Blocked | None = None  # its ticket, where that waits behind it

    @property
    def redrives(self) -> int:
        """How often its record was redriven, under this letter and those before it."""
        return self.acts + self.letter.put_back

    @property
    def behind(self) -> int:
        """The records that wait behind it."""
        return self.blocked.behind if self.blocked else 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants done, and how."""

    act: Act
    by: str
    reason: str = ""
    rate: float = 100.0  # letters a second
    force: bool = False  # also what was redriven too often


@dataclass(frozen=True, slots=True)
class Told:
    """A job, and its letters with what became of them. `now` is where the freed ones stand, by letter id."""

    job: Job
    letters: Sequence[JobLetter]
    now: Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class LetterDesk:
    """What a person needs to look at dead letters and to act on them."""

    book: LetterBook
    parking: Parking
    leases: Leases
    connection: KafkaConnection
    publisher: Publisher
    inboxes: Mapping[str, Topic]  # the topic each group reads

    async def found(self, wanted: LetterFilter) -> list[Found]:
        """The dead letters that are wanted, whatever they wait for; those that failed first come first."""
        found = [one for group in wanted.groups for one in await self._of_group(group)]
        return sorted((one for one in found if wanted.wants(one.letter)), key=lambda one: one.letter.failed_at)

    async def find(self, letter_id: str) -> tuple[Found, Record | None]:
        """A letter with its record; None: that has expired. Raises SupportError: there is no such letter."""
        for group in self.inboxes:
            for one in await self._of_group(group):
                if one.letter.letter_id == letter_id:
                    return one, await self._record_of(one)
        raise SupportError(f"there is no dead letter {letter_id!r} (`switchyard dlt list` shows those there are)")

    async def plan(self, wanted: LetterFilter, asked: Asked) -> tuple[Job, list[JobLetter]]:
        """The job that would be done about the letters of one group that wait for a person; nothing is changed.

        Raises SupportError: a letter that was named does not.
        """
        [group] = wanted.groups
        waiting = [one for one in await self.found(wanted) if one.standing in WAIT_FOR_A_PERSON]
        if missing := wanted.letter_ids - {one.letter.letter_id for one in waiting}:
            raise SupportError(
                f"there is no dead letter {min(missing)!r} of {group} that waits for a person"
                f" (`switchyard dlt list {group} --all` shows all)"
            )
        job = Job(str(uuid.uuid4()), asked.act, group, asked.by, asked.reason, asked.rate)
        return job, [_planned(one, asked) for one in waiting]

    async def begin(self, job: Job, letters: Sequence[JobLetter]) -> None:
        """Note a planned job; from now on it can be worked on, cancelled and resumed.

        Raises SupportError: somebody rewinds the group.
        """
        await require_no_rewind(self.leases, job.group)
        await self.book.begin(job, letters)

    async def work(self, job_id: str, stopping: asyncio.Event) -> Told:
        """Act on what is left of a job until it is done, cancelled, or told to stop.

        Raises SupportError: there is no such job, somebody works on it already or rewinds the group, or a service is
        away; what is left can be resumed.
        """
        job = await self._job(job_id)
        lease = job_lease(self.leases, job_id)
        if not await lease.held():
            raise SupportError(f"somebody works on the job {job_id} already; `switchyard dlt cancel {job_id}` ends it")
        try:
            await require_no_rewind(self.leases, job.group)
            async with self._reading(job) as reader:
                await _Working(self, job, reader, lease, stopping).run()
        except Transient as error:
            raise SupportError(f"{error}; go on with `switchyard dlt resume {job_id}`") from error
        finally:
            await lease.give_back()
        return await self.told(job_id)

    async def cancel(self, job_id: str) -> Told:
        """Have a job act on no more letters; what it did stays done."""
        await self._job(job_id)
        await self.book.end(job_id, JobStatus.CANCELLED)
        return await self.told(job_id)

    async def told(self, job_id: str) -> Told:
        """A job and what became of its letters. Raises SupportError: there is no such job."""
        job, letters = await self._job(job_id), await self.book.letters_of(job_id)
        freed = [letter for letter in letters if letter.fate is Fate.FREED]
        blocked = {one.origin for one in await self.book.blocked(job.group)}
        queued = await self.book.queued(job.group, [(letter.ticket_id, letter.origin) for letter in freed])
        return Told(job, letters, {letter.letter_id: _now(letter.origin, blocked, queued) for letter in freed})

    async def jobs(self) -> Sequence[Job]:
        """Jobs, the latest first."""
        return await self.book.latest(_JOBS_LISTED)

    async def _job(self, job_id: str) -> Job:
        job = await self.book.find(job_id)
        if job is None:
            raise SupportError(f"there is no job {job_id!r} (`switchyard dlt jobs` shows those there were)")
        return job

    async def _of_group(self, group: str) -> list[Found]:
        letters = await read_letters(self.connection, group, self.inboxes[group])
        blocked = {one.origin: one for one in await self.book.blocked(group)}
        letters = [*await self._expired(group, letters, blocked), *letters]
        named = [(letter.ticket_id, letter.origin) for letter in letters if letter.ticket_id]
        queued, acts = await self.book.queued(group, named), await self.book.acts(group)
        return [
            Found(
                letter,
                _standing(letter, blocked.keys(), queued, acts.get(letter.letter_id)),
                acts[letter.letter_id].times if letter.letter_id in acts else 0,
                blocked.get(letter.origin),
            )
            for letter in letters
        ]

    async def _expired(self, group: str, letters: Sequence[Letter], blocked: Mapping[Origin, Blocked]) -> list[Letter]:
        """Those whose copies have expired while their tickets wait."""
        there = {letter.origin for letter in letters}
        gone = [one for origin, one in blocked.items() if origin not in there]
        kept = [(one, await self.book.kept(group, one)) for one in gone]
        return [_letter_of(group, one, record) for one, record in kept if record is not None]

    async def _record_of(self, one: Found) -> Record | None:
        if one.blocked is not None:
            return await self.book.kept(one.letter.group, one.blocked)
        async with letter_reader(self.connection, self._topic_of(one.letter.group)) as reader:
            return await reader.at(one.letter.copies[-1])

    @contextlib.asynccontextmanager
    async def _reading(self, job: Job) -> AsyncIterator[LetterReader | None]:
        """A reader for a job that puts records back; None: it does not need one."""
        if any(letter.parked_id is None for letter in await self.book.letters_of(job.job_id)):
            async with letter_reader(self.connection, self._topic_of(job.group)) as reader:
                yield reader
        else:
            yield None

    def _topic_of(self, group: str) -> str:
        return dead_letter_topic(self.inboxes[group].name, group)


@dataclass(slots=True)
class _Working:
    """One go at a job."""

    desk: LetterDesk
    job: Job
    reader: LetterReader | None
    lease: Lease
    stopping: asyncio.Event

    async def run(self) -> None:
        """Act batch by batch, no faster than asked for, until nothing is left."""
        began, done = time.monotonic(), 0
        at_once = max(1, min(_AT_ONCE, int(self.job.rate)))
        while not self.stopping.is_set() and await self.lease.held():
            taken = await self.desk.book.take(self.job.job_id, at_once)
            if not taken:
                await self.desk.book.end(self.job.job_id, JobStatus.DONE)
                return
            for letter in taken:
                if letter.fate is Fate.TAKEN:
                    await self.desk.book.note(self.job.job_id, letter.letter_id, await self._finished(letter))
            done += len(taken)
            await self._stopped_within(began + done / self.job.rate - time.monotonic())

    async def _finished(self, letter: JobLetter) -> Fate:
        """Do what the write that took the letter could not. Safe to repeat: a worker died in between."""
        if letter.parked_id is not None:
            await self.desk.parking.release(self.job.group, letter.ticket_id, letter.parked_id)
            return Fate.DISCARDED
        assert self.reader is not None
        assert letter.copy is not None
        record = await self.reader.at(letter.copy)
        if record is None:
            return Fate.GONE
        topic, key, value, headers = original(record, letter.put_back)
        try:
            await self.desk.publisher.put(topic, key=key, value=value, headers=headers)
        except Permanent:
            return Fate.REFUSED
        return Fate.PUBLISHED

    async def _stopped_within(self, wait_s: float) -> None:
        """Wait, in parts that keep the lease; no longer than until `stopping`."""
        ends = time.monotonic() + wait_s
        while (left := ends - time.monotonic()) > 0 and await self.lease.held():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), min(left, LEASE_S / 4))
                return


def _planned(one: Found, asked: Asked) -> JobLetter:
    letter = one.letter
    redrive = asked.act is Act.REDRIVE
    held_back = redrive and one.redrives >= MOST_REDRIVES and not asked.force
    return JobLetter(
        letter_id=letter.letter_id,
        nth=one.acts + 1,
        origin=letter.origin,
        ticket_id=letter.ticket_id,
        error=letter.error,
        fingerprint=letter.fingerprint,
        parked_id=one.blocked.parked_id if one.blocked else None,
        copy=letter.copies[-1] if letter.copies else None,
        put_back=one.redrives + 1 if redrive and one.blocked is None else letter.put_back,
        fate=Fate.HELD_BACK if held_back else Fate.PLANNED,
    )


def _standing(letter: Letter, blocked: Set[Origin], queued: Set[Origin], acted: Acted | None) -> Standing:
    if letter.origin in blocked:
        return Standing.BLOCKS
    if letter.origin in queued:
        return Standing.QUEUED
    if acted is not None:
        return Standing.REDRIVEN if acted.last is Act.REDRIVE else Standing.DISCARDED
    return Standing.OPEN if letter.error in NEVER_BLOCK else Standing.SETTLED


def _now(origin: Origin, blocked: Set[Origin], queued: Set[Origin]) -> Standing:
    """Where a letter stands whose ticket was to go on from it."""
    if origin in blocked:
        return Standing.BLOCKS
    return Standing.QUEUED if origin in queued else Standing.SETTLED


def _letter_of(group: str, parked: Blocked, record: Record) -> Letter:
    """What the parked tickets alone still tell."""
    error, _, message = parked.error.partition(": ")
    _, tenant_id = named_in(record)
    return Letter(
        group=group,
        origin=parked.origin,
        ticket_id=parked.ticket_id,
        tenant_id=tenant_id,
        error=error,
        message=message,
        attempts=parked.attempts,
        failed_at=parked.failed_at,
    )


@contextlib.asynccontextmanager
async def letter_desk(settings: Settings) -> AsyncIterator[LetterDesk]:
    """The desk of this installation."""
    connection = kafka_connection(settings.kafka)
    async with database(settings) as pool, Publisher(connection) as publisher:
        yield LetterDesk(
            PostgresLetterBook(pool),
            PostgresParking(pool),
            PostgresLeases(pool),
            connection,
            publisher,
            INBOXES,
        )
