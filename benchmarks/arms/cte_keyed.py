"""The whole step by hand, one statement a record."""

import json

import asyncpg

from benchmarks.arms.by_hand import Record, run_by_hand
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from benchmarks.step_sql import ONE_STATEMENT


async def run(job: Job, ledger: Ledger) -> None:
    """Carry records through until the slice is over."""
    versions: dict[bytes | None, int] = {}  # spares a look-up: nobody else writes these tickets

    async def store(pool: asyncpg.Pool, record: Record, event_id: str) -> int:
        ticket_id, version = record.key.decode(), versions.get(record.key, 0)
        state = json.loads(record.value)
        outbox_id = await pool.fetchval(
            ONE_STATEMENT, job.group, event_id, ticket_id, version, state, job.out_topic, record.value
        )
        versions[record.key] = version + 1
        return int(outbox_id)

    await run_by_hand(job, ledger, store)
