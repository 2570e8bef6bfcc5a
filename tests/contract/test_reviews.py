"""What every table of reviews promises: a review is opened once, and one move is made on each version of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from contracts.events import ReviewDecided, ReviewRequested, ReviewTimedOut
from contracts.ports import Outbox, Reviews, TimelineEntry, worker_lease
from contracts.reviews import Move, Review, ReviewFilter, ReviewStatus
from contracts.topics import REVIEW
from ops.review_moves import record_of
from state.leases import MemoryLeases
from state.memory_tickets import MemoryTickets
from state.outbox import MemoryOutbox
from state.postgres_tickets import PostgresTickets
from state.reviews import MemoryReviews, PostgresReviews
from state.stores import postgres_stores
from tests.contract.samples import OTHER_TENANT, OWNER, TENANT


@dataclass(frozen=True)
class Office:
    """A table of reviews, what it stores beside them, and a way to let time go by."""

    reviews: Reviews
    outbox: Outbox
    timeline: Callable[[str], Awaitable[Sequence[TimelineEntry]]]
    live: Callable[[], Awaitable[bool]]  # gives the worker its lease
    let_pass: Callable[[float], Awaitable[None]]  # seconds

    async def opened(self, review_id: str = "r1", *, due_in_s: float = 60, **more: Any) -> Review:
        """A review that waits."""
        await self.reviews.open(asked(review_id, **more), f"asks-{review_id}", due_in_s=due_in_s)
        return await self.now(review_id)

    async def now(self, review_id: str = "r1") -> Review:
        """The review, which must be there."""
        review = await self.reviews.find(review_id)
        assert review is not None
        return review

    async def moved(self, review: Review, move: Move) -> bool:
        """Whether the move could be made."""
        return await self.reviews.move(review, move, record_of(review, move))

    async def to_publish(self) -> list[str]:
        """The event ids that a worker finds in the outbox."""
        assert await self.live()
        return [stored.record.event_id for stored in await self.outbox.take_over(OWNER, limit=100)]

    async def ids(self, wanted: ReviewFilter, limit: int = 100) -> list[str]:
        """The reviews that are wanted."""
        return [review.request.review_id for review in await self.reviews.matching(wanted, limit=limit)]


def asked(review_id: str = "r1", **more: Any) -> ReviewRequested:
    evidence = {"text": "half a \x00 character", "proposal": {"item_ids": ["1"]}}
    fields = {"ticket_id": "t1", "tenant_id": TENANT, "round": 1, "asked_by": "triage", "reason": "unsure"}
    return ReviewRequested.model_validate({**fields, "review_id": review_id, "evidence": evidence, **more})


def decided(by: str = "mia", decision: str = "approve", **more: Any) -> ReviewDecided:
    fields = {"ticket_id": "t1", "tenant_id": TENANT, "review_id": "r1", "round": 1}
    return ReviewDecided.model_validate({**fields, "decision": decision, "decided_by": by, **more})


def late(then: str, **more: Any) -> ReviewTimedOut:
    fields = {"ticket_id": "t1", "tenant_id": TENANT, "review_id": "r1", "round": 1}
    return ReviewTimedOut.model_validate({**fields, "then": then, **more})


class ReviewsContract:
    async def test_what_is_asked_for_waits_with_all_its_evidence(self, office: Office) -> None:
        review = await office.opened(due_in_s=60)
        assert review.request == asked()
        assert (review.version, review.status, review.requested_by_event) == (1, ReviewStatus.OPEN, "asks-r1")
        assert (review.last_move, review.moved_at, review.queue) == (None, None, "")
        assert review.due_at is not None
        assert abs((review.due_at - review.requested_at).total_seconds() - 60) < 1

    async def test_what_is_asked_for_again_stays_as_it_is(self, office: Office) -> None:
        review = await office.opened()
        assert await office.moved(review, decided())
        before = await office.now()
        assert await office.opened(due_in_s=1, reason="another") == before

    async def test_an_unknown_review_is_none(self, office: Office) -> None:
        assert await office.reviews.find("r1") is None

    async def test_a_decision_and_its_event_are_stored_together(self, office: Office) -> None:
        review = await office.opened()
        assert await office.moved(review, decided(note="in haste"))
        now = await office.now()
        assert (now.version, now.status, now.due_at) == (2, ReviewStatus.DECIDED, None)
        assert now.last_move == decided(note="in haste")
        assert now.moved_at is not None
        assert await office.to_publish() == [now.moved_by_event]
        assert await office.to_publish() == []

    async def test_the_event_is_a_record_of_its_topic_under_the_tickets_key(self, office: Office) -> None:
        await office.moved(await office.opened(), decided())
        assert await office.live()
        [stored] = await office.outbox.take_over(OWNER, limit=1)
        assert (stored.record.topic, stored.record.ticket_id, stored.record.type) == (
            REVIEW.name,
            "t1",
            "ReviewDecided",
        )
        assert dict(stored.record.headers)["ce_causationid"] == b"asks-r1"

    async def test_of_twenty_who_decide_at_once_one_wins_and_one_event_goes_out(self, office: Office) -> None:
        review = await office.opened()
        people = [f"person-{n}" for n in range(20)]
        won = await asyncio.gather(*(office.moved(review, decided(by)) for by in people))
        assert sum(won) == 1
        now = await office.now()
        assert isinstance(now.last_move, ReviewDecided)
        assert now.last_move.decided_by == people[won.index(True)]
        assert len(await office.to_publish()) == 1

    async def test_what_is_decided_cannot_be_decided_again_at_its_new_version_either(self, office: Office) -> None:
        await office.moved(await office.opened(), decided())
        assert not await office.moved(await office.now(), decided("ben"))
        assert (await office.now()).last_move == decided()

    async def test_a_review_that_is_not_there_cannot_be_decided(self, office: Office) -> None:
        review = await office.opened("r2")
        gone = Review(asked("r1"), "asks-r1", review.requested_at, 1, ReviewStatus.OPEN)
        assert not await office.moved(gone, decided())
        assert await office.to_publish() == []

    async def test_what_is_due_is_found_and_times_out_once(self, office: Office) -> None:
        await office.opened(due_in_s=60)
        assert await office.reviews.overdue(limit=10) == []
        await office.let_pass(61)
        [review] = await office.reviews.overdue(limit=10)
        assert await office.moved(review, late("tell"))
        assert not await office.moved(review, late("tell"))
        assert await office.reviews.overdue(limit=10) == []
        now = await office.now()
        assert (now.status, now.due_at, now.version) == (ReviewStatus.OPEN, None, 2)
        assert await office.moved(now, decided())
        first, second = await office.to_publish()
        assert first != second

    async def test_the_longest_overdue_comes_first(self, office: Office) -> None:
        await office.opened("r1", due_in_s=50)
        await office.opened("r2", due_in_s=10, ticket_id="t2")
        await office.opened("r3", due_in_s=1000, ticket_id="t3")
        await office.let_pass(60)
        found = await office.reviews.overdue(limit=10)
        assert [review.request.review_id for review in found] == ["r2", "r1"]
        assert len(await office.reviews.overdue(limit=1)) == 1

    async def test_a_time_out_closes_it_or_puts_it_into_a_queue(self, office: Office) -> None:
        assert await office.moved(await office.opened(), late("hand_over", queue="leads"))
        now = await office.now()
        assert (now.status, now.queue) == (ReviewStatus.OPEN, "leads")
        assert await office.moved(now, late("close"))
        closed = await office.now()
        assert (closed.status, closed.queue) == (ReviewStatus.CLOSED, "leads")
        assert not await office.moved(closed, decided())

    async def test_a_decision_at_the_moment_of_a_time_out_is_told_to_look_again(self, office: Office) -> None:
        review = await office.opened()
        assert await office.moved(review, late("tell"))
        assert not await office.moved(review, decided())
        assert await office.moved(await office.now(), decided())

    async def test_reviews_are_found_by_tenant_agent_status_queue_ticket_and_age(self, office: Office) -> None:
        await office.opened("r2", tenant_id=OTHER_TENANT, ticket_id="t2")
        await office.let_pass(100)
        await office.opened("r1")
        await office.opened("r3", asked_by="reasoning")
        await office.moved(await office.now("r1"), decided())
        await office.moved(await office.now("r3"), late("hand_over", queue="leads"))
        assert await office.ids(ReviewFilter()) == ["r2", "r3"]
        assert await office.ids(ReviewFilter(), limit=1) == ["r2"]
        assert await office.ids(ReviewFilter(status=None)) == ["r2", "r1", "r3"]
        assert await office.ids(ReviewFilter(status=ReviewStatus.DECIDED)) == ["r1"]
        assert await office.ids(ReviewFilter(tenant_id=OTHER_TENANT)) == ["r2"]
        assert await office.ids(ReviewFilter(asked_by="reasoning")) == ["r3"]
        assert await office.ids(ReviewFilter(queue="leads")) == ["r3"]
        assert await office.ids(ReviewFilter(queue="")) == ["r2"]
        assert await office.ids(ReviewFilter(ticket_id="t1", status=None)) == ["r1", "r3"]
        assert await office.ids(ReviewFilter(older_than_s=99)) == ["r2"]

    async def test_the_timeline_tells_what_a_person_did_and_no_words_of_theirs_to_the_customer(
        self, office: Office
    ) -> None:
        await office.moved(await office.opened(), decided(decision="hand_back", to="lookup", note="look"))
        [act] = [entry for entry in await office.timeline("t1") if entry.what == "person"]
        assert act.detail == {
            "decision": "hand_back",
            "decided_by": "mia",
            "review_id": "r1",
            "round": 1,
            "to": "lookup",
            "note": "look",
        }
        assert [e.detail["group"] for e in await office.timeline("t1") if e.what == "emitted"] == ["person"]


class TestInMemory(ReviewsContract):
    @pytest.fixture
    def office(self) -> Office:
        now = datetime(2026, 1, 1, tzinfo=UTC)

        async def let_pass(seconds: float) -> None:
            nonlocal now
            now += timedelta(seconds=seconds)

        leases = MemoryLeases()
        outbox = MemoryOutbox(leases)
        reviews = MemoryReviews(outbox, lambda: now)
        tickets = MemoryTickets(outbox=outbox, reviews=reviews)
        return Office(
            reviews, outbox, tickets.timeline, lambda: leases.hold(worker_lease(OWNER), OWNER, lease_s=60), let_pass
        )


@pytest.mark.postgres
class TestOnPostgres(ReviewsContract):
    @pytest.fixture
    def office(self, pool: asyncpg.Pool) -> Office:
        stores = postgres_stores(pool)

        async def let_pass(seconds: float) -> None:
            """The server's clock cannot be moved: what it wrote down is, the other way."""
            await pool.execute(
                "UPDATE reviews SET due_at = due_at - make_interval(secs => $1),"
                " requested_at = requested_at - make_interval(secs => $1)",
                seconds,
            )

        return Office(
            PostgresReviews(pool),
            stores.outbox,
            PostgresTickets(pool).timeline,
            lambda: stores.leases.hold(worker_lease(OWNER), OWNER, lease_s=60),
            let_pass,
        )
