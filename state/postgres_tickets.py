"""Tickets and inbox in PostgreSQL, with the outbox in the same write: many steps are one statement."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from contracts.errors import ContractBroken, TenantMismatch, VersionConflict
from contracts.ports import Known, Settled, Settlement, Stored, StoredRecord, TimelineEntry, Wanted
from contracts.ticket import Ticket
from state import timeline
from state.documents import from_json, to_json
from state.outbox import headers_in_bytes, stored_record
from state.pool import as_our_errors, borrowed
from state.settling import require_one_a_ticket

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_log = logging.getLogger(__name__)

# One statement, so all of its steps or none; the arrays stand in the order of ticket ids, and hold a ticket once.
# Why it is right under READ COMMITTED:
# - `loaded` locks the tickets, in an order that is everybody's, and waits for whoever holds one. It then sees that
#   ticket as it is, not as the snapshot has it: a step whose ticket moved on is left out.
# - `marked` comes after it, so no inbox row without the right version. An event that another settles at the same
#   moment makes it wait, and then do nothing. Tickets and outbox rows come from the marked events alone.
# - A new ticket has no row to wait for. Two that create it at once both pass `marked`; the later one then finds a
#   row at a version that it does not follow, and sets the version to null. No column takes that: the statement
#   fails, its inbox rows with it, and is tried again in halves, until the late step is alone.
# - `stored` sees earlier outbox rows of a ticket by the snapshot. One that a rival stored meanwhile would be missed
#   only if it left the ticket unchanged: the two decided on the same version, so neither has to come first.
# Tickets and earlier rows are looked up by LATERAL and LIMIT 1, which leave the planner no other way than the index,
# one by one, whatever it believes of the tables. The series numbers the rows, and makes it expect many of those given,
# so that it joins them by hash.
_SETTLE = """
WITH loaded AS MATERIALIZED (
    SELECT given.*, stored.unchanged,
           (stored.version = given.version AND stored.tenant_id = given.tenant_id)
           OR (stored.version IS NULL AND given.version = 0) AS fits
    FROM ROWS FROM (
        unnest($2::settling_step[]), generate_series(1, cardinality($2::settling_step[]))
    ) AS given (ticket_id, tenant_id, version, group_name, event_id, type, status, round,
                state, deadline, topic, partition, kafka_offset, traceparent, step)
    LEFT JOIN LATERAL (
        SELECT tickets.version, tickets.tenant_id, tickets.state = given.state AS unchanged
        FROM tickets
        WHERE tickets.ticket_id = given.ticket_id
        FOR UPDATE
    ) AS stored ON true
), marked AS (
    INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, traceparent, version)
    SELECT group_name, event_id, type, ticket_id, topic, partition, kafka_offset, traceparent,
           CASE WHEN unchanged THEN version ELSE version + 1 END
    FROM loaded
    WHERE fits
    ON CONFLICT (group_name, event_id) DO NOTHING
    RETURNING ticket_id, version
), settled AS MATERIALIZED (
    SELECT loaded.*, marked.version AS version_now
    FROM marked
    JOIN loaded USING (ticket_id)
), saved AS (
    INSERT INTO tickets (ticket_id, tenant_id, version, status, round, state, deadline)
    SELECT ticket_id, tenant_id, version_now, status, round, state, to_timestamp(deadline)
    FROM settled
    WHERE version_now > version
    ON CONFLICT (ticket_id) DO UPDATE
    SET version = CASE WHEN tickets.version = excluded.version - 1 THEN excluded.version END,
        status = excluded.status, round = excluded.round, state = excluded.state, deadline = excluded.deadline,
        updated_at = now()
), stored AS (
    INSERT INTO outbox (ticket_id, topic, event_id, type, value, headers, group_name, caused_by, owner)
    SELECT emits.ticket_id, emits.topic, emits.event_id, emits.type, emits.value, emits.headers,
           settled.group_name, settled.event_id,
           CASE WHEN (
               SELECT id FROM outbox AS earlier
               WHERE earlier.ticket_id = emits.ticket_id AND earlier.topic = emits.topic
                 AND earlier.owner <> $1::text
               LIMIT 1
           ) IS NULL THEN $1 ELSE '' END
    FROM ROWS FROM (
        unnest($3::settling_record[]), generate_series(1, cardinality($3::settling_record[]))
    ) AS emits (step, ticket_id, topic, event_id, type, value, headers, place)
    JOIN settled USING (step)
    ORDER BY emits.place
    RETURNING id, owner
)
SELECT steps, versions, ids, mine
FROM (SELECT array_agg(step) AS steps, array_agg(version_now) AS versions FROM settled) AS steps_settled,
     (SELECT array_agg(id ORDER BY id) AS ids, array_agg(owner <> '' ORDER BY id) AS mine FROM stored) AS rows
"""

# The version is told only where the ticket is still as the settlement has it.
_WHY_NOT = """
SELECT inbox.event_id IS NOT NULL AS handled, tickets.tenant_id,
       CASE WHEN tickets.state = given.state THEN tickets.version END AS version
