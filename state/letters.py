"""The book of dead letters in PostgreSQL, beside the parked tickets it is about."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg

from contracts.letters import Act, Acted, Blocked, Fate, Job, JobLetter, JobStatus, Origin
from contracts.ports import Position, Record
from state.pool import borrowed
from state.postgres_parking import record_in

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection | PoolConnectionProxy[asyncpg.Record]

_BLOCKED = """
SELECT parked_id, ticket_id, topic, partition, kafka_offset, timestamp_ms, error, attempts, failed_at,
       (SELECT count(*) FROM parked_records AS later
        WHERE later.group_name = parked.group_name AND later.ticket_id = parked.ticket_id) AS behind
FROM parked_tickets AS parked
WHERE group_name = $1 AND due_at IS NULL
ORDER BY failed_at, parked_id
"""

_KEPT = """
SELECT topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers
FROM parked_tickets
WHERE group_name = $1 AND ticket_id = $2 AND parked_id = $3
"""

_QUEUED = """
WITH asked AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[])
         AS asked (ticket_id, topic, partition, kafka_offset, timestamp_ms)
)
SELECT topic, partition, kafka_offset, timestamp_ms
FROM asked JOIN parked_tickets AS parked USING (ticket_id, topic, partition, kafka_offset, timestamp_ms)
WHERE parked.group_name = $1 AND parked.due_at IS NOT NULL
UNION
SELECT topic, partition, kafka_offset, timestamp_ms
FROM asked JOIN parked_records AS waiting USING (ticket_id, topic, partition, kafka_offset, timestamp_ms)
WHERE waiting.group_name = $1
"""

_ACTS = """
SELECT letter_id, count(*) AS times, (array_agg(act ORDER BY nth DESC))[1] AS last
FROM letter_acts
WHERE group_name = $1
GROUP BY letter_id
"""

_BEGIN = """
INSERT INTO letter_jobs (job_id, act, group_name, asked_by, reason, rate)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING job_id
"""

_BEGIN_LETTERS = """
INSERT INTO letter_job_letters (
    job_id, place, letter_id, nth, topic, partition, kafka_offset, timestamp_ms, ticket_id, error, fingerprint,
    parked_id, copy_topic, copy_partition, copy_offset, put_back, fate
)
SELECT $1, place, letter_id, nth, topic, partition, kafka_offset, timestamp_ms, ticket_id, error, fingerprint,
       parked_id, copy_topic, copy_partition, copy_offset, put_back, fate
