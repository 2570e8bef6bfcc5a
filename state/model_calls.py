"""The book of model calls on PostgreSQL: one row a call, its event and its answer in the same write."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import asyncpg

from contracts.model_ports import Budget, CostRow, Entry, Hold, ProviderCall, Sums
from contracts.models import ModelCall
from contracts.ports import OutgoingRecord
from state.journal import MemoryJournal
from state.outbox import headers_in_bytes
from state.pool import borrowed
from state.together import Together

_AT_ONCE = 200

_CALL = "id, ticket_id, tenant_id, customer, agent, agent_version, step, event_id, tier, provider, model, api_key, day"

_OPEN = f"""
INSERT INTO model_calls ({_CALL}, held_usd, held_tokens, lapses_at)
SELECT {_CALL}, held_usd, held_tokens, clock_timestamp() + make_interval(secs => lease_s)
FROM unnest($1::opened_call[])
ON CONFLICT (id) DO NOTHING
"""

# What is finished stays as it is, so an event goes out once. Its outbox row is nobody's: whoever sweeps publishes it.
_FINISH = f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::finished_call[])
), finished AS (
    INSERT INTO model_calls AS stored
        ({_CALL}, provider_call_id, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd,
         latency_s, outcome, estimated, finished_at)
    SELECT {_CALL}, provider_call_id, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd,
           latency_s, outcome, estimated, clock_timestamp()
    FROM given
    ON CONFLICT (id) DO UPDATE
    SET api_key = excluded.api_key, provider_call_id = excluded.provider_call_id, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
        cache_write_tokens = excluded.cache_write_tokens, cost_usd = excluded.cost_usd,
        latency_s = excluded.latency_s, outcome = excluded.outcome, estimated = excluded.estimated,
        finished_at = excluded.finished_at, held_usd = 0, held_tokens = 0, lapses_at = NULL
    WHERE stored.finished_at IS NULL
    RETURNING id
), kept AS (
    INSERT INTO journal (event_id, step, request_digest, ticket_id, tenant_id, agent, result)
    SELECT event_id, step, request_digest, ticket_id, tenant_id, agent, result
    FROM given
    WHERE request_digest IS NOT NULL
    ON CONFLICT (event_id, step, request_digest) DO NOTHING
)
INSERT INTO outbox (ticket_id, topic, event_id, type, value, headers, group_name, caused_by)
SELECT ticket_id, usage_topic, usage_id, usage_type, usage_value, usage_headers, agent, event_id
FROM given
JOIN finished USING (id)
"""

_DROP = "DELETE FROM model_calls WHERE id = $1 AND finished_at IS NULL"

_SUMS = """
SELECT sums.*
FROM unnest($1::text[], $2::date[]) WITH ORDINALITY AS asked (scope_id, day, place)
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(cost_usd) FILTER (WHERE finished_at IS NOT NULL), 0) AS usd,
           COALESCE(sum(input_tokens + output_tokens) FILTER (WHERE finished_at IS NOT NULL), 0)::bigint AS tokens,
           array_agg(id) FILTER (WHERE finished_at IS NULL) AS ids,
           array_agg(held_usd) FILTER (WHERE finished_at IS NULL) AS held_usd,
           array_agg(held_tokens) FILTER (WHERE finished_at IS NULL) AS held_tokens,
           array_agg(extract(epoch FROM lapses_at - clock_timestamp())::double precision)
               FILTER (WHERE finished_at IS NULL) AS left_s
    FROM model_calls
    WHERE {whose}
) AS sums
ORDER BY asked.place
"""
# The index of customers leaves out who is unknown; without being told so, the planner reads a whole day.
_WHOSE = {
    "ticket": "ticket_id = asked.scope_id",
    "customer": "customer = asked.scope_id AND customer <> '' AND day = asked.day",
    "tenant": "tenant_id = asked.scope_id AND day = asked.day",
    "agent": "agent = asked.scope_id AND day = asked.day",
    "day": "day = asked.day",
}

_FINISHED = """
SELECT id, cost_usd, input_tokens + output_tokens AS tokens
FROM model_calls
WHERE id = ANY($1::text[]) AND finished_at IS NOT NULL
"""

_TELL = """
WITH told AS (
    INSERT INTO budget_alerts (scope, scope_id, time_window, unit, level)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
INSERT INTO outbox (ticket_id, topic, event_id, type, value, headers, group_name, caused_by)
SELECT $6, $7, $8, $9, $10, $11, $12, $13 FROM told
"""

_COST = """
SELECT {key} AS key, count(*) FILTER (WHERE finished_at IS NOT NULL) AS calls,
       sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cost_usd) AS cost_usd, COALESCE(sum(cost_usd) FILTER (WHERE estimated), 0) AS estimated_usd,
       COALESCE(sum(held_usd) FILTER (WHERE finished_at IS NULL AND lapses_at > clock_timestamp()), 0) AS open_usd
FROM model_calls
WHERE day >= $1 AND day <= $2 AND ($3::text IS NULL OR ticket_id = $3)
GROUP BY 1
ORDER BY {order}
LIMIT $4
"""
COST_BY = {"ticket": "ticket_id", "agent": "agent", "tenant": "tenant_id", "day": "day::text"}


@dataclass(frozen=True, slots=True)
class Alert:
    """A level of a budget that was reached, by a call."""

    budget: Budget
    unit: str  # usd | tokens
    level: int  # percent
    spent: float
    call: ProviderCall


