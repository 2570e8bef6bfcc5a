"""What can become of a delivery: a closed set."""

from dataclasses import dataclass

from contracts.errors import Transient
from contracts.ports import Settlement


@dataclass(frozen=True, slots=True)
class Done:
    """There is nothing (more) to store for it."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The group had settled its event before."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Its step is decided and has to be stored."""

    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Later:
    """It failed and is to be tried again after a wait: its ticket is parked."""

    error: Transient
    wait_s: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """It cannot be handled; the record goes to the group's dead letters."""

    error: Exception
    trace_id: str | None = None


Outcome = Done | Duplicate | Decided | Later | DeadLetter
DONE = Done()
DUPLICATE = Duplicate()
