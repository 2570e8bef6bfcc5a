"""Parked tickets in PostgreSQL: every change is one statement under the locks of the tickets' rows."""

import base64
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import asyncpg

from contracts.ports import ParkedRecord, Record
from state.pool import borrowed
from state.together import Together

_LONGEST_ERROR_CHARS = 2_000
_AT_ONCE = 200  # tickets in one statement

# Whoever parks a ticket at the same moment waits here for the other, and so does who meets its release.
# Not returned: a ticket with another record first, or with this one as a dead letter already.
_ENTER = """
WITH entered AS (
    INSERT INTO parked_tickets AS parked (
        group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers,
        attempts, error, due_at
    )
    SELECT group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value,
           headers::json, attempts, error, clock_timestamp() + make_interval(secs => wait_s)
    FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::smallint[],
                $8::bytea[], $9::bytea[], $10::text[], $11::integer[], $12::text[], $13::float8[])
         AS entering (group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type,
                      key, value, headers, attempts, error, wait_s)
    ORDER BY group_name, ticket_id
    ON CONFLICT (group_name, ticket_id) DO UPDATE
    SET attempts = greatest(parked.attempts, EXCLUDED.attempts), error = EXCLUDED.error, due_at = EXCLUDED.due_at,
        failed_at = EXCLUDED.failed_at
    WHERE (parked.topic, parked.partition, parked.kafka_offset, parked.timestamp_ms)
        = (EXCLUDED.topic, EXCLUDED.partition, EXCLUDED.kafka_offset, EXCLUDED.timestamp_ms)
      AND parked.due_at IS NOT NULL
    RETURNING parked.*
), noted AS (
    INSERT INTO setbacks (ticket_id, group_name, topic, partition, kafka_offset, attempts, error, due_at)
    SELECT ticket_id, group_name, topic, partition, kafka_offset, attempts, error, due_at
    FROM entered
)
SELECT group_name, ticket_id FROM entered
"""

# `locked` waits for a release under way and then looks again: a ticket that is parked no more is not found.
# Until this statement is committed no release can end the parking. Here as above and below the locks come in one
# order, so that two who want the same tickets wait for each other and never in a circle.
_QUEUE = """
WITH locked AS MATERIALIZED (
    SELECT ticket_id, topic, partition, kafka_offset, timestamp_ms
    FROM parked_tickets
    WHERE group_name = $1 AND ticket_id = ANY($2::text[])
    ORDER BY ticket_id
    FOR UPDATE
), added AS (
    INSERT INTO parked_records (
        group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers
    )
    SELECT $1, later.ticket_id, later.topic, later.partition, later.kafka_offset, later.timestamp_ms,
           later.timestamp_type, later.key, later.value, later.headers::json
    FROM unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::smallint[],
                $8::bytea[], $9::bytea[], $10::text[])
         WITH ORDINALITY AS later (ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type,
                                   key, value, headers, place)
    JOIN locked USING (ticket_id)
    WHERE (later.topic, later.partition, later.kafka_offset, later.timestamp_ms)
       <> (locked.topic, locked.partition, locked.kafka_offset, locked.timestamp_ms)
    ORDER BY later.place
    ON CONFLICT DO NOTHING
)
SELECT ticket_id FROM locked
"""

# now() bounds the index scan, as clock_timestamp() could not; what is still to wait is told at the last moment.
_DUE = """
SELECT parked_id, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers,
       attempts, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in_s
FROM parked_tickets
WHERE group_name = $1 AND due_at <= now() + make_interval(secs => $2) AND parked_id NOT IN (SELECT unnest($4::bigint[]))
ORDER BY due_at, parked_id
LIMIT $3
"""

# `next` is seen as of the statement's start. A record that joined while `locked` waited is not in it; then the
# foreign key refuses `emptied`, and the whole statement is run again. Where the record was dropped before, nothing
# is changed, and the one that is first now is told.
_RELEASE = """
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked (group_name, ticket_id, parked_id)
), locked AS MATERIALIZED (
    SELECT group_name, ticket_id
    FROM parked_tickets AS parked JOIN asked USING (group_name, ticket_id, parked_id)
    ORDER BY group_name, ticket_id
    FOR UPDATE OF parked
), next AS MATERIALIZED (
    SELECT later.*
    FROM locked CROSS JOIN LATERAL (
        SELECT * FROM parked_records AS waiting
        WHERE waiting.group_name = locked.group_name AND waiting.ticket_id = locked.ticket_id
        ORDER BY parked_id
        LIMIT 1
    ) AS later
), emptied AS (
    DELETE FROM parked_tickets AS parked USING locked
    WHERE parked.group_name = locked.group_name AND parked.ticket_id = locked.ticket_id
      AND (locked.group_name, locked.ticket_id) NOT IN (SELECT group_name, ticket_id FROM next)
), moved AS (
    DELETE FROM parked_records AS waiting USING next
    WHERE waiting.group_name = next.group_name AND waiting.ticket_id = next.ticket_id
      AND waiting.parked_id = next.parked_id
), moved_up AS (
    UPDATE parked_tickets AS parked
    SET parked_id = next.parked_id, topic = next.topic, partition = next.partition,
        kafka_offset = next.kafka_offset, timestamp_ms = next.timestamp_ms, timestamp_type = next.timestamp_type,
        key = next.key, value = next.value, headers = next.headers,
        attempts = 0, error = '', due_at = clock_timestamp()
    FROM next
    WHERE parked.group_name = next.group_name AND parked.ticket_id = next.ticket_id
    RETURNING parked.*
), first AS (
    SELECT * FROM moved_up
    UNION ALL
    SELECT parked.*
    FROM asked JOIN parked_tickets AS parked USING (group_name, ticket_id)
    WHERE parked.parked_id <> asked.parked_id AND due_at IS NOT NULL
)
SELECT group_name, parked_id, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type,
       key, value, headers, attempts, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in_s
FROM first
"""


