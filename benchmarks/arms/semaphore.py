"""A task per record behind a semaphore: as fast as it gets, in no order, and commits what it has merely read."""

import asyncio

from aiokafka import ConsumerRecord

from benchmarks.arms.plain import consumer
from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run(job: Job, ledger: Ledger) -> None:
    """Start a task for every record, until the slice is over."""
    slots = asyncio.Semaphore(job.concurrency)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(record: ConsumerRecord[bytes, bytes]) -> None:
        try:
            await ledger.handle(record)
        finally:
            slots.release()

    async with consumer(job) as client:
        committing = asyncio.create_task(_commit_every(client.commit, 1.0))
        while not ledger.over.is_set():
            for records in (await client.getmany(timeout_ms=100, max_records=500)).values():
                for record in records:
                    await slots.acquire()
                    task = asyncio.create_task(handle(record))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        committing.cancel()
        for task in tasks:
            task.cancel()


async def _commit_every(commit, pause_s: float) -> None:  # type: ignore[no-untyped-def]
    while True:
        await asyncio.sleep(pause_s)
        await commit()
