"""Parked tickets in PostgreSQL: every change is one statement under the lock of the ticket's row."""

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from contracts.ports import ParkedRecord, Record
from state.pool import borrowed

_LONGEST_ERROR_CHARS = 2_000

# Whoever parks a ticket at the same moment waits here for the other, and so does who meets its release.
# No row: another record is first there, or this one is a dead letter already.
_ENTER = """
INSERT INTO parked_tickets AS parked (
    group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers,
    attempts, error, due_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, clock_timestamp() + make_interval(secs => $13))
ON CONFLICT (group_name, ticket_id) DO UPDATE
SET attempts = greatest(parked.attempts, EXCLUDED.attempts), error = EXCLUDED.error, due_at = EXCLUDED.due_at,
    failed_at = EXCLUDED.failed_at
WHERE (parked.topic, parked.partition, parked.kafka_offset, parked.timestamp_ms)
    = (EXCLUDED.topic, EXCLUDED.partition, EXCLUDED.kafka_offset, EXCLUDED.timestamp_ms)
  AND parked.due_at IS NOT NULL
RETURNING parked_id
"""

# `locked` waits for a release under way and then looks again: a ticket that is parked no more is not found.
# Until this statement is committed no release can end the parking. The locks come in one order, so that two
# who queue records of the same tickets wait for each other and never in a circle.
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
WHERE group_name = $1 AND due_at <= now() + make_interval(secs => $2) AND parked_id <> ALL($4::bigint[])
ORDER BY due_at, parked_id
LIMIT $3
"""

# `next` is seen as of the statement's start. A record that joined while `locked` waited is not in it; then the
# foreign key refuses `emptied`, and the whole statement is run again. When the record was dropped before,
# nothing is changed, and the one that is first now is told.
_RELEASE = """
WITH locked AS MATERIALIZED (
    SELECT FROM parked_tickets WHERE group_name = $1 AND ticket_id = $2 AND parked_id = $3 FOR UPDATE
), next AS MATERIALIZED (
    SELECT *
    FROM parked_records
    WHERE group_name = $1 AND ticket_id = $2 AND EXISTS (SELECT FROM locked)
    ORDER BY parked_id
    LIMIT 1
), emptied AS (
    DELETE FROM parked_tickets
    WHERE group_name = $1 AND ticket_id = $2 AND parked_id = $3 AND NOT EXISTS (SELECT FROM next)
), moved AS (
    DELETE FROM parked_records USING next
    WHERE parked_records.group_name = $1 AND parked_records.ticket_id = $2
      AND parked_records.parked_id = next.parked_id
), moved_up AS (
    UPDATE parked_tickets
    SET parked_id = next.parked_id, topic = next.topic, partition = next.partition,
        kafka_offset = next.kafka_offset, timestamp_ms = next.timestamp_ms, timestamp_type = next.timestamp_type,
        key = next.key, value = next.value, headers = next.headers,
        attempts = 0, error = '', due_at = clock_timestamp()
    FROM next
    WHERE parked_tickets.group_name = $1 AND parked_tickets.ticket_id = $2
    RETURNING parked_tickets.*
), first AS (
    SELECT * FROM moved_up
    UNION ALL
    SELECT * FROM parked_tickets
    WHERE group_name = $1 AND ticket_id = $2 AND parked_id <> $3 AND due_at IS NOT NULL
)
SELECT parked_id, ticket_id, topic, partition, kafka_offset, timestamp_ms, timestamp_type, key, value, headers,
       attempts, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in_s
FROM first
"""


@dataclass(frozen=True, slots=True)
class PostgresParking:
    """Parking on a migrated database."""

    pool: asyncpg.Pool

    async def park(
        self, group: str, ticket_id: str, record: Record, *, wait_s: float, attempts: int, error: str
    ) -> None:
        """Park a ticket behind a record that is to be tried again; see the port. A dead letter stays one."""
        await self._enter(group, ticket_id, record, attempts, error, wait_s)

    async def block(self, group: str, ticket_id: str, record: Record, *, attempts: int, error: str) -> None:
        """Park a ticket behind a record that is a dead letter; see the port."""
        await self._enter(group, ticket_id, record, attempts, error, None)

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        """Put records at the end of their tickets' queues, once each, in one statement; see the port."""
        ticket_ids = [ticket_id for ticket_id, _ in followers]
        columns = zip(*(_columns(record) for _, record in followers), strict=True)
        if not ticket_ids:
            return []
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
        async with borrowed(self.pool) as connection:
            while True:
                try:
                    row = await connection.fetchrow(_RELEASE, group, ticket_id, parked_id)
                except asyncpg.ForeignKeyViolationError:
                    continue  # a record joined the queue at this very moment: now it is seen
                return None if row is None else _parked(row)

    async def _enter(
        self, group: str, ticket_id: str, record: Record, attempts: int, error: str, wait_s: float | None
    ) -> None:
        arguments = (group, ticket_id, *_columns(record), attempts, _storable(error), wait_s)
        while True:
            async with borrowed(self.pool) as connection:
                entered = await connection.fetchval(_ENTER, *arguments)
            # Not the first one: it waits behind it. Unless that one has just been released.
            if entered is not None or all(await self.queue(group, [(ticket_id, record)])):
                return


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


def _parked(row: asyncpg.Record) -> ParkedRecord:
    headers = ((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(row["headers"]))
    record = Record(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["kafka_offset"],
        timestamp=row["timestamp_ms"],
        timestamp_type=row["timestamp_type"],
        key=row["key"],
        value=row["value"],
        headers=tuple(headers),
    )
    return ParkedRecord(row["parked_id"], row["ticket_id"], record, row["attempts"], row["due_in_s"])