FROM ROWS FROM (
    unnest($1::text[], $2::text[], $3::text[], $4::text[]), generate_series(1, cardinality($1::text[]))
) AS given (group_name, event_id, ticket_id, state, step)
LEFT JOIN LATERAL (
    SELECT event_id FROM inbox WHERE group_name = given.group_name AND event_id = given.event_id OFFSET 0
) AS inbox ON true
LEFT JOIN LATERAL (
    SELECT tenant_id, version, state FROM tickets WHERE ticket_id = given.ticket_id OFFSET 0
) AS tickets ON true
ORDER BY step
"""
_LEFT_TO_PUBLISH = """
SELECT id, event_id, type, ticket_id, topic, value, headers, group_name, caused_by
FROM outbox
WHERE owner = $1 AND ticket_id = ANY($2::text[])
ORDER BY id
"""

_LOOK_UP = """
SELECT ARRAY(SELECT event_id FROM inbox WHERE group_name = $1 AND event_id = ANY($2::text[])) AS handled,
       ARRAY(SELECT ticket_id FROM parked_tickets WHERE group_name = $1 AND ticket_id = ANY($3::text[])) AS parked,
       versions, states
FROM (
    SELECT array_agg(version) AS versions, array_agg(state) AS states
    FROM tickets WHERE ticket_id = ANY($4::text[])
) AS found
"""

_OVERDUE = """
SELECT version, state
FROM tickets
WHERE deadline < clock_timestamp() - make_interval(secs => $1)
ORDER BY deadline
LIMIT $2
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
FROM emitted WHERE ticket_id = $1
UNION ALL
SELECT created_at, 1, id,
       jsonb_build_object('event_id', event_id, 'type', type, 'group', group_name, 'caused_by', caused_by,
                          'topic', topic, 'partition', NULL, 'offset', NULL),
       value
FROM outbox WHERE ticket_id = $1
UNION ALL
SELECT applied_at, 2, 0,
       jsonb_build_object('kind', kind, 'effect_key', effect_key, 'order_id', order_id, 'amount', amount),
       NULL
FROM effects WHERE ticket_id = $1
UNION ALL
SELECT moved_at, 3, version,
       jsonb_build_object('decision', move ->> 'decision', 'decided_by', move ->> 'decided_by', 'review_id', review_id,
                          'round', (move ->> 'round')::integer, 'to', move ->> 'to',
                          'note', NULLIF(move ->> 'note', '')),
       NULL
FROM reviews WHERE ticket_id = $1 AND move_type = 'ReviewDecided'
ORDER BY at, kind, place
"""
_KINDS = (timeline.HANDLED, timeline.EMITTED, timeline.EFFECT, timeline.PERSON)

# What one bad step may do to a statement of many; anything else is the statement's own fault, or the server's.
_BAD_STEP = (
    ContractBroken,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,  # a key that is too long for an index
)


class _Step(NamedTuple):
    """A settlement that can be written, and its ticket as the database keeps it."""

    place: int  # in what the caller gave
    settlement: Settlement
    document: str
    headers: Sequence[bytes]  # of each record it emits


@dataclass(frozen=True, slots=True)
class PostgresTickets:
    """TicketStore and Timelines on a migrated database."""

    pool: asyncpg.Pool

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""
        async with borrowed(self.pool) as connection:
            row = await connection.fetchrow("SELECT version, state FROM tickets WHERE ticket_id = $1", ticket_id)
        return None if row is None else _ticket(*row)

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        """What is known of many records, in one statement."""
        events = [one.event_id for one in wanted]
        parked = list({one.ticket_id for one in wanted})
        tickets = list({one.ticket_id for one in wanted if one.with_ticket})
        async with borrowed(self.pool) as connection:
            [row] = await connection.fetch(_LOOK_UP, group, events, parked, tickets)
        found = map(_ticket, row["versions"] or (), row["states"] or ())
        return Known(
            frozenset(row["handled"]), {ticket.ticket_id: ticket for ticket in found}, frozenset(row["parked"])
        )

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        """Store many steps in one statement; see the port. Where one is bad, the others are stored without it."""
        require_one_a_ticket(settlements)
        results: list[Settled] = [None] * len(settlements)
        steps = []
        for place, settlement in enumerate(settlements):
            try:
                steps.append(_step(place, settlement))
            except ContractBroken as error:
                results[place] = error
        steps.sort(key=lambda step: step.settlement.ticket.ticket_id)
        if steps:
            async with borrowed(self.pool) as connection:
                for step, result in zip(steps, await self._settle(connection, steps, owner), strict=True):
                    results[step.place] = result
        return results

    async def overdue(self, *, grace_s: float, limit: int) -> Sequence[Ticket]:
        """Tickets with an open round whose deadline passed more than `grace_s` ago, longest ago first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_OVERDUE, grace_s, limit)
        return [_ticket(*row) for row in rows]

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Everything known of the ticket, oldest first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_TIMELINE, ticket_id)
        return [_entry(row) for row in rows]

    async def _settle(self, connection: "Connection", steps: Sequence[_Step], owner: str) -> Sequence[Settled]:
        try:
            with as_our_errors():
                [row] = await connection.fetch(_SETTLE, owner, *_arguments(steps))
        except _BAD_STEP as error:
            if len(steps) > 1:
                half = len(steps) // 2
                first = await self._settle(connection, steps[:half], owner)
                return [*first, *await self._settle(connection, steps[half:], owner)]
            if not isinstance(error, asyncpg.NotNullViolationError):
                return [_broken(error)]
            settled: dict[int, Stored] = {}
        else:
            settled = _settled(steps, row)
        refused = [step for number, step in enumerate(steps, start=1) if number not in settled]
        reasons = iter(await _why_not(connection, refused, owner) if refused else ())
        return [settled[number] if number in settled else next(reasons) for number in range(1, len(steps) + 1)]


