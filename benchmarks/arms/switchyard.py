"""Our engine alone: lanes, frontier, commits; no store."""

import asyncio

from benchmarks.arms.plain import until_over
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from bus.connection import KafkaConnection
from bus.delivery import Delivery
from bus.engine import Engine
from bus.options import WorkerOptions
from bus.outcome import DONE, Outcome
from ops.running import collect_garbage_seldom


async def run(job: Job, ledger: Ledger) -> None:
    """Work until the slice is over."""
    collect_garbage_seldom()  # as `switchyard run` does

    async def handle(delivery: Delivery) -> Outcome:
        await ledger.handle(delivery.record)
        return DONE

    options = WorkerOptions(lanes=job.concurrency, session_timeout_s=job.session_timeout_s)
    engine = Engine(handle, KafkaConnection(job.bootstrap), topic=job.topic, group=job.group, options=options)
    work = asyncio.create_task(engine.run())
    await until_over(ledger, work)
    engine.stop()
    await work
