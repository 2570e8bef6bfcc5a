"""A set of the offsets in hand, searched through at every commit."""

from benchmarks.arms.random_acks import measure
from benchmarks.job import Job
from benchmarks.ledger import Ledger


class InASet:
    """Offsets in hand, in no order."""

    def __init__(self) -> None:
        self._in_hand: set[int] = set()

    def begin(self, offset: int) -> None:
        """Take an offset in hand."""
        self._in_hand.add(offset)

    def settled(self, offset: int) -> None:
        """Acknowledge it."""
        self._in_hand.remove(offset)

    def committable(self) -> int | None:
        """The offset to commit."""
        return min(self._in_hand, default=None)


async def run(job: Job, ledger: Ledger) -> None:
    """Measure it."""
    measure(job, ledger, InASet)
