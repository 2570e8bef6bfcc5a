"""The commit frontier: below it everything is settled. No I/O."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

_TRIM_ABOVE = 4096  # settled records below the frontier that may stay in memory


class Assignment:
    """A partition in a worker's hands, from when it was assigned until it is taken away: one epoch.

    Offsets begin in rising order, with gaps that never block, and are settled in any order. Each step costs O(1)
    amortised, and O(log gaps) where the frontier is asked for. From the oldest record in hand on, each takes a byte,
    and each gap 16. An old epoch's records mark their own assignment and no other.
    """

    __slots__ = (
        "_base",
        "_committed",
        "_end",
        "_gaps",
        "_head",
        "_settled",
        "_shifts",
        "held_bytes",
        "over",
        "partition",
        "running",
        "unsettled",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.over = False  # nothing of it is to be started any more
        self.unsettled = 0  # records in hand
        self.held_bytes = 0  # what they weigh
        self.running = 0  # of them, those taken from their lanes
        self._gaps = array("q")  # indices of the records that do not follow the one before them, rising
        self._shifts = array("q")  # from there on, what an offset is above its index
        self._settled = bytearray()  # 1 where the record of the same index is settled
        self._base = 0  # how many were trimmed off the front
        self._head = 0  # below it all are settled
        self._end: int | None = None  # one past the last offset begun
        self._committed: int | None = None

    @property
    def end(self) -> int | None:
        """One past the last offset begun."""
        return self._end

    def begin(self, offset: int, size_bytes: int = 0) -> int:
        """Take an offset in hand, above all before it; returns the index to settle it by."""
        end, index = self._end, self._base + len(self._settled)
        if offset != end:
            if end is not None and offset < end:
                raise ValueError(f"offset {offset} begins after {end - 1}")
            self._gaps.append(index)
            self._shifts.append(offset - index)
        self._end = offset + 1
        self._settled.append(0)
        self.unsettled += 1
        self.held_bytes += size_bytes
        return index

    def settled(self, index: int, size_bytes: int = 0) -> None:
        """Note that the record of this index is done with; saying it twice changes nothing."""
        at = index - self._base
        if at >= 0 and not self._settled[at]:
            self._settled[at] = 1
            self.unsettled -= 1
            self.held_bytes -= size_bytes

    def frontier(self) -> int | None:
        """The offset below which everything is settled: the next one to be read after a restart."""
        head = self._settled.find(0, self._head)
        if head < 0:
            head = len(self._settled)
        self._head = head
        frontier = self._end if head == len(self._settled) else self._offset_of(self._base + head)
        if head > _TRIM_ABOVE and head * 2 > len(self._settled):
            self._trim()
        return frontier

    def committable(self) -> int | None:
        """The offset to commit, or None when there is nothing new to say."""
        due = self.frontier()
        return due if due != self._committed else None

    def committed(self, offset: int) -> None:
        """Note what the group coordinator acknowledged."""
        self._committed = offset

    def _offset_of(self, index: int) -> int:
        return index + self._shifts[bisect_right(self._gaps, index) - 1]

    def _trim(self) -> None:
        del self._settled[: self._head]
        self._base += self._head
        self._head = 0
        passed = bisect_right(self._gaps, self._base) - 1  # the last one before it still counts
        del self._gaps[:passed]
        del self._shifts[:passed]


@dataclass(frozen=True, slots=True)
class Due:
    """An offset to commit for an assignment."""

    assignment: Assignment
    offset: int

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self.assignment.partition


class Frontiers:
    """The assignments of a topic's partitions. One ends when it is revoked or its offsets restart."""

    def __init__(self) -> None:
        self._current: dict[int, Assignment] = {}

    def of(self, partition: int, offset: int) -> Assignment:
        """The assignment that takes this offset next. One below those begun means a reset: a new epoch starts."""
        assignment = self._current.get(partition)
        if assignment is not None and (assignment.end is None or offset >= assignment.end):
            return assignment
        if assignment is not None:
            assignment.over = True
        assignment = self._current[partition] = Assignment(partition)
        return assignment

    def current(self, partition: int) -> Assignment | None:
        """The assignment of a partition, if any of its records was begun."""
        return self._current.get(partition)

    def committable(self) -> list[Due]:
        """What there is to commit now."""
        found = ((assignment, assignment.committable()) for assignment in self._current.values())
        return [Due(assignment, offset) for assignment, offset in found if offset is not None]

    def close(self, partitions: Iterable[int]) -> None:
        """Let nothing more of these partitions start; what runs may still be settled and committed."""
        for assignment in self._of(partitions):
            assignment.over = True

    def end(self, partitions: Iterable[int]) -> None:
        """Forget partitions that were taken away: what is still settled of them moves no frontier."""
        self.close(partitions)
        for partition in partitions:
            self._current.pop(partition, None)

    def running(self, partitions: Iterable[int]) -> int:
        """How many records of these partitions run."""
        return sum(assignment.running for assignment in self._of(partitions))

    def unsettled(self) -> int:
        """How many records are in hand."""
        return sum(assignment.unsettled for assignment in self._current.values())

    def partitions(self) -> list[int]:
        """The partitions of which something was begun."""
        return list(self._current)

    def _of(self, partitions: Iterable[int]) -> list[Assignment]:
        return [self._current[partition] for partition in partitions if partition in self._current]
