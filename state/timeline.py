"""What a ticket's timeline tells of each thing that happened, the same from every store."""

import json
from typing import Any

from contracts.events import ReviewDecided
from contracts.ports import OutgoingRecord, Position, Settlement
from contracts.reviews import Move

HANDLED, EMITTED, EFFECT, PERSON = "handled", "emitted", "effect", "person"


def handled(settlement: Settlement, version: int) -> dict[str, Any]:
    """An event that a group has settled."""
    return {
        "event_id": settlement.event.id,
        "type": settlement.event.type,
        "group": settlement.group,
        **_place(settlement.position),
        "version": version,
        "traceparent": settlement.event.traceparent,
    }


def emitted(record: OutgoingRecord, group: str, caused_by: str, published: Position | None) -> dict[str, Any]:
    """An event that was stored to be published; partition and offset stay None until it is."""
    place = _place(published) if published else {"topic": record.topic, "partition": None, "offset": None}
    return {
        "event_id": record.event_id,
        "type": record.type,
        "group": group,
        "caused_by": caused_by,
        **place,
        "payload": payload(record.value),
    }


def effect(kind: str, effect_key: str, order_id: str | None, amount: float) -> dict[str, Any]:
    """A change to the world."""
    return {"kind": kind, "effect_key": effect_key, "order_id": order_id, "amount": amount}


def decided(decision: ReviewDecided) -> dict[str, Any]:
    """What a person did."""
    return {
        "decision": decision.decision,
        "decided_by": decision.decided_by,
        "review_id": decision.review_id,
        "round": decision.round,
        "to": decision.to,
        "note": decision.note or None,
    }


def mover(move: Move) -> str:
    """Who emits the event that tells of a move on a review."""
    return PERSON if isinstance(move, ReviewDecided) else "review"


def payload(value: bytes) -> Any:
    """A record's JSON value."""
    try:
        return json.loads(value)
    except ValueError:
        return {"undecodable_bytes": len(value)}


def _place(position: Position) -> dict[str, Any]:
    return {"topic": position.topic, "partition": position.partition, "offset": position.offset}
