"""The whole step by hand, keyed: store, publish, wait for the acknowledgement, note it; the next of the key then."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import asyncpg
from aiokafka import ConsumerRecord

from benchmarks.arms.keyed import run_keyed
from benchmarks.arms.plain import consumer, producer
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from benchmarks.step_sql import MARK

CONNECTIONS = 16
_MARK_EVERY_S = 0.05

Record: TypeAlias = ConsumerRecord  # key and value are bytes
Store = Callable[[asyncpg.Pool, Record, str], Awaitable[int]]
"""Stores the step of a record whose event has this id; returns the id of its outbox row."""


async def run_by_hand(job: Job, ledger: Ledger, store: Store) -> None:
    """Carry every record through the whole step until the slice is over."""
    published: list[int] = []
    async with (
        asyncpg.create_pool(job.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, init=_plain_json) as pool,
        producer(job) as target,
        consumer(job) as client,
    ):

        async def handle(record: Record) -> None:
            await ledger.handle(record)  # decides, and waits where a slice asks for it
            event_id = dict(record.headers)["ce_id"]
            outbox_id = await store(pool, record, event_id.decode())
            headers = [("ce_causationid", event_id)]
            await target.send_and_wait(job.out_topic, record.value, key=record.key, headers=headers)
            published.append(outbox_id)

        marking = asyncio.create_task(_mark_every(pool, published))
        await run_keyed(client, handle, job, ledger)
        marking.cancel()
        with suppress(asyncio.CancelledError):
            await marking
        await pool.execute(MARK, published)


async def _mark_every(pool: asyncpg.Pool, published: list[int]) -> None:
    while True:
        await asyncio.sleep(_MARK_EVERY_S)
        noted = published.copy()
        await pool.execute(MARK, noted)
        del published[: len(noted)]


async def _plain_json(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_as_text, decoder=json.loads)


def _as_text(state: dict[str, str]) -> str:
    return json.dumps(state)
