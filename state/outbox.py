"""The outbox: what is stored and has still to be published, each row in the hands of one worker."""

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from contracts.ports import OutgoingRecord, Position, Published, Settlement, StoredRecord, TimelineEntry, worker_lease
from state import timeline
from state.leases import MemoryLeases
from state.pool import borrowed

START_GRACE_S = 10.0
"""So young must a row of an owner without any lease be for its owner to count as living: it may be just starting."""

_LOCK = 0x4F55_5442_4F58

# `owners` skips from one to the next in the index, however many rows each has, and ends with null. Those that are not
# `dead` are living, and their rows hold back what comes after them in their ticket and topic. A row that is being
# marked as published at this moment is waited for, and then is not there any more.
_TAKE_OVER = """
WITH RECURSIVE owners AS (
    SELECT min(owner) AS owner FROM outbox
    UNION ALL
    SELECT (SELECT min(outbox.owner) FROM outbox WHERE outbox.owner > owners.owner)
    FROM owners
    WHERE owner IS NOT NULL
), dead AS MATERIALIZED (
    SELECT owners.owner, owners.owner = '' OR leases.name IS NOT NULL AS surely
    FROM owners
    LEFT JOIN leases ON leases.name = 'worker/' || owners.owner
    WHERE owners.owner <> $1 AND (leases.name IS NULL OR leases.expires_at <= clock_timestamp())
), free AS MATERIALIZED (
    SELECT waiting.id
    FROM dead
    CROSS JOIN LATERAL (
        SELECT id
        FROM outbox AS late
        WHERE owner = dead.owner
          AND (dead.surely OR created_at <= clock_timestamp() - make_interval(secs => $3))
          AND (
              SELECT id
              FROM outbox AS earlier
              WHERE earlier.ticket_id = late.ticket_id AND earlier.topic = late.topic AND earlier.id < late.id
                AND earlier.owner <> $1
                AND NOT EXISTS (
                    SELECT
                    FROM dead AS its_owner
                    WHERE its_owner.owner = earlier.owner
                      AND (surely OR earlier.created_at <= clock_timestamp() - make_interval(secs => $3))
                )
              LIMIT 1
          ) IS NULL
        ORDER BY id
        LIMIT $2
    ) AS waiting
    WHERE EXISTS (SELECT FROM leases WHERE name = 'worker/' || $1 AND expires_at > clock_timestamp())
    ORDER BY id
    LIMIT $2
)
UPDATE outbox
SET owner = $1
WHERE id = ANY(ARRAY(SELECT id FROM free))
RETURNING id, event_id, type, ticket_id, topic, value, headers
"""

# Only who deletes a row writes its history, so the first note stays.
_MARK_PUBLISHED = """
WITH gone AS (
    DELETE FROM outbox
    WHERE id = ANY($1::bigint[])
    RETURNING id, event_id, type, ticket_id, topic, value, group_name, caused_by, created_at
)
INSERT INTO emitted (id, event_id, type, ticket_id, topic, value, group_name, caused_by, created_at,
                     partition, kafka_offset)
SELECT id, event_id, type, ticket_id, topic, value, group_name, caused_by, created_at,
       acked.partition, acked.kafka_offset
FROM gone
JOIN ROWS FROM (
    unnest($1::bigint[], $2::integer[], $3::bigint[]), generate_series(1, cardinality($1::bigint[]))
) AS acked (id, partition, kafka_offset, place) USING (id)
"""


