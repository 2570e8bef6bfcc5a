"""How far a group is: what its inbox and its parking say of a topic's records, at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from contracts.lag_ports import Asked, Place, Progress, Queued
from contracts.ports import Wanted
from state.memory_parking import MemoryParking
from state.memory_tickets import MemoryTickets
from state.pool import borrowed

_AT_ONCE = 5_000  # ids in one statement

_HANDLED = "SELECT event_id FROM inbox WHERE group_name = $1 AND event_id = ANY($2::text[])"
_PARKED = """
SELECT partition, kafka_offset, timestamp_ms
FROM parked_tickets WHERE group_name = $1 AND topic = $2 AND ticket_id = ANY($3::text[])
UNION ALL
SELECT partition, kafka_offset, timestamp_ms
FROM parked_records WHERE group_name = $1 AND topic = $2 AND ticket_id = ANY($3::text[])
"""
_QUEUES = """
SELECT partition,
       count(*) FILTER (WHERE is_due) AS waiting,
       count(*) FILTER (WHERE NOT is_due AND NOT is_first) AS blocked,
       count(*) FILTER (WHERE NOT is_due AND is_first) AS dead_letters,
       min(timestamp_ms) FILTER (WHERE is_due AND timestamp_ms > 0) AS oldest_ms
FROM (
    SELECT topic, partition, timestamp_ms, due_at IS NOT NULL AS is_due, true AS is_first
    FROM parked_tickets
    WHERE group_name = $1
    UNION ALL
    SELECT behind.topic, behind.partition, behind.timestamp_ms, first.due_at IS NOT NULL, false
    FROM parked_tickets AS first
    JOIN parked_records AS behind USING (group_name, ticket_id)
    WHERE group_name = $1
) AS queued
WHERE topic = $2
GROUP BY partition
ORDER BY partition
"""


@dataclass(frozen=True, slots=True)
class PostgresProgress:
    """ProgressStore on a migrated database."""

    pool: asyncpg.Pool

    async def progress(self, group: str, topic: str, asked: Sequence[Asked]) -> Progress:
        """All of it as of one moment, in one snapshot: a record that is settled meanwhile is not told twice."""
        events = [one.event_id for one in asked if one.event_id is not None]
        tickets = list({one.ticket_id for one in asked if one.ticket_id is not None})
        handled: set[str] = set()
        parked: set[Place] = set()
        async with (
            borrowed(self.pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            for some in _in_parts(events):
                handled.update(row[0] for row in await connection.fetch(_HANDLED, group, some))
            for some in _in_parts(tickets):
                parked.update(Place(*row) for row in await connection.fetch(_PARKED, group, topic, some))
            queues = [Queued(*row) for row in await connection.fetch(_QUEUES, group, topic)]
        return Progress(frozenset(handled), frozenset(parked), queues)


@dataclass(frozen=True, slots=True)
class MemoryProgress:
    """ProgressStore over stores in memory."""

    tickets: MemoryTickets
    parking: MemoryParking

    async def progress(self, group: str, topic: str, asked: Sequence[Asked]) -> Progress:
        """All of it as of one moment: nothing here waits."""
        wanted = [Wanted(one.event_id, "", with_ticket=False) for one in asked if one.event_id is not None]
        known = await self.tickets.look_up(group, wanted)
        tickets = {one.ticket_id for one in asked}
        parked: set[Place] = set()
        queues: dict[int, Queued] = {}
        for ticket_id, record, is_due, is_first in self.parking.queued(group):
            if record.topic != topic:
                continue
            if ticket_id in tickets:
                parked.add(Place(record.partition, record.offset, record.timestamp))
            before = queues.get(record.partition, Queued(record.partition))
            queues[record.partition] = _with(before, record.timestamp, is_due=is_due, is_first=is_first)
        return Progress(known.handled, frozenset(parked), [queues[partition] for partition in sorted(queues)])


def _in_parts(ids: Sequence[str]) -> Sequence[Sequence[str]]:
    return [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]


def _with(queued: Queued, timestamp_ms: int, *, is_due: bool, is_first: bool) -> Queued:
    """The same with one more record."""
    ages = [ms for ms in (queued.oldest_ms, timestamp_ms if is_due and timestamp_ms > 0 else None) if ms is not None]
    return Queued(
        queued.partition,
        queued.waiting + is_due,
        queued.blocked + (not is_due and not is_first),
        queued.dead_letters + (not is_due and is_first),
        min(ages, default=None),
    )
