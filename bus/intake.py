"""Bounded intake: how much of a partition may wait in memory. No I/O."""

from dataclasses import dataclass

from bus.lanes import Lanes


@dataclass(frozen=True, slots=True)
class Intake:
    """Pause a partition above the marks, resume it below half of them: pausing drops what was fetched ahead."""

    high_records: int = 1000
    high_bytes: int = 32 * 1024 * 1024

    def is_full(self, lanes: Lanes, partition: int) -> bool:
        """Whether the partition should be paused."""
        return lanes.records(partition) > self.high_records or lanes.size_bytes(partition) > self.high_bytes

    def has_room(self, lanes: Lanes, partition: int) -> bool:
        """Whether a paused partition should be resumed."""
        return (
            lanes.records(partition) <= self.high_records // 2 and lanes.size_bytes(partition) <= self.high_bytes // 2
        )
