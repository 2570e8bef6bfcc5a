"""Drives a running system from outside, with a bare Kafka client: publish, then watch the outcomes."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bus.connection import KafkaConnection
from contracts.topics import OUTCOMES, TICKETS
from evals.support_cases import Case

QUIET_S = 3.0  # how long no further outcome may come before the run is taken as over


@dataclass
class Run:
    """What came back: outcomes and seconds from publish to first outcome by ticket id."""

    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0  # first publish to last first-outcome

    def saw(self, outcome: dict[str, Any], event_id: str, waited_s: float) -> None:
        """Note an outcome; the same event delivered twice counts once."""
        found = self.outcomes.setdefault(outcome["ticket_id"], [])
        if all(known["event_id"] != event_id for known in found):
            found.append(outcome | {"event_id": event_id})
            self.seconds.setdefault(outcome["ticket_id"], waited_s)


async def drive(connection: KafkaConnection, cases: Sequence[Case], *, timeout_s: float) -> Run:
    """Publish every case at once and collect outcomes until all have one and none comes after it for a while."""
    watcher = AIOKafkaConsumer(OUTCOMES.name, **connection.client_options(), auto_offset_reset="latest")
    producer = AIOKafkaProducer(**connection.client_options(), acks="all")
    await asyncio.gather(watcher.start(), producer.start())
    try:
        await watcher.seek_to_end()
        started = time.time()
        published = {}
        for case in cases:
            published[case.id] = time.time()
            await producer.send(TICKETS.name, key=case.id.encode(), value=case.as_record())
        await producer.flush()
        run = Run()
        await _collect(watcher, run, published, deadline=time.monotonic() + timeout_s)
        run.elapsed_s = max((published[i] + s for i, s in run.seconds.items()), default=started) - started
        return run
    finally:
        await asyncio.gather(watcher.stop(), producer.stop())


async def _collect(watcher: AIOKafkaConsumer, run: Run, published: dict[str, float], *, deadline: float) -> None:
    last_heard = time.monotonic()
    while time.monotonic() < deadline:
        if len(run.outcomes) == len(published) and time.monotonic() - last_heard > QUIET_S:
            return
        for records in (await watcher.getmany(timeout_ms=200)).values():
            for record in records:
                outcome = json.loads(record.value)
                if outcome["ticket_id"] in published:
                    last_heard = time.monotonic()
                    event_id = dict(record.headers)["ce_id"].decode()
                    run.saw(outcome, event_id, record.timestamp / 1000 - published[outcome["ticket_id"]])