def _step(place: int, settlement: Settlement) -> _Step:
    try:
        headers = [headers_in_bytes(record.headers) for record in settlement.outgoing]
    except UnicodeEncodeError as error:
        raise ContractBroken("a header's name is not Unicode") from error
    return _Step(place, settlement, to_json(settlement.ticket, exclude={"version"}), headers)


def _arguments(steps: Sequence[_Step]) -> tuple[list[Any], list[Any]]:
    """Two arrays of rows. As many parameters for one step as for hundreds: one prepared statement does."""
    rows, records = [], []
    for number, (_, settlement, document, headers) in enumerate(steps, start=1):
        rows.append(_step_row(settlement, document))
        for record, kept in zip(settlement.outgoing, headers, strict=True):
            emitted = (number, record.ticket_id, record.topic, record.event_id, record.type, record.value, kept)
            records.append(emitted)
    return rows, records


def _step_row(settlement: Settlement, document: str) -> tuple[Any, ...]:
    ticket, event, position = settlement.ticket, settlement.event, settlement.position
    deadline = ticket.deadline
    return (
        ticket.ticket_id,
        ticket.tenant_id,
        ticket.version,
        settlement.group,
        event.id,
        event.type,
        ticket.status,
        len(ticket.rounds),
        document,
        None if deadline is None else deadline.timestamp(),
        position.topic,
        position.partition,
        position.offset,
        event.traceparent,
    )


def _settled(steps: Sequence[_Step], row: asyncpg.Record) -> dict[int, Stored]:
    """What was stored, by the step's number. The ids rise in the order of the steps, and of what each emits."""
    ids, mine = iter(row["ids"] or ()), iter(row["mine"] or ())
    settled = {}
    for number, version in sorted(zip(row["steps"] or (), row["versions"] or (), strict=True)):
        records = steps[number - 1].settlement.outgoing
        rows = [StoredRecord(next(ids), record) for record in records]
        settled[number] = Stored(version, tuple([stored for stored in rows if next(mine)]))
    return settled


async def _why_not(connection: "Connection", steps: Sequence[_Step], owner: str) -> Sequence[Settled]:
    """Tell duplicates from lost races, in statements of their own, to see what the winners committed."""
    groups = [step.settlement.group for step in steps]
    events = [step.settlement.event.id for step in steps]
    tickets = [step.settlement.ticket.ticket_id for step in steps]
    reasons = await connection.fetch(_WHY_NOT, groups, events, tickets, [step.document for step in steps])
    left: dict[tuple[str, str, str], list[StoredRecord]] = {}
    if any(reason["handled"] for reason in reasons):
        for row in await connection.fetch(_LEFT_TO_PUBLISH, owner, tickets):
            left.setdefault((row["group_name"], row["caused_by"], row["ticket_id"]), []).append(stored_record(row))
    return [_reason(step.settlement, reason, left) for step, reason in zip(steps, reasons, strict=True)]


def _reason(
    settlement: Settlement, reason: asyncpg.Record, left: dict[tuple[str, str, str], list[StoredRecord]]
) -> Settled:
    ticket, event_id = settlement.ticket, settlement.event.id
    if reason["handled"]:
        rows = left.get((settlement.group, event_id, ticket.ticket_id))
        return Stored(reason["version"] or 0, tuple(rows)) if rows else None
    if reason["tenant_id"] not in (None, ticket.tenant_id):
        return TenantMismatch(f"ticket {ticket.ticket_id} is another tenant's")
    _log.info("ticket moved on", extra={"ticket_id": ticket.ticket_id, "version": ticket.version, "event_id": event_id})
    return VersionConflict(f"ticket {ticket.ticket_id} is no longer at version {ticket.version}")


def _broken(error: Exception) -> ContractBroken:
    if isinstance(error, ContractBroken):
        return error
    broken = ContractBroken(f"PostgreSQL refuses the step: {type(error).__name__}")
    broken.__cause__ = error
    return broken


def _ticket(version: int, state: str) -> Ticket:
    """A ticket from its row: the version is no part of its document there."""
    return from_json(Ticket, f'{{"version":{version},{state[1:]}')


def _entry(row: asyncpg.Record) -> TimelineEntry:
    detail = json.loads(row["detail"])
    if row["value"] is not None:
        detail["payload"] = timeline.payload(row["value"])
    return TimelineEntry(row["at"], _KINDS[row["kind"]], detail)
