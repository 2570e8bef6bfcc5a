"""How a worker is to behave."""

from dataclasses import dataclass, field
from datetime import timedelta

from bus.intake import Intake


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Every knob of a worker."""

    name: str | None = None  # of the worker, for orders to it alone; one made up if left out
    lanes: int = 256  # handlers in flight at once
    default_deadline: timedelta = timedelta(hours=24)  # of a customer's message that brings none
    tenants: frozenset[str] = frozenset()  # those served; empty: all
    commit_interval_s: float = 1.0
    drain_timeout_s: float = 20.0  # for deliveries in flight at stop; a rebalance waits for them at most 10 s
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 30.0, 120.0, 600.0)  # before each further try
    longest_wait_in_place_s: float = 2.0  # a longer wait parks the ticket
    intake: Intake = field(default_factory=Intake)  # of each partition
    session_timeout_s: float = 10.0  # after which the group gives a dead worker's partitions away
    instance_id: str | None = None  # of a static member of the group
    stalled_after_s: float = 60.0  # a partition without an answer to a fetch for so long: a new consumer
    expiry_grace_s: float = 5.0  # how long past a round's deadline the sweep leaves it to whoever has it
