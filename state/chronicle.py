"""What else is known of a ticket's past than what was handled, emitted and done: calls of models, failures, jobs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from contracts.ports import TimelineEntry
from state.pool import borrowed

MODEL, PARKED, DEAD_LETTER, JOB = "model", "parked", "dead letter", "job"

_CHRONICLE = """
SELECT LEAST(opened_at, finished_at - make_interval(secs => latency_s)) AS at, 'model' AS what,
       json_build_object('group', agent, 'event_id', event_id, 'purpose', step, 'tier', tier, 'provider', provider,
                         'model', model, 'outcome', NULLIF(outcome, ''), 'input_tokens', input_tokens,
                         'output_tokens', output_tokens, 'cost_usd', cost_usd, 'took_s', latency_s) AS detail
FROM model_calls WHERE ticket_id = $1
UNION ALL
SELECT happened_at, CASE WHEN due_at IS NULL THEN 'dead letter' ELSE 'parked' END,
       json_build_object('group', group_name, 'topic', topic, 'partition', partition, 'offset', kafka_offset,
                         'attempts', attempts, 'error', error, 'until', due_at)
FROM setbacks WHERE ticket_id = $1
UNION ALL
SELECT COALESCE(acted_at, created_at), 'job',
       json_build_object('group', group_name, 'act', act, 'job_id', job_id, 'by', asked_by, 'reason', reason,
                         'fate', fate, 'topic', topic, 'partition', partition, 'offset', kafka_offset)
FROM letter_job_letters AS letter JOIN letter_jobs AS job USING (job_id)
WHERE letter.ticket_id = $1
"""
_WAITS = """
SELECT group_name, topic, partition, kafka_offset AS offset, error, attempts, due_at,
       (SELECT count(*) FROM parked_records AS later
        WHERE later.group_name = parked.group_name AND later.ticket_id = parked.ticket_id) AS behind
FROM parked_tickets AS parked
WHERE ticket_id = $1
ORDER BY group_name
"""


@dataclass(frozen=True, slots=True)
class Waits:
    """What a ticket waits for in a group: a record that is tried again at `due_at`, or, None, a dead letter."""

    group: str
    topic: str
    partition: int
    offset: int
    error: str
    attempts: int
    due_at: str | None
    behind: int  # records of the ticket that wait behind it


class PostgresChronicle:
    """The past on a migrated database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def entries(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Calls of models, failures that parked it, dead letters and what was done about them, oldest first."""
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(f"{_CHRONICLE} ORDER BY at", ticket_id)
        return [TimelineEntry(row["at"], row["what"], json.loads(row["detail"])) for row in rows]

    async def waits(self, ticket_id: str) -> Sequence[Waits]:
        """What it waits for now."""
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(_WAITS, ticket_id)
        return [_waits(row) for row in rows]


def _waits(row: asyncpg.Record) -> Waits:
    due_at = row["due_at"]
    return Waits(
        group=row["group_name"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        error=row["error"],
        attempts=row["attempts"],
        due_at=None if due_at is None else due_at.isoformat(),
        behind=row["behind"],
    )
