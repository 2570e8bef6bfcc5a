"""Reviews: what waits for a person, and the moves that are made on it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from contracts.events import ReviewDecided, ReviewRequested, ReviewTimedOut

Move = ReviewDecided | ReviewTimedOut


class ReviewStatus(StrEnum):
    """Where a review stands. CLOSED: nobody decided in time, and the tenant's policy waits no longer."""

    OPEN = "open"
    DECIDED = "decided"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Review:
    """One review at one version; times are the database's, UTC."""

    request: ReviewRequested
    requested_by_event: str  # the event's id
    requested_at: datetime
    version: int
    status: ReviewStatus
    queue: str = ""  # whose turn it is; "": whoever looks first
    due_at: datetime | None = None  # when the time-out policy steps in; None: it has, or never will
    last_move: Move | None = None
    moved_by_event: str = ""  # the id of the event that tells of the last move
    moved_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether a person may still decide."""
        return self.status is ReviewStatus.OPEN


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which reviews are wanted; None: any."""

    tenant_id: str | None = None
    asked_by: str | None = None  # the agent
    status: ReviewStatus | None = ReviewStatus.OPEN
    queue: str | None = None
    ticket_id: str | None = None
    older_than_s: float = 0.0


def standing_after(review: Review, move: Move) -> tuple[ReviewStatus, str]:
    """The review's status and queue once the move is made."""
    if isinstance(move, ReviewDecided):
        return ReviewStatus.DECIDED, review.queue
    if move.then == "close":
        return ReviewStatus.CLOSED, review.queue
    return ReviewStatus.OPEN, move.queue or review.queue
