"""What ops order a group's workers to do, and what these tell of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from contracts.events import Drain, Pause, Resume, SetConcurrency

ControlOrder = Pause | Resume | Drain | SetConcurrency


class Mode(StrEnum):
    """Whether a worker takes records."""

    RUNNING = "running"
    PAUSED = "paused"  # it keeps its partitions and takes nothing of them
    DRAINING = "draining"  # it leaves its group once what is in flight is finished
    DRAINED = "drained"  # it is out of its group, which gave its partitions to others


@dataclass(frozen=True, slots=True)
class Course:
    """What a worker is to do: of the orders to it and to its whole group, the last one on each matter counts."""

    mode: Mode = Mode.RUNNING  # never DRAINING
    lanes: int | None = None  # None: as its settings say
    by: str = ""  # who ordered the mode
    reason: str = ""

    def __str__(self) -> str:
        """The mode, who ordered it and why: for people."""
        return f"{self.mode} by {self.by or 'somebody'}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Presence:
    """A worker as it tells of itself, again and again."""

    worker: str  # its name: no other living worker of its group has it
    group: str
    version: str  # the agent's
    host: str
    process_id: int
    mode: Mode
    lanes: int  # handlers that may run at once
    running: int  # handlers that do
    in_hand: int  # records fetched and not settled
    settled_per_s: float  # lately
    held_up: str = ""  # why it starts nothing; '' when it does
    partitions: tuple[int, ...] = ()  # of which something was begun


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as it was heard of last."""

    presence: Presence
    silent_s: float  # since then


@dataclass(frozen=True, slots=True)
class Scale:
    """How many workers an agent is to have, who says so and why."""

    agent: str
    workers: int
    by: str
    reason: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)  # what it was decided from, as JSON
    at: datetime | None = None  # None: not kept yet
