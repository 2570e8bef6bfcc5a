"""What lag is told from besides Kafka: which records a group has finished, parked or given up, and who works at it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker said of itself."""

    worker: str
    group: str
    host: str
    process_id: int
    lanes: int  # handlers that may run at once
    running: int  # handlers that do
    in_hand: int  # records fetched and not settled
    settled_per_s: float  # lately
    held_up: str = ""  # why it starts nothing; '' when it does
    partitions: tuple[int, ...] = ()
    at: datetime | None = None  # when it was stored, by the database's clock


class WorkerReports(Protocol):
    """What workers said of themselves lately."""

    async def report(self, report: WorkerReport) -> None:
        """Put it in place of what the worker said before."""

    async def withdraw(self, worker: str) -> None:
        """Forget a worker that leaves."""

    async def of(self, group: str, *, within_s: float) -> Sequence[WorkerReport]:
        """What the group's workers said within so many seconds, by their names; older ones are dead or frozen."""
