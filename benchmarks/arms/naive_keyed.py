"""The hand-written engine with the handler of the slice."""

from benchmarks.arms.keyed import run_keyed
from benchmarks.arms.plain import consumer
from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run(job: Job, ledger: Ledger) -> None:
    """Work until the slice is over."""
    async with consumer(job) as client:
        await run_keyed(client, ledger.handle, job, ledger)
