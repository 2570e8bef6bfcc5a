"""Dead letters: what a group gave up on, and the jobs that redrive or discard it."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from contracts.errors import TenantMismatch, Undecodable, UnknownSchemaVersion, UnknownTenant, UnknownTicket
from contracts.ports import Position

NOT_THE_TICKETS_OWN = (TenantMismatch, UnknownTenant, UnknownTicket)
"""A stranger's record must not stop somebody's ticket."""

NEVER_BLOCK = frozenset(one.__name__ for one in (Undecodable, UnknownSchemaVersion, *NOT_THE_TICKETS_OWN))
"""Errors, by class, behind whose dead letters no ticket waits."""

REDRIVES_HEADER = "switchyard-redrives"
"""How often a record was put back on its topic, as decimal digits: its next dead letter is another one."""

_VARIABLE = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")


class Origin(NamedTuple):
    """Where a record stood when its group gave it up; the timestamp tells it from one of a topic made anew."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. The same record may lie in the dead-letter topic several times: that is one letter."""

    group: str
    origin: Origin
    ticket_id: str  # "": its bytes name none
    tenant_id: str  # "": its bytes name none
    error: str  # the error's class, without its module
    message: str
    attempts: int
    failed_at: datetime
    cause: str = ""  # the class of the error behind it
    trace_id: str = ""
    put_back: int = 0  # how often its record was put back on its topic before it came to stand at the origin
    copies: tuple[Position, ...] = ()  # where it lies in the dead-letter topic, oldest first; (): it expired there

    @property
    def letter_id(self) -> str:
        """The same for every copy."""
        return hashlib.sha256(repr((self.group, *self.origin)).encode()).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """The same for failures that differ in numbers and quoted words only."""
        alike = _VARIABLE.sub("#", self.message)
        return hashlib.sha256(repr((self.error, self.cause, alike)).encode()).hexdigest()[:8]


class Standing(StrEnum):
    """What a dead letter waits for."""

    BLOCKS = "blocks"  # a person: its ticket waits behind it
    OPEN = "open"  # a person: no ticket waits for it
    QUEUED = "queued"  # its turn: it is in its ticket's queue, and is tried again
    REDRIVEN = "redriven"  # nothing
    DISCARDED = "discarded"  # nothing
    SETTLED = "settled"  # nothing: it blocked its ticket once


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are wanted; None, or nothing named: any."""

    groups: tuple[str, ...]
    letter_ids: frozenset[str] = frozenset()
    error: str | None = None
    fingerprint: str | None = None
    tenant_id: str | None = None
    ticket_id: str | None = None
    since: datetime | None = None  # failed no earlier
    until: datetime | None = None  # failed earlier

    def wants(self, letter: Letter) -> bool:
        """Whether a letter is wanted."""
        asked = (self.error, self.fingerprint, self.tenant_id, self.ticket_id)
        has = (letter.error, letter.fingerprint, letter.tenant_id, letter.ticket_id)
        return (
            all(one is None or one == other for one, other in zip(asked, has, strict=True))
            and (not self.letter_ids or letter.letter_id in self.letter_ids)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
        )


# --- as the store knows them ------------------------------------------------------------------------------


class Blocked(NamedTuple):
    """A ticket that waits behind a dead letter, which is first in its queue."""

    parked_id: int
    ticket_id: str
    origin: Origin
    error: str  # the class of the error, and ": " and its message if it is one of ours
    attempts: int
    failed_at: datetime
    behind: int  # records that wait behind it


class Acted(NamedTuple):
    """What was done about a letter so far."""

    times: int
    last: "Act"


# --- jobs -------------------------------------------------------------------------------------------------


class Act(StrEnum):
    """What a job does with its letters."""

    REDRIVE = "redrive"
    DISCARD = "discard"


class JobStatus(StrEnum):
    """Where a job stands. One that nobody works on any more is still running: it can be resumed."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Fate(StrEnum):
    """What a job did with a letter."""

    PLANNED = "planned"  # nothing yet
    TAKEN = "taken"  # it is this job's, and is being published, or its ticket's queue moved up
    FREED = "freed"  # its ticket goes on from it
    PUBLISHED = "published"  # its record was put back on its topic
    DISCARDED = "discarded"
    GONE = "gone"  # nothing: its ticket does not wait for it any more, or its bytes have expired
    ELSEWHERE = "elsewhere"  # nothing: another job has it
    REFUSED = "refused"  # nothing: its topic does not take the record
    HELD_BACK = "held_back"  # nothing: it was redriven too often, and nobody insisted


@dataclass(frozen=True, slots=True)
class Job:
    """One redrive or discard, as it was asked for. Times are the database's, UTC."""

    job_id: str
    act: Act
    group: str
    by: str  # who asked for it
    reason: str
    rate: float  # letters a second
    status: JobStatus = JobStatus.RUNNING
    created_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobLetter:
    """A letter in a job."""

    letter_id: str
    nth: int  # this act on the letter: of those who want to be the nth, one is
    origin: Origin
    ticket_id: str
    error: str
    fingerprint: str
    parked_id: int | None  # None: no ticket waits for it
    copy: Position | None  # its bytes in the dead-letter topic
    put_back: int = 0  # how often its record will have been put back on its topic
    fate: Fate = Fate.PLANNED
    acted_at: datetime | None = None
