"""What can become of a delivery: a closed set."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Its step is stored and what it emits is published."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The group had settled its event before."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """It cannot be handled; the record goes to the group's dead letters."""

    error: Exception
    attempts: int
    trace_id: str | None = None


Outcome = Done | Duplicate | DeadLetter
