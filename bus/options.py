"""How a worker is to behave."""

from dataclasses import dataclass, field
from datetime import timedelta

from bus.intake import Intake


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Every knob of a worker."""

    lanes: int = 256  # deliveries in flight at once
    default_deadline: timedelta = timedelta(hours=24)  # of a customer's message that brings none
    tenants: frozenset[str] = frozenset()  # those served; empty: all
    commit_interval_s: float = 1.0
    drain_timeout_s: float = 20.0  # for deliveries in flight at stop; a rebalance waits for them at most 10 s
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    intake: Intake = field(default_factory=Intake)  # of each partition
    session_timeout_s: float = 10.0  # after which the group gives a dead worker's partitions away
    relay_interval_s: float = 5.0
    relay_older_than_s: float = 30.0
    stalled_after_s: float = 60.0  # a partition without an answer to a fetch for so long: a new consumer
