"""Bounded intake: how much of a partition may wait in memory. No I/O."""

from dataclasses import dataclass

from bus.frontier import Assignment


@dataclass(frozen=True, slots=True)
class Intake:
    """Pause a partition above the marks, resume it below half of them: pausing drops what was fetched ahead.

    Each partition has its own bounds, so the busy tickets of one fill no buffer that others need. One poll may
    overshoot them.
    """

    high_records: int = 4000
    high_bytes: int = 32 * 1024 * 1024

    def is_full(self, assignment: Assignment) -> bool:
        """Whether the partition should be paused."""
        return assignment.unsettled > self.high_records or assignment.held_bytes > self.high_bytes

    def has_room(self, assignment: Assignment) -> bool:
        """Whether a paused partition should be resumed."""
        return assignment.unsettled <= self.high_records // 2 and assignment.held_bytes <= self.high_bytes // 2