class _Entry(NamedTuple):
    """A record behind which a ticket is to be parked."""

    group: str
    ticket_id: str
    record: Record
    attempts: int
    error: str
    wait_s: float | None  # None: it is a dead letter


class _Settled(NamedTuple):
    """A first record that is to be dropped."""

    group: str
    ticket_id: str
    parked_id: int


class PostgresParking:
    """Parking on a migrated database. Tickets parked, or released, at the same moment share one statement."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self._enter = Together(self._enter_all, key=_ticket_of, limit=_AT_ONCE)
        self._release = Together(self._release_all, key=_ticket_of, limit=_AT_ONCE)

    async def park(
        self, group: str, ticket_id: str, record: Record, *, wait_s: float, attempts: int, error: str
    ) -> None:
        """Park a ticket behind a record that is to be tried again; see the port. A dead letter stays one."""
        await self._park(_Entry(group, ticket_id, record, attempts, _storable(error), wait_s))

    async def block(self, group: str, ticket_id: str, record: Record, *, attempts: int, error: str) -> None:
        """Park a ticket behind a record that is a dead letter; see the port."""
        await self._park(_Entry(group, ticket_id, record, attempts, _storable(error), None))

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        """Put records at the end of their tickets' queues, once each, in one statement; see the port."""
        ticket_ids = [ticket_id for ticket_id, _ in followers]
        if not ticket_ids:
            return []
        columns = zip(*(_columns(record) for _, record in followers), strict=True)
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_QUEUE, group, ticket_ids, *columns)
        parked = {row["ticket_id"] for row in rows}
        return [ticket_id in parked for ticket_id in ticket_ids]

    async def due(
        self, group: str, *, within_s: float, limit: int, besides: Collection[int] = ()
    ) -> Sequence[ParkedRecord]:
        """The first records of queues that fall due within so many seconds, earliest first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_DUE, group, within_s, limit, list(besides))
        return [_parked(row) for row in rows]

    async def release(self, group: str, ticket_id: str, parked_id: int) -> ParkedRecord | None:
        """Drop a first record that is settled, and move the next one up; see the port."""
        return await self._release(_Settled(group, ticket_id, parked_id))

    async def _park(self, entry: _Entry) -> None:
        """Make the record the first of its ticket's queue, or let it wait behind the one that is."""
        while not await self._enter(entry):
            if all(await self.queue(entry.group, [(entry.ticket_id, entry.record)])):
                return  # otherwise that one was released at this very moment

    async def _enter_all(self, entries: Sequence[_Entry]) -> Sequence[bool]:
        rows = [(e.group, e.ticket_id, *_columns(e.record), e.attempts, e.error, e.wait_s) for e in entries]
        async with borrowed(self.pool) as connection:
            entered = await connection.fetch(_ENTER, *zip(*rows, strict=True))
        first = {(row["group_name"], row["ticket_id"]) for row in entered}
        return [_ticket_of(entry) in first for entry in entries]

    async def _release_all(self, settled: Sequence[_Settled]) -> Sequence[ParkedRecord | None]:
        async with borrowed(self.pool) as connection:
            while True:
                try:
                    rows = await connection.fetch(_RELEASE, *zip(*settled, strict=True))
                except asyncpg.ForeignKeyViolationError:
                    continue  # a record joined a queue at this very moment: now it is seen
                break
        first = {(row["group_name"], row["ticket_id"]): _parked(row) for row in rows}
        return [first.get(_ticket_of(one)) for one in settled]


def _ticket_of(one: _Entry | _Settled) -> tuple[str, str]:
    return one.group, one.ticket_id


def _columns(record: Record) -> tuple[Any, ...]:
    return (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        json.dumps([(name, None if value is None else _base64(value)) for name, value in record.headers]),
    )


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _storable(error: str) -> str:
    """What a text column can hold of it: no NUL, no half characters, no novel."""
    text = error[:_LONGEST_ERROR_CHARS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode("utf-8")


def record_in(row: asyncpg.Record) -> Record:
    """The record that a row of either table holds."""
    headers = ((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(row["headers"]))
    return Record(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["kafka_offset"],
        timestamp=row["timestamp_ms"],
        timestamp_type=row["timestamp_type"],
        key=row["key"],
        value=row["value"],
        headers=tuple(headers),
    )


def _parked(row: asyncpg.Record) -> ParkedRecord:
    return ParkedRecord(row["parked_id"], row["ticket_id"], record_in(row), row["attempts"], row["due_in_s"])
