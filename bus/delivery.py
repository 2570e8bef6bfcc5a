"""A delivery: a record in a worker's hands."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from bus.frontier import Place
from contracts.errors import Undecodable
from contracts.events import (
    CustomerReplied,
    Event,
    LookupRequested,
    ReasoningRequested,
    TicketSubmitted,
)
from contracts.ports import Position

_TIMED = (TicketSubmitted, CustomerReplied, LookupRequested, ReasoningRequested)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as Kafka handed it over."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # -1 when it has none
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_type: int = 0  # 0 set by the producer, 1 by the broker

    @property
    def size_bytes(self) -> int:
        """About what it weighs in memory."""
        weight = len(self.key or b"") + len(self.value or b"")
        return weight + sum(len(name) + len(value or b"") for name, value in self.headers)


class Lane(NamedTuple):
    """One ticket's records in one partition."""

    partition: int
    key: str


@dataclass(slots=True)
class Delivery:
    """A record on its way through the handler: its event, or why it is none.

    `attempts` counts the tries that were not cut short by an outage.
    """

    place: Place
    record: Record
    decoded: Event | Undecodable
    limit: datetime | None = None  # when it must be decided; None: whenever
    attempts: int = field(default=0, compare=False)

    @classmethod
    def of(cls, place: Place, record: Record, decoded: Event | Undecodable) -> "Delivery":
        """A fresh delivery. Questions and handoffs are bound by their event's deadline, commands are not."""
        if isinstance(decoded, Event) and isinstance(decoded.data, _TIMED):
            return cls(place, record, decoded, limit=decoded.deadline)
        return cls(place, record, decoded)

    @property
    def event(self) -> Event:
        """The decoded event. Raises Undecodable: the record holds none."""
        if isinstance(self.decoded, Undecodable):
            raise self.decoded
        return self.decoded

    @property
    def lane(self) -> Lane:
        """Whose turn it takes: its ticket's, or that of its bare key when it cannot be read."""
        if isinstance(self.decoded, Event):
            return Lane(self.place.partition, self.decoded.ticket_id)
        return Lane(self.place.partition, (self.record.key or b"").decode("utf-8", "backslashreplace"))

    @property
    def position(self) -> Position:
        """Where the record stands, whatever the epoch."""
        return Position(self.place.topic, self.place.partition, self.place.offset)