FROM unnest($2::text[], $3::integer[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
            $10::text[], $11::bigint[], $12::text[], $13::integer[], $14::bigint[], $15::integer[], $16::text[])
     WITH ORDINALITY AS listed (letter_id, nth, topic, partition, kafka_offset, timestamp_ms, ticket_id, error,
                                fingerprint, parked_id, copy_topic, copy_partition, copy_offset, put_back, fate, place)
"""

_JOB_COLUMNS = "job_id, act, group_name, asked_by, reason, rate, status, created_at, ended_at"
_FIND = f"SELECT {_JOB_COLUMNS} FROM letter_jobs WHERE job_id = $1"
_LATEST = f"SELECT {_JOB_COLUMNS} FROM letter_jobs ORDER BY created_at DESC, job_id LIMIT $1"

_STILL_RUNNING = f"""
SELECT {_JOB_COLUMNS} FROM letter_jobs
WHERE group_name = $1 AND status = 'running'
ORDER BY created_at DESC, job_id
"""

_LETTER_COLUMNS = """
letter_id, nth, topic, partition, kafka_offset, timestamp_ms, ticket_id, error, fingerprint, parked_id,
copy_topic, copy_partition, copy_offset, put_back, fate, acted_at
"""
_LETTERS_OF = f"SELECT {_LETTER_COLUMNS} FROM letter_job_letters WHERE job_id = $1 ORDER BY place"

# Whoever ends the job waits for this write, or this one finds it ended.
_RUNNING = "SELECT act, group_name FROM letter_jobs WHERE job_id = $1 AND status = 'running' FOR SHARE"

_LEFT = f"""
SELECT {_LETTER_COLUMNS}
FROM letter_job_letters
WHERE job_id = $1 AND fate IN ('planned', 'taken')
ORDER BY place
LIMIT $2
FOR UPDATE
"""

# In the order in which everybody locks parked tickets.
_LOCK = """
SELECT parked_id
FROM parked_tickets AS parked JOIN unnest($2::text[], $3::bigint[]) AS asked (ticket_id, parked_id)
     USING (ticket_id, parked_id)
WHERE group_name = $1 AND due_at IS NULL
ORDER BY ticket_id
FOR UPDATE OF parked
"""

# Another job that is about to have one of them is waited for.
_CLAIM = """
INSERT INTO letter_acts (letter_id, nth, job_id, group_name, act)
SELECT letter_id, nth, $1, $2, $3
FROM unnest($4::text[], $5::integer[]) AS wanted (letter_id, nth)
ORDER BY letter_id
ON CONFLICT DO NOTHING
RETURNING letter_id
"""

_CLAIMED = """
SELECT letter_id
FROM letter_acts JOIN unnest($1::text[], $2::integer[]) AS wanted (letter_id, nth) USING (letter_id, nth)
"""

_FREE = """
UPDATE parked_tickets AS parked
SET due_at = clock_timestamp(), attempts = 0
FROM unnest($2::text[], $3::bigint[]) AS freed (ticket_id, parked_id)
WHERE parked.group_name = $1 AND parked.ticket_id = freed.ticket_id AND parked.parked_id = freed.parked_id
"""

_NOTE = """
UPDATE letter_job_letters AS letter
SET fate = noted.fate, acted_at = clock_timestamp()
FROM unnest($2::text[], $3::text[]) AS noted (letter_id, fate)
WHERE letter.job_id = $1 AND letter.letter_id = noted.letter_id
"""

_END = """
UPDATE letter_jobs
SET status = $2, ended_at = clock_timestamp()
WHERE job_id = $1 AND status = 'running'
RETURNING job_id
"""


class PostgresLetterBook:
    """The book on a migrated database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def blocked(self, group: str) -> Sequence[Blocked]:
        """The tickets that wait behind a dead letter, longest ago first."""
        return [
            Blocked(
                row["parked_id"],
                row["ticket_id"],
                _origin(row),
                row["error"],
                row["attempts"],
                row["failed_at"],
                row["behind"],
            )
            for row in await self._fetch(_BLOCKED, group)
        ]

    async def kept(self, group: str, parked: Blocked) -> Record | None:
        """The record a ticket waits behind; None: it does not any more."""
        rows = await self._fetch(_KEPT, group, parked.ticket_id, parked.parked_id)
        return record_in(rows[0]) if rows else None

    async def queued(self, group: str, letters: Collection[tuple[str, Origin]]) -> Set[Origin]:
        """Which of these records are in their tickets' queues and no dead letters there."""
        columns = _columns([(ticket_id, *origin) for ticket_id, origin in letters], width=5)
        return {_origin(row) for row in await self._fetch(_QUEUED, group, *columns)}

    async def acts(self, group: str) -> Mapping[str, Acted]:
        """What was done about a group's letters, by letter id."""
        rows = await self._fetch(_ACTS, group)
        return {row["letter_id"]: Acted(row["times"], Act(row["last"])) for row in rows}

    async def begin(self, job: Job, letters: Sequence[JobLetter]) -> None:
        """Note a job, and its letters in their order; see the port."""
        asked = (job.job_id, job.act, job.group, job.by, job.reason, job.rate)
        async with borrowed(self.pool) as connection, connection.transaction():
            if await connection.fetchval(_BEGIN, *asked) is not None:
                rows = [_row(letter) for letter in letters]
                await connection.execute(_BEGIN_LETTERS, job.job_id, *_columns(rows, width=15))

    async def find(self, job_id: str) -> Job | None:
        """The job as it is now."""
        rows = await self._fetch(_FIND, job_id)
        return _job(rows[0]) if rows else None

    async def latest(self, limit: int) -> Sequence[Job]:
        """Jobs, the latest first."""
        return [_job(row) for row in await self._fetch(_LATEST, limit)]

    async def running(self, group: str) -> Sequence[Job]:
        """A group's jobs that were not ended, the latest first."""
        return [_job(row) for row in await self._fetch(_STILL_RUNNING, group)]

    async def letters_of(self, job_id: str) -> Sequence[JobLetter]:
        """A job's letters in their order, each with what became of it."""
        return [_letter(row) for row in await self._fetch(_LETTERS_OF, job_id)]

    async def take(self, job_id: str, limit: int) -> Sequence[JobLetter]:
        """Act on the job's next letters, and note it, in one transaction; see the port."""
        async with borrowed(self.pool) as connection, connection.transaction():
            running = await connection.fetchrow(_RUNNING, job_id)
            if running is None:
                return []
            left = [_letter(row) for row in await connection.fetch(_LEFT, job_id, limit)]
            acting = _Acting(connection, job_id, Act(running["act"]), running["group_name"])
            fates = await acting.fates([letter for letter in left if letter.fate is Fate.PLANNED])
            await connection.execute(_NOTE, job_id, list(fates), list(fates.values()))
        return [replace(letter, fate=fates.get(letter.letter_id, letter.fate)) for letter in left]

    async def note(self, job_id: str, letter_id: str, fate: Fate) -> None:
        """Note what became of a letter that was taken."""
        await self._fetch(_NOTE, job_id, [letter_id], [fate])

    async def end(self, job_id: str, status: JobStatus) -> bool:
        """End a running job; see the port."""
        return bool(await self._fetch(_END, job_id, status))

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with borrowed(self.pool) as connection:
            return await connection.fetch(statement, *arguments)


class _Acting:
    """A job's act on some of its letters, within a transaction."""

    def __init__(self, connection: "Connection", job_id: str, act: Act, group: str) -> None:
        self._connection = connection
        self._job_id = job_id
        self._act = act
        self._group = group

    async def fates(self, letters: Sequence[JobLetter]) -> dict[str, Fate]:
        """Have those that are to be had; what became of each, by letter id."""
        there = await self._still_there(letters)
        ours = await self._claim([letter for letter in letters if letter.letter_id in there])
        if self._act is Act.REDRIVE:
            await self._free([letter for letter in letters if letter.letter_id in ours])
        taken = await self._claimed(letters)
        return {letter.letter_id: self._fate(letter, ours, taken) for letter in letters}

    def _fate(self, letter: JobLetter, ours: Set[str], claimed: Set[str]) -> Fate:
        if letter.letter_id in ours:
            return fate_of_its_own(self._act, letter)
        return Fate.ELSEWHERE if letter.letter_id in claimed else Fate.GONE

    async def _still_there(self, letters: Sequence[JobLetter]) -> Set[str]:
        """Those whose tickets wait for them, and those no ticket ever waited for."""
        pairs = [(letter.ticket_id, letter.parked_id) for letter in letters if letter.parked_id is not None]
        rows = await self._connection.fetch(_LOCK, self._group, *_columns(pairs, width=2))
        there = {row["parked_id"] for row in rows} | {None}
        return {letter.letter_id for letter in letters if letter.parked_id in there}

    async def _claim(self, letters: Sequence[JobLetter]) -> Set[str]:
        rows = await self._connection.fetch(_CLAIM, self._job_id, self._group, self._act, *_acts_of(letters))
        return {row["letter_id"] for row in rows}

    async def _claimed(self, letters: Sequence[JobLetter]) -> Set[str]:
        return {row["letter_id"] for row in await self._connection.fetch(_CLAIMED, *_acts_of(letters))}

    async def _free(self, letters: Sequence[JobLetter]) -> None:
        pairs = [(letter.ticket_id, letter.parked_id) for letter in letters if letter.parked_id is not None]
        await self._connection.execute(_FREE, self._group, *_columns(pairs, width=2))


def fate_of_its_own(act: Act, letter: JobLetter) -> Fate:
    """What becomes of a letter in the very write that takes it."""
    blocks = letter.parked_id is not None
    if act is Act.REDRIVE:
        return Fate.FREED if blocks else Fate.TAKEN
    return Fate.TAKEN if blocks else Fate.DISCARDED


def _columns(rows: Sequence[tuple[Any, ...]], *, width: int) -> list[list[Any]]:
    return [[row[nth] for row in rows] for nth in range(width)]


def _acts_of(letters: Sequence[JobLetter]) -> list[list[Any]]:
    return _columns([(letter.letter_id, letter.nth) for letter in letters], width=2)


def _row(letter: JobLetter) -> tuple[Any, ...]:
    about = (letter.letter_id, letter.nth, *letter.origin, letter.ticket_id, letter.error, letter.fingerprint)
    return (*about, letter.parked_id, *(letter.copy or (None, None, None)), letter.put_back, letter.fate)


def _origin(row: asyncpg.Record) -> Origin:
    return Origin(row["topic"], row["partition"], row["kafka_offset"], row["timestamp_ms"])


def _job(row: asyncpg.Record) -> Job:
    return Job(
        job_id=row["job_id"],
        act=Act(row["act"]),
        group=row["group_name"],
        by=row["asked_by"],
        reason=row["reason"],
        rate=row["rate"],
        status=JobStatus(row["status"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def _letter(row: asyncpg.Record) -> JobLetter:
    copy = Position(row["copy_topic"], row["copy_partition"], row["copy_offset"])
    return JobLetter(
        letter_id=row["letter_id"],
        nth=row["nth"],
        origin=_origin(row),
        ticket_id=row["ticket_id"],
        error=row["error"],
        fingerprint=row["fingerprint"],
        parked_id=row["parked_id"],
        copy=None if row["copy_topic"] is None else copy,
        put_back=row["put_back"],
        fate=Fate(row["fate"]),
        acted_at=row["acted_at"],
    )
