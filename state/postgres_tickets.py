"""Tickets, inbox and outbox in PostgreSQL: a step is one statement."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from contracts.errors import TenantMismatch, VersionConflict
from contracts.ports import OutgoingRecord, Published, Settlement, StoredRecord, TimelineEntry
from contracts.ticket import Ticket
from state import timeline
from state.documents import from_json, to_json
from state.pool import borrowed

# One statement, so all or nothing. Why it is right under READ COMMITTED:
# - `loaded` waits for whoever holds the ticket and then looks again: a ticket that moved on is not found.
# - `marked` comes after it, so no inbox row without the right version. An event that another settles at the
#   same moment makes it wait, and then do nothing.
# - A new ticket has no row to wait for. Two that create it at once both pass `marked`, and the later one fails
#   in `created` on the primary key, which undoes its inbox row too.
_SETTLE = """
WITH loaded AS MATERIALIZED (
    SELECT state = $9::jsonb AS unchanged
    FROM tickets
    WHERE ticket_id = $1 AND tenant_id = $2 AND version = $3
    FOR UPDATE
), marked AS (
    INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, traceparent, version)
    SELECT $4, $5, $6, $1, $10, $11, $12, $13,
           $3 + CASE WHEN (SELECT unchanged FROM loaded) THEN 0 ELSE 1 END
    WHERE EXISTS (SELECT FROM loaded)
       OR ($3 = 0 AND NOT EXISTS (SELECT FROM tickets WHERE ticket_id = $1))
    ON CONFLICT (group_name, event_id) DO NOTHING
    RETURNING version
), created AS (
    INSERT INTO tickets (ticket_id, tenant_id, version, status, round, state)
    SELECT $1, $2, version, $7, $8, $9::jsonb FROM marked WHERE $3 = 0
), changed AS (
    UPDATE tickets
    SET version = marked.version, status = $7, round = $8, state = $9::jsonb, updated_at = now()
    FROM marked
    WHERE ticket_id = $1 AND $3 > 0 AND marked.version > $3
), stored AS (
    INSERT INTO outbox (event_id, type, ticket_id, topic, value, headers, group_name, caused_by)
    SELECT o.event_id, o.type, o.ticket_id, o.topic, o.value, o.headers::jsonb, $4, $5
    FROM marked, unnest($14::text[], $15::text[], $16::text[], $17::text[], $18::bytea[], $19::text[])
         WITH ORDINALITY AS o (event_id, type, ticket_id, topic, value, headers, place)
    ORDER BY o.place
    RETURNING id
)
SELECT EXISTS (SELECT FROM marked) AS settled, ARRAY(SELECT id FROM stored ORDER BY id) AS outbox_ids
"""

_WHY_NOT = """
SELECT EXISTS (SELECT FROM inbox WHERE group_name = $1 AND event_id = $2) AS handled,
       (SELECT tenant_id FROM tickets WHERE ticket_id = $3) AS tenant_id
