"""What the hand-written arms share: a consumer, and the end of the slice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.job import Job
from benchmarks.ledger import Ledger


@asynccontextmanager
async def consumer(job: Job, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A started member of the job's group, at the topic's beginning, that commits only what it is told."""
    client = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(job.session_timeout_s * 1000),
        heartbeat_interval_ms=min(3000, int(job.session_timeout_s * 250)),
        **options,
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def producer(job: Job) -> AsyncIterator[AIOKafkaProducer]:
    """A started idempotent producer."""
    client = AIOKafkaProducer(bootstrap_servers=job.bootstrap, enable_idempotence=True, linger_ms=0)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def until_over(ledger: Ledger, work: asyncio.Task[None]) -> None:
    """Let a task work until the slice is over; what it raises before ends the arm."""
    over = asyncio.create_task(ledger.over.wait())
    await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    if work.done():
        work.result()
