"""What the tests of the bus share."""

import json
from datetime import UTC, datetime
from typing import Any

from bus.delivery import Delivery, Record
from bus.frontier import Place
from contracts.errors import Undecodable
from contracts.events import CancelOrder, Event, Payload, TicketSubmitted

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def record(value: bytes | None = b"{}", **changed: Any) -> Record:
    plain = {"topic": "t", "partition": 0, "offset": 0, "timestamp_ms": int(NOW.timestamp() * 1000), "key": None}
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


def delivery(
    decoded: Event | Undecodable | None = None, *, partition: int = 0, offset: int = 0, epoch: int = 1, **changed: Any
) -> Delivery:
    place = Place("t", partition, offset, epoch)
    return Delivery.of(place, record(partition=partition, offset=offset, **changed), decoded or event())


def cancel_order(ticket_id: str = "t1") -> CancelOrder:
    return CancelOrder(ticket_id=ticket_id, effect_key="k", round=1, order_id="#W1", reason="no longer needed")
