"""What happened to tickets, step by step, as the store's history has it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg

from contracts.ports import Position
from contracts.ticket import Ticket
from contracts.topics import USAGE
from state import timeline
from state.documents import from_json
from state.pool import borrowed

# A step is begun when the first model call is that was answered: after a failure the ticket is read again. Without any
# the moment it is settled will do. A call that nothing is held for is noted when it has ended.
_STEPS = """
SELECT inbox.ticket_id, group_name, event_id, type, topic, partition, kafka_offset,
       LEAST(handled_at, calls.began) AS began, COALESCE(calls.took_s, 0) AS took_s,
       COALESCE(calls.cost_usd, 0) AS cost_usd, COALESCE(calls.calls, 0) AS calls
FROM inbox
LEFT JOIN LATERAL (
    SELECT min(LEAST(opened_at, finished_at - make_interval(secs => latency_s))) AS began,
           sum(latency_s) AS took_s, sum(cost_usd) AS cost_usd, count(*) AS calls
    FROM model_calls
    WHERE model_calls.ticket_id = inbox.ticket_id AND model_calls.event_id = inbox.event_id
      AND model_calls.agent = inbox.group_name AND outcome IN ('ok', 'malformed')
) AS calls ON true
WHERE inbox.ticket_id = ANY($1::text[])
ORDER BY 8, handled_at, version
"""
_EMITS = """
SELECT ticket_id, event_id, type, group_name, caused_by, value
FROM (
    SELECT id, ticket_id, topic, event_id, type, group_name, caused_by, value FROM emitted
    WHERE ticket_id = ANY($1::text[])
    UNION ALL
    SELECT id, ticket_id, topic, event_id, type, group_name, caused_by, value FROM outbox
    WHERE ticket_id = ANY($1::text[])
) AS every
WHERE topic <> $2
ORDER BY id
"""
_TICKETS = "SELECT ticket_id, version, state FROM tickets WHERE ticket_id = ANY($1::text[])"
_POLICIES = "SELECT shop_id, version, loaded_at FROM policy_versions ORDER BY loaded_at"
_CHANGES = """
SELECT applied_at, tenant_id, order_id, order_then
FROM effects
WHERE applied_at >= $1 AND order_id IS NOT NULL AND order_then IS NOT NULL AND ticket_id <> ALL ($2::text[])
ORDER BY applied_at
"""
_RELOADED = "SELECT shop_id FROM shops WHERE loaded_at > $1"


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event that was emitted."""

    event_id: str
    type: str
    payload: Any  # JSON values
    group: str  # who emitted it; `timeline.PERSON` for a person's decision
    caused_by: str


@dataclass(frozen=True, slots=True)
class PastStep:
    """An event that a group settled, and what it emitted for it."""

    ticket_id: str
    group: str
    event_id: str
    type: str
    position: Position
    began: datetime
    took_s: float  # its model calls together
    cost_usd: Decimal
    calls: int  # those that were answered
    emits: tuple[PastEvent, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What tells a step from every other one, in life and in a replay."""
        return self.group, self.event_id


@dataclass(frozen=True, slots=True)
class Life:
    """All that happened to a ticket, oldest first."""

    ticket: Ticket
    steps: tuple[PastStep, ...]
    events: tuple[PastEvent, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """From when on a policy was in force, as far as is known."""

    shop_id: str
    version: str
    since: datetime


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """An order as an effect left it."""

    at: datetime
    tenant_id: str
    order_id: str
    document: str


class PostgresPast:
    """The history on a migrated database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def lives(self, ticket_ids: Sequence[str]) -> Mapping[str, Life]:
        """The lives of those tickets that are stored, by ticket id."""
        async with borrowed(self._pool) as connection:
            tickets = await connection.fetch(_TICKETS, ticket_ids)
            emits = await connection.fetch(_EMITS, ticket_ids, USAGE.name)
            steps = await connection.fetch(_STEPS, ticket_ids)
        events: dict[str, list[PastEvent]] = {}
        of_step: dict[tuple[str, str], list[PastEvent]] = {}
        for row in emits:
            event = PastEvent(
                row["event_id"], row["type"], timeline.payload(row["value"]), row["group_name"], row["caused_by"]
            )
            events.setdefault(row["ticket_id"], []).append(event)
            of_step.setdefault((event.group, event.caused_by), []).append(event)
        by_ticket: dict[str, list[PastStep]] = {}
        for row in steps:
            step = _step(row, of_step.get((row["group_name"], row["event_id"]), ()))
            by_ticket.setdefault(step.ticket_id, []).append(step)
        return {
            row["ticket_id"]: Life(
                from_json(Ticket, row["state"]).model_copy(update={"version": row["version"]}),
                tuple(by_ticket.get(row["ticket_id"], ())),
                tuple(events.get(row["ticket_id"], ())),
            )
            for row in tickets
        }

    async def policies(self) -> Sequence[InForce]:
        """Every version of every shop's policy from when it was first loaded, oldest first."""
        async with borrowed(self._pool) as connection:
            return [InForce(*row) for row in await connection.fetch(_POLICIES)]

    async def changes(self, since: datetime, besides: Collection[str]) -> Sequence[OrderChanged]:
        """What effects made of orders since, oldest first, but for those of these tickets."""
        async with borrowed(self._pool) as connection:
            return [OrderChanged(*row) for row in await connection.fetch(_CHANGES, since, list(besides))]

    async def reloaded(self, since: datetime) -> Sequence[str]:
        """The shops whose rows were loaded anew since: what they were then is not known."""
        async with borrowed(self._pool) as connection:
            return [row["shop_id"] for row in await connection.fetch(_RELOADED, since)]


def _step(row: asyncpg.Record, emits: Sequence[PastEvent]) -> PastStep:
    return PastStep(
        ticket_id=row["ticket_id"],
        group=row["group_name"],
        event_id=row["event_id"],
        type=row["type"],
        position=Position(row["topic"], row["partition"], row["kafka_offset"]),
        began=row["began"],
        took_s=row["took_s"],
        cost_usd=row["cost_usd"],
        calls=row["calls"],
        emits=tuple(emits),
    )