"""

# A ticket with an older record in someone's hands is passed over, so that its records stay in order.
_CLAIM = """
WITH mine AS MATERIALIZED (
    SELECT id
    FROM outbox AS waiting
    WHERE published_at IS NULL
      AND created_at <= now() - make_interval(secs => $1)
      AND (claimed_until IS NULL OR claimed_until <= now())
      AND NOT EXISTS (
          SELECT FROM outbox AS earlier
          WHERE earlier.ticket_id = waiting.ticket_id AND earlier.id < waiting.id
            AND earlier.published_at IS NULL AND earlier.claimed_until > now()
      )
    ORDER BY id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox
SET claimed_until = now() + make_interval(secs => $2)
FROM mine
WHERE outbox.id = mine.id
RETURNING outbox.id, event_id, type, ticket_id, topic, value, headers
"""
_CLAIM_LOCK = 0x4F55_5442_4F58

_MARK_PUBLISHED = """
UPDATE outbox
SET published_at = now(), claimed_until = NULL, partition = acked.partition, kafka_offset = acked.kafka_offset
FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS acked (id, partition, kafka_offset)
WHERE outbox.id = acked.id AND published_at IS NULL
"""

_TIMELINE = """
SELECT handled_at AS at, 0 AS kind, version AS place,
       jsonb_build_object('event_id', event_id, 'type', type, 'group', group_name, 'topic', topic,
                          'partition', partition, 'offset', kafka_offset, 'version', version,
                          'traceparent', traceparent) AS detail,
       NULL::bytea AS value
FROM inbox WHERE ticket_id = $1
UNION ALL
SELECT created_at, 1, id,
       jsonb_build_object('event_id', event_id, 'type', type, 'group', group_name, 'caused_by', caused_by,
                          'topic', topic, 'partition', partition, 'offset', kafka_offset),
       value
FROM outbox WHERE ticket_id = $1
UNION ALL
SELECT applied_at, 2, 0,
       jsonb_build_object('kind', kind, 'effect_key', effect_key, 'order_id', order_id, 'amount', amount),
       NULL
FROM effects WHERE ticket_id = $1
ORDER BY at, kind, place
"""
_KINDS = (timeline.HANDLED, timeline.EMITTED, timeline.EFFECT)


@dataclass(frozen=True, slots=True)
class PostgresTickets:
    """TicketStore and Timelines on a migrated database."""

    pool: asyncpg.Pool

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""
        async with borrowed(self.pool) as connection:
            text = await connection.fetchval(
                "SELECT state || jsonb_build_object('version', version) FROM tickets WHERE ticket_id = $1", ticket_id
            )
        return None if text is None else from_json(Ticket, text)

    async def handled(self, group: str, event_id: str) -> bool:
        """Whether the group has settled this event."""
        async with borrowed(self.pool) as connection:
            found = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM inbox WHERE group_name = $1 AND event_id = $2)", group, event_id
            )
        return bool(found)

    async def settle(self, settlement: Settlement) -> Sequence[StoredRecord] | None:
        """Store inbox row, ticket and outbox rows in one statement; see the port.

        StoreUnavailable leaves the outcome unknown: settle again, and None says that it had been stored.
        """
        arguments = _settle_arguments(settlement)
        async with borrowed(self.pool) as connection:
            try:
                row = await connection.fetchrow(_SETTLE, *arguments)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name != "tickets_pkey":
                    raise
                row = None  # somebody else created the ticket at the same moment
            if row is None or not row["settled"]:
                await self._refuse_unless_duplicate(connection, settlement)
                return None
        pairs = zip(row["outbox_ids"], settlement.outgoing, strict=True)
        return [StoredRecord(outbox_id, record) for outbox_id, record in pairs]

    async def claim_unpublished(self, *, older_than_s: float, lease_s: float, limit: int) -> Sequence[StoredRecord]:
        """Lease what lies unpublished, oldest first; a ticket's records go to one claimant at a time."""
        async with borrowed(self.pool) as connection, connection.transaction():
            # Two claims at once could share out one ticket's records. The lock comes in a statement of its own:
            # the next one then sees what the other claimant took.
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _CLAIM_LOCK)
            rows = await connection.fetch(_CLAIM, older_than_s, lease_s, limit)
        return sorted((_stored_record(row) for row in rows), key=lambda stored: stored.outbox_id)

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that outbox rows were acknowledged by Kafka; the first note on a row stays."""
        ids = [one.outbox_id for one in published]
        partitions = [one.position.partition for one in published]
        offsets = [one.position.offset for one in published]
        async with borrowed(self.pool) as connection:
            await connection.execute(_MARK_PUBLISHED, ids, partitions, offsets)

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Everything known of the ticket, oldest first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_TIMELINE, ticket_id)
        return [_entry(row) for row in rows]

    async def _refuse_unless_duplicate(self, connection: Any, settlement: Settlement) -> None:
        """Tell a duplicate from a lost race; a statement of its own, to see what the winner committed."""
        ticket, event_id = settlement.ticket, settlement.event.id
        why = await connection.fetchrow(_WHY_NOT, settlement.group, event_id, ticket.ticket_id)
        if why["handled"]:
            return
        if why["tenant_id"] not in (None, ticket.tenant_id):
            raise TenantMismatch(f"ticket {ticket.ticket_id} is another tenant's")
        structlog.get_logger().info(
            "ticket moved on", ticket_id=ticket.ticket_id, version=ticket.version, event_id=event_id
        )
        raise VersionConflict(f"ticket {ticket.ticket_id} is no longer at version {ticket.version}")


def _settle_arguments(settlement: Settlement) -> tuple[Any, ...]:
    ticket, event, position, outgoing = (
        settlement.ticket,
        settlement.event,
        settlement.position,
        settlement.outgoing,
    )
    return (
        ticket.ticket_id,
        ticket.tenant_id,
        ticket.version,
        settlement.group,
        event.id,
        event.type,
        ticket.status,
        len(ticket.rounds),
        to_json(ticket, exclude={"version"}),
        position.topic,
        position.partition,
        position.offset,
        event.traceparent,
        [record.event_id for record in outgoing],
        [record.type for record in outgoing],
        [record.ticket_id for record in outgoing],
        [record.topic for record in outgoing],
        [record.value for record in outgoing],
        [_headers_to_json(record.headers) for record in outgoing],
    )


def _stored_record(row: asyncpg.Record) -> StoredRecord:
    record = OutgoingRecord(
        event_id=row["event_id"],
        type=row["type"],
        ticket_id=row["ticket_id"],
        topic=row["topic"],
        value=row["value"],
        headers=_headers_from_json(row["headers"]),
    )
    return StoredRecord(row["id"], record)


def _headers_to_json(headers: Sequence[tuple[str, bytes]]) -> str:
    return json.dumps([[name, base64.b64encode(value).decode("ascii")] for name, value in headers])


def _headers_from_json(text: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, base64.b64decode(value)) for name, value in json.loads(text))


def _entry(row: asyncpg.Record) -> TimelineEntry:
    detail = json.loads(row["detail"])
    if row["value"] is not None:
        detail["payload"] = timeline.payload(row["value"])
    return TimelineEntry(row["at"], _KINDS[row["kind"]], detail)
