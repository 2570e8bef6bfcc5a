"""The limit: `getmany` in a loop, nothing tracked, nothing handled; it commits what it has read."""

from benchmarks.arms.plain import consumer
from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run(job: Job, ledger: Ledger) -> None:
    """Count records until the slice is over."""
    async with consumer(job) as client:
        while not ledger.over.is_set():
            found = await client.getmany(timeout_ms=100)
            for partition, records in found.items():
                ledger.handled += len(records)
                ends_at = records[-1].offset + 1
                ledger.finished[partition.partition][records[0].offset : ends_at] = b"\1" * len(records)
        await client.commit()
