"""Drives a running system from outside, with a bare Kafka client: publish, then watch the outcomes."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from bus.connection import KafkaConnection
from bus.follow import Follower, follow
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
    async with follow(connection, OUTCOMES.name, from_start=False) as follower:
        started = time.time()
        published = await _publish(connection, cases)
        run = Run()
        await _collect(follower, run, published, give_up_at=time.monotonic() + timeout_s)
    run.elapsed_s = max((published[i] + s for i, s in run.seconds.items()), default=started) - started
    return run


async def _publish(connection: KafkaConnection, cases: Sequence[Case]) -> dict[str, float]:
    """Publish the cases as plain JSON without headers; returns when each was handed over, in Unix seconds."""
    published = {}
    async with AIOKafkaProducer(**connection.client_options(), acks="all") as producer:
        for case in cases:
            published[case.id] = time.time()
            await producer.send(TICKETS.name, key=case.id.encode(), value=case.as_record())
        await producer.flush()
    return published


async def _collect(follower: Follower, run: Run, published: dict[str, float], *, give_up_at: float) -> None:
    last_heard = time.monotonic()
    while time.monotonic() < give_up_at:
        if len(run.outcomes) == len(published) and time.monotonic() - last_heard > QUIET_S:
            return
        for record in await follower.next(0.2):
            outcome = json.loads(record.value)
            if outcome["ticket_id"] in published:
                last_heard = time.monotonic()
                event_id = dict(record.headers)["ce_id"].decode()
                run.saw(outcome, event_id, record.timestamp / 1000 - published[outcome["ticket_id"]])
