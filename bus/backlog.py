"""A partition's backlog: which of its records a group may not have finished. No I/O."""

from collections.abc import Container, Iterable, Iterator, Sequence

from contracts.lag_ports import Asked, Place

MOST_OPEN = 20_000
"""So many open records of a partition are known one by one; those behind them are counted by their offsets."""


class Backlog:
    """The records of one partition from where the group goes on, but for those that are known to be finished.

    What is finished stays finished, so each look only reads what came since the last one. Where the group was set
    back, or the topic became shorter, everything is read again.
    """

    __slots__ = ("_open", "begin", "read_to")

    def __init__(self) -> None:
        self.begin: int | None = None  # the offset at which a worker would go on
        self.read_to = 0  # below it every record was looked at
        self._open: dict[int, Asked] = {}  # by offset, rising

    def move(self, begin: int, end: int) -> None:
        """Let the backlog be from one offset up to another."""
        if self.begin is None or begin < self.begin or end < self.read_to:
            self._open.clear()
            self.read_to = begin
        self.begin = begin
        self.read_to = max(self.read_to, begin)
        for offset in list(self._below(begin)):
            del self._open[offset]

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return len(self._open) >= MOST_OPEN

    def take(self, records: Iterable[Asked], read_to: int) -> None:
        """Note records that were read, in their order, and how far."""
        self._open.update((record.offset, record) for record in records)
        self.read_to = max(self.read_to, read_to)

    def finished(self, event_ids: Container[str]) -> None:
        """Forget what the group has settled."""
        done = [offset for offset, record in self._open.items() if record.event_id in event_ids]
        for offset in done:
            del self._open[offset]

    def buried(self, places: Container[Place]) -> None:
        """Forget what became a dead letter without stopping its ticket."""
        done = [offset for offset, record in self._open.items() if record.place in places]
        for offset in done:
            del self._open[offset]

    def open(self, parked: Container[Place] = ()) -> Sequence[Asked]:
        """What is neither finished nor parked, oldest first."""
        return [record for record in self._open.values() if record.place not in parked]

    def _below(self, begin: int) -> Iterator[int]:
        for offset in self._open:
            if offset >= begin:
                return
            yield offset


def begins_at(committed: int | None, start: int, end: int) -> int:
    """Where a worker goes on: where it committed; at the log's start where that offset is none, or is not there."""
    return committed if committed is not None and start <= committed <= end else start
