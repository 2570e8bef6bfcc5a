"""Faust: an agent whose concurrency is the number of handlers in flight."""

import logging
import tempfile

import faust

from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run(job: Job, ledger: Ledger) -> None:
    """Work until the slice is over; publish as well where the job names a topic."""
    with tempfile.TemporaryDirectory() as folder:
        await _work(job, ledger, folder)


async def _work(job: Job, ledger: Ledger, folder: str) -> None:
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        store="memory://",
        datadir=folder,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=job.session_timeout_s,
        broker_heartbeat_interval=min(3.0, job.session_timeout_s / 4),
        producer_acks=-1,
    )
    logging.getLogger("faust").setLevel(logging.CRITICAL)
    source = app.topic(job.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    target = app.topic(job.out_topic or "unused", key_serializer="raw", value_serializer="raw")

    @app.agent(source, concurrency=job.concurrency)
    async def on_record(stream):  # type: ignore[no-untyped-def]
        async for event in stream.events():
            await ledger.handle(event.message)
            if job.out_topic:
                headers = {"ce_causationid": event.headers["ce_id"]}
                await target.send(key=event.message.key, value=event.message.value, headers=headers)

    await app.start()
    await ledger.over.wait()
    await app.stop()
