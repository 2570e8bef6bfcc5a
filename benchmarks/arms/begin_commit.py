"""The whole step by hand, as an ORM does it: a transaction of several statements a record."""

import json

import asyncpg

from benchmarks.arms.by_hand import Record, run_by_hand
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from benchmarks.step_sql import INBOX, LOAD, OUTBOX, SAVE


async def run(job: Job, ledger: Ledger) -> None:
    """Carry records through until the slice is over."""

    async def store(pool: asyncpg.Pool, record: Record, event_id: str) -> int:
        ticket_id = record.key.decode()
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetchval(INBOX, job.group, event_id)
            ticket = await connection.fetchrow(LOAD, ticket_id)
            version = ticket["version"] if ticket else 0
            await connection.fetchval(SAVE, ticket_id, version, json.loads(record.value))
            return int(await connection.fetchval(OUTBOX, event_id, ticket_id, job.out_topic, record.value))

    await run_by_hand(job, ledger, store)
