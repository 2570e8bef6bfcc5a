"""FastStream at most once: one at a time, offsets committed before the record is handled."""

from faststream import AckPolicy

from benchmarks.arms.faststream_app import run_faststream
from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run(job: Job, ledger: Ledger) -> None:
    """Work until the slice is over."""
    await run_faststream(job, ledger, ack_policy=AckPolicy.ACK_FIRST, max_workers=1)