@dataclass(frozen=True, slots=True)
class PostgresOutbox:
    """Outbox on a migrated database."""

    pool: asyncpg.Pool

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that rows were acknowledged by Kafka; the first note on a row stays."""
        places = {one.outbox_id: one.position for one in reversed(published)}
        partitions = [position.partition for position in places.values()]
        offsets = [position.offset for position in places.values()]
        async with borrowed(self.pool) as connection:
            await connection.execute(_MARK_PUBLISHED, list(places), partitions, offsets)

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        """Make rows this owner's that are nobody's any more; see the port. None without a lease of its own.

        An owner without any lease, even an ended one, is left its rows for START_GRACE_S.
        """
        async with borrowed(self.pool) as connection, connection.transaction():
            # Two at once could share out one ticket's records. The lock comes in a statement of its own: the next
            # one then sees what the other took.
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            rows = await connection.fetch(_TAKE_OVER, owner, limit, START_GRACE_S)
        return sorted(map(stored_record, rows), key=lambda stored: stored.outbox_id)


@dataclass(slots=True)
class _Row:
    stored: StoredRecord
    group: str
    caused_by: str
    owner: str | None
    at: datetime
    since: float
    published: Position | None = None

    @property
    def queue(self) -> tuple[str, str]:
        """What it is in order with."""
        return self.stored.record.ticket_id, self.stored.record.topic

    @property
    def event(self) -> tuple[str, str, str]:
        """What it was stored for, by which group, and its ticket."""
        return self.group, self.caused_by, self.stored.record.ticket_id


@dataclass(slots=True)
class MemoryOutbox:
    """Outbox in memory; `clock` counts seconds and stands for the database's. Published rows stay, as history."""

    leases: MemoryLeases = field(default_factory=MemoryLeases)
    clock: Callable[[], float] = time.monotonic
    _rows: list[_Row] = field(default_factory=list)
    _unpublished: dict[int, _Row] = field(default_factory=dict)  # in the order of their ids, as the next one
    _queues: dict[tuple[str, str], dict[int, _Row]] = field(default_factory=dict)  # the same, by ticket and topic

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that rows were acknowledged by Kafka; the first note on a row stays."""
        for one in published:
            row = self._unpublished.pop(one.outbox_id, None)
            if row is not None:
                row.published = one.position
                del self._queues[row.queue][one.outbox_id]

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        """Make rows this owner's that are nobody's any more; see the port. None without a lease of its own."""
        if not self.leases.is_held(worker_lease(owner)):
            return []
        free: list[_Row] = []
        held_back: set[tuple[str, str]] = set()
        for row in self._unpublished.values():
            if self._in_hands(row):
                if row.owner != owner:
                    held_back.add(row.queue)
            elif row.queue not in held_back and len(free) < limit:
                free.append(row)
        for row in free:
            row.owner = owner
        return [row.stored for row in free]

    def store(self, settlement: Settlement, owner: str | None) -> Sequence[StoredRecord]:
        """Add what a settlement emits; returns the rows that are the owner's."""
        rows = [self._add(record, settlement.group, settlement.event.id, owner) for record in settlement.outgoing]
        return [row.stored for row in rows if row.owner is not None]

    def leave(self, record: OutgoingRecord, group: str, caused_by: str) -> None:
        """Add a row that is nobody's, for whoever takes it over."""
        self._add(record, group, caused_by, None)

    def left_of(self, settlement: Settlement, owner: str | None) -> Sequence[StoredRecord]:
        """The rows that a settled event left on its ticket, and its owner has still to publish."""
        event = (settlement.group, settlement.event.id, settlement.ticket.ticket_id)
        rows = self._unpublished.values()
        return [row.stored for row in rows if row.event == event and row.owner == owner]

    def entries_of(self, ticket_id: str) -> Iterable[TimelineEntry]:
        """What the ticket emitted, as its timeline tells it."""
        for row in self._rows:
            record = row.stored.record
            if record.ticket_id == ticket_id:
                detail = timeline.emitted(record, row.group, row.caused_by, row.published)
                yield TimelineEntry(row.at, timeline.EMITTED, detail)

    def _add(self, record: OutgoingRecord, group: str, caused_by: str, owner: str | None) -> _Row:
        stored = StoredRecord(len(self._rows) + 1, record)
        row = _Row(stored, group, caused_by, owner, datetime.now(UTC), self.clock())
        queue = self._queues.setdefault(row.queue, {})
        if any(earlier.owner != owner for earlier in queue.values()):
            row.owner = None
        self._rows.append(row)
        self._unpublished[stored.outbox_id] = queue[stored.outbox_id] = row
        return row

    def _in_hands(self, row: _Row) -> bool:
        if row.owner is None:
            return False
        lease = worker_lease(row.owner)
        if self.leases.is_known(lease):
            return self.leases.is_held(lease)
        return self.clock() - row.since < START_GRACE_S


def headers_in_bytes(headers: Sequence[tuple[str, bytes]]) -> bytes:
    """Headers as the outbox keeps them: how many parts, the length of each, then names and values in turn."""
    parts: list[bytes] = []
    for name, value in headers:
        parts.append(name.encode())
        parts.append(value)
    return struct.pack(f">{len(parts) + 1}I", len(parts), *map(len, parts)) + b"".join(parts)


def headers_from_bytes(kept: bytes) -> tuple[tuple[str, bytes], ...]:
    """Undo `headers_in_bytes`."""
    (count,) = struct.unpack_from(">I", kept)
    lengths = struct.unpack_from(f">{count}I", kept, 4)
    parts, start = [], 4 + 4 * count
    for length in lengths:
        parts.append(kept[start : start + length])
        start += length
    return tuple((name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True))


def stored_record(row: asyncpg.Record) -> StoredRecord:
    """An outbox row as it is handed out."""
    record = OutgoingRecord(
        event_id=row["event_id"],
        type=row["type"],
        ticket_id=row["ticket_id"],
        topic=row["topic"],
        value=row["value"],
        headers=headers_from_bytes(row["headers"]),
    )
    return StoredRecord(row["id"], record)
