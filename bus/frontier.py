"""The commit frontier: below it everything is settled. No I/O."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands, and under which assignment of its partition it was taken."""

    topic: str
    partition: int
    offset: int
    epoch: int


class Frontier:
    """One partition under one assignment. Offsets begin in rising order and settle in any; gaps never block."""

    def __init__(self) -> None:
        self._begun: deque[int] = deque()  # from the oldest unsettled offset on
        self._settled: set[int] = set()  # those of `_begun` that are settled
        self._end: int | None = None  # one past the last offset begun
        self._committed: int | None = None

    @property
    def end(self) -> int | None:
        """One past the last offset begun."""
        return self._end

    def begin(self, offset: int) -> None:
        """Take an offset in hand; it must lie above all before it."""
        if self._end is not None and offset < self._end:
            raise ValueError(f"offset {offset} begins after {self._end - 1}")
        self._begun.append(offset)
        self._end = offset + 1

    def settled(self, offset: int) -> None:
        """Note that an offset begun is done with; saying it twice changes nothing."""
        if self._begun and offset >= self._begun[0]:
            self._settled.add(offset)
        while self._begun and self._begun[0] in self._settled:
            self._settled.remove(self._begun.popleft())

    def committable(self) -> int | None:
        """The offset to commit (the next to be read), or None when there is nothing new to say."""
        due = self._begun[0] if self._begun else self._end
        return due if due != self._committed else None

    def committed(self, offset: int) -> None:
        """Note what the group coordinator acknowledged."""
        self._committed = offset


@dataclass(frozen=True, slots=True)
class Due:
    """An offset to commit for a partition, and the epoch it belongs to."""

    partition: int
    epoch: int
    offset: int


class Frontiers:
    """The frontiers of a topic's partitions. A partition's epoch ends when it is revoked or its offsets restart."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._last_epoch = 0
        self._current: dict[int, tuple[int, Frontier]] = {}

    def begin(self, partition: int, offset: int) -> Place:
        """Take a record in hand. An offset below one already begun means a reset: a new epoch starts."""
        epoch, frontier = self._current.get(partition) or self._start(partition)
        if frontier.end is not None and offset < frontier.end:
            epoch, frontier = self._start(partition)
        frontier.begin(offset)
        return Place(self._topic, partition, offset, epoch)

    def settled(self, place: Place) -> None:
        """Note that a record is done with; ignored when its epoch is over."""
        epoch, frontier = self._current.get(place.partition, (None, None))
        if frontier is not None and epoch == place.epoch:
            frontier.settled(place.offset)

    def committable(self) -> list[Due]:
        """What there is to commit now."""
        return [
            Due(partition, epoch, offset)
            for partition, (epoch, frontier) in self._current.items()
            if (offset := frontier.committable()) is not None
        ]

    def committed(self, dues: Iterable[Due]) -> None:
        """Note what was acknowledged; ignored for epochs that ended meanwhile."""
        for due in dues:
            epoch, frontier = self._current.get(due.partition, (None, None))
            if frontier is not None and epoch == due.epoch:
                frontier.committed(due.offset)

    def end(self, partitions: Iterable[int]) -> None:
        """End the epochs of partitions that were taken away."""
        for partition in partitions:
            self._current.pop(partition, None)

    def partitions(self) -> list[int]:
        """The partitions that have an epoch."""
        return list(self._current)

    def _start(self, partition: int) -> tuple[int, Frontier]:
        self._last_epoch += 1
        self._current[partition] = (self._last_epoch, Frontier())
        return self._current[partition]
