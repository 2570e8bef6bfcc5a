"""Housekeeping: what nobody can need any more is deleted, a little at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from contracts.errors import Misconfigured
from contracts.topics import CATALOGUE
from state.pool import borrowed

_SEGMENT = timedelta(days=7)  # Kafka deletes whole segments, and one may be filled for so long (`segment.ms`)

LEAST_INBOX = timedelta(milliseconds=max(topic.retention_ms for topic in CATALOGUE)) + _SEGMENT
"""How long a record that an agent handled may lie in its topic, whichever that is, to be read again after a rewind."""

PAGES = 256
"""Of 8 KiB, in one transaction: of those the rows are locked, for some tens of milliseconds."""

_AGE_OF_TABLE = {
    "inbox": "handled_at",
    "emitted": "published_at",
    "journal": "kept_at",
    "model_calls": "opened_at",
    "recordings": "recorded_at",
    "setbacks": "happened_at",
}

# Two at once do not wait for each other: the second one finds the table taken.
_TAKE = "SELECT page FROM housekeeping WHERE table_name = $1 FOR UPDATE SKIP LOCKED"
_GO_ON = "UPDATE housekeeping SET page = $2 WHERE table_name = $1"
_SIZE = "SELECT pg_relation_size($1::regclass) / current_setting('block_size')::integer"
_DELETE = """
WITH gone AS (
    DELETE FROM {table}
    WHERE ctid >= format('(%s,0)', $1::bigint)::tid AND ctid < format('(%s,0)', $2::bigint)::tid
      AND {age} < clock_timestamp() - $3::interval
    RETURNING 1
)
SELECT count(*) FROM gone
"""
_DELETE_LEASES = """
WITH gone AS (DELETE FROM leases WHERE expires_at < clock_timestamp() - $1::interval RETURNING 1)
SELECT count(*) FROM gone
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows stay, at least. Raises Misconfigured: inbox rows would be gone before the records they are about.

    A record that comes again after its inbox row is gone is handled again, so the inbox must outlast the topics that
    agents read. What outlasts it in turn is a dead letter: redriven twice, further apart than this, it is handled
    twice (its effects still happen once).
    """

    inbox: timedelta = LEAST_INBOX + timedelta(days=3)
    emitted: timedelta = timedelta(days=30)  # what was published, for timelines
    journal: timedelta = timedelta(days=10)  # paid results: longer than an event may be tried for
    model_calls: timedelta = timedelta(days=365)  # what was paid for
    recordings: timedelta = timedelta(days=30)  # answers for replays
    setbacks: timedelta = timedelta(days=90)  # for timelines: as long as dead letters lie in their topics
    leases: timedelta = timedelta(days=1)  # after they ended

    def __post_init__(self) -> None:
        if self.inbox < LEAST_INBOX:
            raise Misconfigured(f"the inbox must be kept for {LEAST_INBOX} at least: records are as old as that")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a call deleted: rows by table. `is_through`: every table was looked at to its end."""

    rows: Mapping[str, int] = field(default_factory=dict)
    is_through: bool = True


@dataclass(frozen=True, slots=True)
class PostgresHousekeeping:
    """Deletes old inbox rows, published records, paid results and dead leases. An unpublished record is never one.

    A sweep walks through each table by its pages, a batch in a transaction, and goes on where the last call ended,
    whoever made it. So it needs no index on the age of rows, which every step would pay for, and reads a table once
    a round. Partitions by day would be dropped faster, but the inbox could not have them: its key, group and event,
    must be unique over all of them, and PostgreSQL knows no such thing.
    Deleted rows' room is used again once autovacuum was there; it is set to come early on these tables.
    """

    pool: asyncpg.Pool
    pages: int = PAGES  # a batch
    batches: int = 16  # of each table, in one call

    async def prune(self, keep: Retention) -> Pruned:
        """Do a bounded part of the work. Call it again soon while it is not through."""
        ages = {table: getattr(keep, table) for table in _AGE_OF_TABLE}
        rows, is_through = {}, True
        for table, age in ages.items():
            rows[table], ended = await self._sweep(table, age)
            is_through = is_through and ended
        async with borrowed(self.pool) as connection:
            rows["leases"] = await connection.fetchval(_DELETE_LEASES, keep.leases)
        return Pruned(rows, is_through)

    async def _sweep(self, table: str, age: timedelta) -> tuple[int, bool]:
        deleted = 0
        for _ in range(self.batches):
            count, ended = await self._batch(table, age)
            deleted += count
            if ended:
                return deleted, True
        return deleted, False

    async def _batch(self, table: str, age: timedelta) -> tuple[int, bool]:
        """Delete what is old on the next pages; returns how many rows, and whether these pages were the last."""
        async with borrowed(self.pool) as connection, connection.transaction():
            page = await connection.fetchval(_TAKE, table)
            if page is None:  # in others' hands
                return 0, True
            delete = _DELETE.format(table=table, age=_AGE_OF_TABLE[table])
            deleted = await connection.fetchval(delete, page, page + self.pages, age)
            ended = page + self.pages >= await connection.fetchval(_SIZE, table)
            await connection.execute(_GO_ON, table, 0 if ended else page + self.pages)
            return deleted, ended
