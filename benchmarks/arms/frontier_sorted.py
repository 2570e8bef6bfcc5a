"""A sorted list of the offsets in hand, as the Java parallel consumer keeps them: the first is the frontier."""

from bisect import bisect_left

from benchmarks.arms.random_acks import measure
from benchmarks.job import Job
from benchmarks.ledger import Ledger


class Sorted:
    """Offsets in hand, in order."""

    def __init__(self) -> None:
        self._in_hand: list[int] = []

    def begin(self, offset: int) -> None:
        """Take an offset in hand."""
        self._in_hand.append(offset)

    def settled(self, offset: int) -> None:
        """Acknowledge it."""
        del self._in_hand[bisect_left(self._in_hand, offset)]

    def committable(self) -> int | None:
        """The offset to commit."""
        return self._in_hand[0] if self._in_hand else None


async def run(job: Job, ledger: Ledger) -> None:
    """Measure it."""
    measure(job, ledger, Sorted)
