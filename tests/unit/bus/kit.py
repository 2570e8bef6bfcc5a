"""What the tests of the bus share."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import settings

from bus.delivery import Delivery, size_of
from bus.frontier import Assignment
from contracts.errors import Undecodable
from contracts.events import CancelOrder, Event, Payload, TicketSubmitted
from contracts.ports import Record

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def record(value: bytes | None = b"{}", **changed: Any) -> Record:
    plain = {"topic": "t", "partition": 0, "offset": 0, "timestamp": int(NOW.timestamp() * 1000), "key": None}
    return Record(**(plain | {"value": value} | changed))


def ticket_json(**fields: Any) -> bytes:
    return json.dumps({"ticket_id": "t1", "body": "where is my order?"} | fields).encode()


def event(data: Payload | None = None, *, event_id: str = "e1", deadline: datetime | None = None) -> Event:
    return Event(
        id=event_id,
        source="urn:test",
        time=NOW,
        data=data or TicketSubmitted(ticket_id="t1", body="where is my order?"),
        deadline=deadline,
    )


def fetched(assignment: Assignment, offset: int, **changed: Any) -> Delivery:
    """A delivery of an assignment that nobody has read yet."""
    of_kafka = record(partition=assignment.partition, offset=offset, **changed)
    size = size_of(of_kafka)
    return Delivery(of_kafka, of_kafka.key, assignment, assignment.begin(offset, size), size)


def delivery(decoded: Event | Undecodable | None = None, *, partition: int = 0, **changed: Any) -> Delivery:
    """A delivery that was read."""
    one = fetched(Assignment(partition), **({"offset": 0} | changed))
    one.read_as(decoded or event())
    return one


def cancel_order(ticket_id: str = "t1") -> CancelOrder:
    return CancelOrder(ticket_id=ticket_id, effect_key="k", round=1, order_id="#W1", reason="no longer needed")


def examples(few: int, many: int) -> int:
    """How many examples of a law to try: few, or under HYPOTHESIS_PROFILE=long as many as take minutes."""
    return many if settings.get_current_profile_name() == "long" else few


async def until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    """Let others run until the condition holds; fail when it does not in time."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.001)


@dataclass
class WithoutStalls:
    """A clock for leases that a machine which stands still for a while does not move: both sides stood still."""

    seconds: float = 0.0
    read_at: float = field(default_factory=time.monotonic)

    def __call__(self) -> float:
        now = time.monotonic()
        self.seconds += min(now - self.read_at, 0.02)
        self.read_at = now
        return self.seconds
