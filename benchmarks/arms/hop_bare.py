"""A bare hop: consume a record, publish it, wait for the acknowledgement, commit now and then."""

import asyncio
import time

from benchmarks.arms.plain import consumer, producer
from benchmarks.job import Job
from benchmarks.ledger import Ledger

_COMMIT_EVERY_S = 1.0


async def run(job: Job, ledger: Ledger) -> None:
    """Pass records on until the slice is over."""
    async with consumer(job) as client, producer(job) as target:
        commit_at = time.monotonic()
        while not ledger.over.is_set():
            for records in (await client.getmany(timeout_ms=100)).values():
                sent = []
                for record in records:
                    headers = [("ce_causationid", dict(record.headers)["ce_id"])]
                    sent.append(await target.send(job.out_topic, record.value, key=record.key, headers=headers))
                await asyncio.gather(*sent)
                for record in records:
                    await ledger.handle(record)
            if time.monotonic() > commit_at:
                commit_at = time.monotonic() + _COMMIT_EVERY_S
                await client.commit()
