"""A delivery: a record in a worker's hands."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime

from bus.frontier import Assignment
from contracts.errors import Undecodable
from contracts.events import (
    CustomerReplied,
    Event,
    LookupRequested,
    ReasoningRequested,
    TicketSubmitted,
)
from contracts.ports import ParkedRecord, Position, Record
from contracts.ticket import Ticket

_TIMED = frozenset({TicketSubmitted, CustomerReplied, LookupRequested, ReasoningRequested})


class Delivery:
    """A record on its way through the handler, and what is known of it.

    `key` is its lane's: deliveries with equal keys are handled one after the other. `limit` is when it must be
    decided; None: whenever. `attempts` counts the tries that failed, but for those that an outage cut short.
    """

    __slots__ = (
        "assignment",
        "attempts",
        "conflicts",
        "decoded",
        "index",
        "key",
        "limit",
        "next_in_lane",
        "parked",
        "record",
        "size_bytes",
        "tenant",
        "ticket",
    )

    def __init__(
        self,
        record: Record,
        key: Hashable,
        assignment: Assignment | None = None,
        index: int = 0,
        size_bytes: int = 0,
    ) -> None:
        self.record = record
        self.key = key
        self.assignment = assignment  # None: it comes from the parked ones
        self.index = index  # in its assignment
        self.size_bytes = size_bytes
        self.tenant = ""
        self.limit: datetime | None = None
        self.next_in_lane: Delivery | None = None
        self.decoded: Event | Undecodable | None = None  # None: nobody read it yet
        self.ticket: Ticket | None = None  # as it was when last looked at; None: to be loaded
        self.parked: ParkedRecord | None = None
        self.attempts = 0
        self.conflicts = 0  # how often its step came too late

    def read_as(self, decoded: Event | Undecodable) -> None:
        """Note what the record holds. Questions and handoffs are bound by their deadline, commands are not."""
        self.decoded = decoded
        if isinstance(decoded, Event):
            self.key = decoded.data.ticket_id
            self.tenant = decoded.data.tenant_id
            if type(decoded.data) in _TIMED:  # pydantic's isinstance is dear
                self.limit = decoded.deadline
        elif self.record.key is not None:  # it takes its turn among those of the ticket it names
            self.key = self.record.key.decode("utf-8", "backslashreplace")

    @property
    def event(self) -> Event:
        """The decoded event. Raises Undecodable: the record holds none."""
        if isinstance(self.decoded, Event):
            return self.decoded
        raise self.decoded or Undecodable("the record was not read")

    @property
    def position(self) -> Position:
        """Where the record stands."""
        record = self.record
        return Position(record.topic, record.partition, record.offset)


def size_of(record: Record) -> int:
    """About what a record weighs in memory, in bytes."""
    weight = len(record.value or b"") + len(record.key or b"")
    if record.headers:
        weight += sum(len(name) + len(value or b"") for name, value in record.headers)
    return weight
