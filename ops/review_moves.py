"""Moves on reviews as the events that tell of them."""

from datetime import UTC, datetime

from bus.codec import encode
from contracts.events import Event, ReviewDecided, caused_id
from contracts.ports import OutgoingRecord
from contracts.reviews import Move, Review

_PERSON, _TIMEOUT = "person", "review-timeout"


def record_of(review: Review, move: Move) -> OutgoingRecord:
    """The event of a move, under an id that only one move on this version of the review can have."""
    by = _PERSON if isinstance(move, ReviewDecided) else _TIMEOUT
    asked = Event(review.requested_by_event, "", review.requested_at, review.request)
    return encode(
        move,
        cause=asked,
        event_id=caused_id(asked.id, by, review.version),
        time=datetime.now(UTC),
        source=f"urn:switchyard:{by}",
        deadline=None,
        traceparent=None,
    )