class PostgresModelCalls:
    """ModelCalls on a migrated database. What is asked at the same time shares a statement."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        usage_record: Callable[[ProviderCall, ModelCall], OutgoingRecord],
        alert_record: Callable[[Alert], OutgoingRecord],
    ) -> None:
        self._pool = pool
        self._usage_record = usage_record
        self._alert_record = alert_record
        self._open = Together(self._open_all, key=lambda row: row[0], limit=_AT_ONCE)
        self._finish = Together(self._finish_all, key=lambda row: row[0], limit=_AT_ONCE)
        self._sums: dict[str, Together[_Window, asyncpg.Record]] = {
            scope: Together(partial(self._sums_all, scope), key=lambda window: window, limit=_AT_ONCE)
            for scope in _WHOSE
        }

    async def open(self, call: ProviderCall, hold: Hold) -> None:
        """Write down that a call is about to be made, and what is held for it."""
        await self._open((*_row(call), hold.usd, hold.tokens, hold.lease_s))

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        """Write down what became of a call, with its event and its answer for the journal, at once."""
        record = self._usage_record(call, made)
        used = (
            *(made.call_id, made.input_tokens, made.output_tokens, made.cache_read_tokens, made.cache_write_tokens),
            *(made.cost_usd, made.latency_s, made.outcome, made.estimated),
        )
        entry = (answer.request_digest, answer.result) if answer else (None, None)
        event = (record.topic, record.event_id, record.type, record.value, headers_in_bytes(record.headers))
        await self._finish((*_row(call), *used, *entry, *event))

    async def drop(self, call_id: str) -> None:
        """Forget a call that was opened and never made."""
        async with borrowed(self._pool) as connection:
            await connection.execute(_DROP, call_id)

    async def sums(self, budget: Budget) -> Sums:
        """What a budget's window came to."""
        row = await self._sums[budget.scope]((budget.scope_id, _day(budget.window)))
        held = zip(row["ids"] or (), row["held_usd"] or (), row["held_tokens"] or (), row["left_s"] or (), strict=True)
        opened = {id_: Hold(usd, tokens, left_s) for id_, usd, tokens, left_s in held}
        lapsed = {id_: hold for id_, hold in opened.items() if hold.lease_s <= 0}
        return Sums(row["usd"], row["tokens"], {i: opened[i] for i in opened.keys() - lapsed.keys()}, lapsed)

    async def finished(self, call_ids: Sequence[str]) -> dict[str, tuple[Decimal, int]]:
        """What those of these calls came to that are finished, in dollars and tokens."""
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(_FINISHED, call_ids)
        return {row["id"]: (row["cost_usd"], row["tokens"]) for row in rows}

    async def tell(self, alert: Alert) -> None:
        """Send an alert out, unless it was told before."""
        record, budget = self._alert_record(alert), alert.budget
        async with borrowed(self._pool) as connection:
            await connection.execute(
                _TELL,
                *(budget.scope, budget.scope_id, budget.window, alert.unit, alert.level),
                *(record.ticket_id, record.topic, record.event_id, record.type, record.value),
                *(headers_in_bytes(record.headers), alert.call.context.agent, alert.call.context.event_id),
            )

    async def costs(
        self, by: str, first: datetime.date, last: datetime.date, *, ticket_id: str | None = None, limit: int = 100_000
    ) -> list[CostRow]:
        """What calls of these days came to, dearest first, days in their order. `by` is one of COST_BY."""
        order = "key" if by == "day" else "cost_usd DESC, key"
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(_COST.format(key=COST_BY[by], order=order), first, last, ticket_id, limit)
        return [CostRow(*row.values()) for row in rows]

    async def _open_all(self, rows: Sequence[tuple[object, ...]]) -> Sequence[None]:
        async with borrowed(self._pool) as connection:
            await connection.execute(_OPEN, rows)
        return [None] * len(rows)

    async def _finish_all(self, rows: Sequence[tuple[object, ...]]) -> Sequence[None]:
        async with borrowed(self._pool) as connection:
            await connection.execute(_FINISH, rows)
        return [None] * len(rows)

    async def _sums_all(self, scope: str, windows: Sequence["_Window"]) -> Sequence[asyncpg.Record]:
        async with borrowed(self._pool) as connection:
            return await connection.fetch(_SUMS.format(whose=_WHOSE[scope]), *map(list, zip(*windows, strict=True)))


_Window = tuple[str, datetime.date | None]
"""Whose, and of which day; None: of all days."""


def _day(window: str) -> datetime.date | None:
    return datetime.date.fromisoformat(window) if window else None


def _row(call: ProviderCall) -> tuple[object, ...]:
    context = call.context
    return (
        *(call.id, context.ticket_id, context.tenant_id, context.customer_digest),
        *(context.agent, context.agent_version, context.step, context.event_id),
        *(call.tier.value, call.provider, call.model, call.key, call.day),
    )


class MemoryModelCalls:
    """ModelCalls in memory, with the journal that answers go to."""

    def __init__(self, journal: MemoryJournal | None = None) -> None:
        self.opened: dict[str, tuple[ProviderCall, Hold]] = {}
        self.finished: dict[str, tuple[ProviderCall, ModelCall]] = {}
        self._journal = journal or MemoryJournal()

    async def open(self, call: ProviderCall, hold: Hold) -> None:
        """Write down that a call is about to be made, and what is held for it."""
        self.opened.setdefault(call.id, (call, hold))

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        """Write down what became of a call, and its answer for the journal."""
        self.opened.pop(call.id, None)
        self.finished.setdefault(call.id, (call, made))
        if answer is not None:
            await self._journal.keep(call.context, answer.request_digest, answer.result)

    async def drop(self, call_id: str) -> None:
        """Forget a call that was opened and never made."""
        self.opened.pop(call_id, None)
