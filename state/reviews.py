"""Reviews: what waits for a person. A move on one is a compare-and-set, stored with the event that tells of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import asyncpg

from contracts.events import ReviewDecided, ReviewRequested, ReviewTimedOut
from contracts.ports import OutgoingRecord, TimelineEntry
from contracts.reviews import Move, Review, ReviewFilter, ReviewStatus, standing_after
from state import timeline
from state.documents import from_json, to_json
from state.outbox import MemoryOutbox, headers_in_bytes
from state.pool import borrowed

_MOVES: dict[str, type[Move]] = {move.type_name(): move for move in (ReviewDecided, ReviewTimedOut)}

_OPEN = """
INSERT INTO reviews (review_id, ticket_id, tenant_id, asked_by, request, requested_by, due_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7))
ON CONFLICT (review_id) DO NOTHING
"""

_COLUMNS = """
request, requested_by, requested_at, version, status, queue, due_at, move_type, move, moved_by, moved_at
"""

_FIND = f"SELECT {_COLUMNS} FROM reviews WHERE review_id = $1"

_MATCHING = f"""
SELECT {_COLUMNS}
FROM reviews
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR asked_by = $2)
  AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR queue = $4)
  AND ($5::text IS NULL OR ticket_id = $5)
  AND requested_at <= clock_timestamp() - make_interval(secs => $6)
ORDER BY requested_at, review_id
LIMIT $7
"""

_OVERDUE = f"""
SELECT {_COLUMNS}
FROM reviews
WHERE status = 'open' AND due_at <= now()
ORDER BY due_at, review_id
LIMIT $1
"""

# Whoever makes a move at the same moment waits here for the other, and then finds another version. The outbox row is
# nobody's: whoever sweeps publishes it.
_MOVE = """
WITH moved AS (
    UPDATE reviews
    SET version = version + 1, status = $3, queue = $4, due_at = NULL, move_type = $5, move = $6, moved_by = $7,
        moved_at = clock_timestamp()
    WHERE review_id = $1 AND version = $2 AND status = 'open'
    RETURNING requested_by
)
INSERT INTO outbox (ticket_id, topic, event_id, type, value, headers, group_name, caused_by)
SELECT $8, $9, $7, $10, $11, $12, $13, requested_by
FROM moved
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class PostgresReviews:
    """Reviews on a migrated database."""

    pool: asyncpg.Pool

    async def open(self, request: ReviewRequested, event_id: str, *, due_in_s: float) -> None:
        """Note a review that an event asks for. One that is noted stays as it is."""
        ids = (request.review_id, request.ticket_id, request.tenant_id, request.asked_by)
        async with borrowed(self.pool) as connection:
            await connection.execute(_OPEN, *ids, request.model_dump_json(), event_id, due_in_s)

    async def find(self, review_id: str) -> Review | None:
        """The review as it is now."""
        async with borrowed(self.pool) as connection:
            row = await connection.fetchrow(_FIND, review_id)
        return None if row is None else _review(row)

    async def matching(self, wanted: ReviewFilter, *, limit: int) -> Sequence[Review]:
        """The reviews that are wanted, longest waiting first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(
                _MATCHING,
                wanted.tenant_id,
                wanted.asked_by,
                wanted.status,
                wanted.queue,
                wanted.ticket_id,
                wanted.older_than_s,
                limit,
            )
        return [_review(row) for row in rows]

    async def overdue(self, *, limit: int) -> Sequence[Review]:
        """Open reviews whose due time passed, longest ago first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_OVERDUE, limit)
        return [_review(row) for row in rows]

    async def move(self, review: Review, move: Move, record: OutgoingRecord) -> bool:
        """Make a move on an open review, and store its event; see the port."""
        status, queue = standing_after(review, move)
        async with borrowed(self.pool) as connection:
            stored = await connection.fetchval(
                _MOVE,
                review.request.review_id,
                review.version,
                status,
                queue,
                move.type_name(),
                to_json(move),
                record.event_id,
                record.ticket_id,
                record.topic,
                record.type,
                record.value,
                headers_in_bytes(record.headers),
                timeline.mover(move),
            )
        return stored is not None


@dataclass(slots=True)
class MemoryReviews:
    """Reviews in memory; `clock` stands for the database's."""

    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _reviews: dict[str, Review] = field(default_factory=dict)

    async def open(self, request: ReviewRequested, event_id: str, *, due_in_s: float) -> None:
        """Note a review that an event asks for. One that is noted stays as it is."""
        now = self.clock()
        review = Review(request, event_id, now, 1, ReviewStatus.OPEN, due_at=now + timedelta(seconds=due_in_s))
        self._reviews.setdefault(request.review_id, review)

    async def find(self, review_id: str) -> Review | None:
        """The review as it is now."""
        return self._reviews.get(review_id)

    async def matching(self, wanted: ReviewFilter, *, limit: int) -> Sequence[Review]:
        """The reviews that are wanted, longest waiting first."""
        latest = self.clock() - timedelta(seconds=wanted.older_than_s)
        found = [r for r in self._reviews.values() if r.requested_at <= latest and _is_wanted(r, wanted)]
        return sorted(found, key=lambda review: (review.requested_at, review.request.review_id))[:limit]

    async def overdue(self, *, limit: int) -> Sequence[Review]:
        """Open reviews whose due time passed, longest ago first."""
        now = self.clock()
        waiting = [(r.due_at, r) for r in self._reviews.values() if r.due_at and r.is_open]
        late = sorted((one for one in waiting if one[0] <= now), key=lambda one: (one[0], one[1].request.review_id))
        return [review for _, review in late[:limit]]

    async def move(self, review: Review, move: Move, record: OutgoingRecord) -> bool:
        """Make a move on an open review, and store its event; see the port."""
        now = self._reviews.get(review.request.review_id)
        if now is None or now.version != review.version or not now.is_open:
            return False
        status, queue = standing_after(now, move)
        self._reviews[review.request.review_id] = replace(
            now,
            version=now.version + 1,
            status=status,
            queue=queue,
            due_at=None,
            last_move=move,
            moved_by_event=record.event_id,
            moved_at=self.clock(),
        )
        self.outbox.leave(record, timeline.mover(move), now.requested_by_event)
        return True

    def entries_of(self, ticket_id: str) -> Iterable[TimelineEntry]:
        """What people decided about the ticket, as its timeline tells it."""
        for review in self._reviews.values():
            if isinstance(review.last_move, ReviewDecided) and review.moved_at and _ticket_of(review) == ticket_id:
                yield TimelineEntry(review.moved_at, timeline.PERSON, timeline.decided(review.last_move))


def _is_wanted(review: Review, wanted: ReviewFilter) -> bool:
    request = review.request
    asked = (wanted.tenant_id, wanted.asked_by, wanted.status, wanted.queue, wanted.ticket_id)
    has = (request.tenant_id, request.asked_by, review.status, review.queue, request.ticket_id)
    return all(one is None or one == other for one, other in zip(asked, has, strict=True))


def _ticket_of(review: Review) -> str:
    return review.request.ticket_id


def _review(row: asyncpg.Record) -> Review:
    move = from_json(_MOVES[row["move_type"]], row["move"]) if row["move"] is not None else None
    return Review(
        request=from_json(ReviewRequested, row["request"]),
        requested_by_event=row["requested_by"],
        requested_at=row["requested_at"],
        version=row["version"],
        status=ReviewStatus(row["status"]),
        queue=row["queue"],
        due_at=row["due_at"],
        last_move=move,
        moved_by_event=row["moved_by"] or "",
        moved_at=row["moved_at"],
    )
