"""FastStream as its documentation shows it: a broker and a subscriber."""

from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage

from benchmarks.job import Job
from benchmarks.ledger import Ledger


async def run_faststream(job: Job, ledger: Ledger, *, ack_policy: AckPolicy, max_workers: int) -> None:
    """Handle with the ledger's handler until the slice is over; publish as well where the job names a topic."""
    broker = KafkaBroker(job.bootstrap, enable_idempotence=True, logger=None, apply_types=False)

    @broker.subscriber(
        job.topic,
        group_id=job.group,
        auto_offset_reset="earliest",
        ack_policy=ack_policy,
        max_workers=max_workers,
        decoder=_record_itself,
        session_timeout_ms=int(job.session_timeout_s * 1000),
        heartbeat_interval_ms=min(3000, int(job.session_timeout_s * 250)),
    )
    async def on_record(record: Any) -> None:
        await ledger.handle(record)
        if job.out_topic:
            headers = {"ce_causationid": dict(record.headers)["ce_id"].decode()}
            await broker.publish(record.value, job.out_topic, key=record.key, headers=headers)

    async with broker:
        await broker.start()
        await ledger.over.wait()


async def _record_itself(message: KafkaMessage) -> Any:
    """Hand the handler Kafka's record: no JSON is decoded, no type is checked."""
    return message.raw_message
