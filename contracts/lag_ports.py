"""What lag is told from besides Kafka: which records a group has finished, parked or given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Asked(NamedTuple):
    """A record that may be unfinished."""

    partition: int
    offset: int
    timestamp: int  # milliseconds since 1970; -1 when it has none
    event_id: str | None  # None: it holds no event, so no inbox knows it
    ticket_id: str | None

    @property
    def place(self) -> "Place":
        """Where it stands."""
        return Place(self.partition, self.offset, self.timestamp)


class Place(NamedTuple):
    """Where a record of a topic stands; the timestamp tells it from one of a topic that was made anew."""

    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Queued:
    """What of a partition's records waits in a group's parking."""

    partition: int
    waiting: int = 0  # tried again by themselves: the failed records, and those behind them
    blocked: int = 0  # behind dead letters: until somebody redrives or discards these
    dead_letters: int = 0  # that stop their tickets
    oldest_ms: int | None = None  # the timestamp of the oldest that waits


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a group was at one moment."""

    handled: frozenset[str] = frozenset()  # of the events asked for
    parked: frozenset[Place] = frozenset()  # records of the tickets asked for
    queues: Sequence[Queued] = ()  # of the whole topic


class ProgressStore(Protocol):
    """Knows what a consumer group has done with a topic's records."""

    async def progress(self, group: str, topic: str, asked: Sequence[Asked]) -> Progress:
        """All of it as of one moment. Tens of thousands of records may be asked for at once."""
