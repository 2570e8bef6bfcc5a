"""Reviews that nobody decides in time: the tenant's policy is carried out once, by one of the workers."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import StoreUnavailable
from contracts.events import ReviewRequested, ReviewTimedOut
from contracts.ports import OutgoingRecord
from contracts.reviews import Move, Review, ReviewFilter
from ops.review_timeouts import LEASE, ReviewTimeouts
from ops.settings import ReviewPolicy, ReviewSettings
from state.leases import MemoryLeases
from state.reviews import MemoryReviews
from tests.unit.bus.kit import until

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Wanted(MemoryLeases):
    """Leases that count how often somebody wants one."""

    times = 0

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        self.times += 1
        return await super().hold(name, owner, lease_s=lease_s)


class Table(MemoryReviews):
    """A table of reviews that may be away, and counts the moves made on it."""

    is_away = False
    moves = 0

    async def move(self, review: Review, move: Move, record: OutgoingRecord) -> bool:
        self.moves += 1
        return await super().move(review, move, record)

    async def overdue(self, *, limit: int) -> Sequence[Review]:
        if self.is_away:
            raise StoreUnavailable("PostgreSQL is away")
        return await super().overdue(limit=limit)


async def table(*tenants: str) -> Table:
    """A table with an overdue review of each tenant."""
    reviews = Table(clock=lambda: LONG_AGO)
    for tenant_id in tenants:
        request = ReviewRequested(
            ticket_id=f"t-{tenant_id}",
            tenant_id=tenant_id,
            review_id=f"r-{tenant_id}",
            round=1,
            asked_by="triage",
            reason="unsure",
        )
        await reviews.open(request, f"e-{tenant_id}", due_in_s=1)
    reviews.clock = lambda: LONG_AGO + timedelta(days=1)
    return reviews


def timeouts(
    reviews: Table, settings: ReviewSettings | None = None, leases: MemoryLeases | None = None
) -> ReviewTimeouts:
    policy_of = (settings or ReviewSettings()).policy_of
    return ReviewTimeouts(reviews, leases or MemoryLeases(), policy_of, look_every_s=0.005)


async def move_on(reviews: Table, review_id: str) -> ReviewTimedOut:
    review = await reviews.find(review_id)
    assert review is not None
    assert isinstance(review.last_move, ReviewTimedOut)
    return review.last_move


async def test_each_review_times_out_as_its_tenant_wants_and_only_once() -> None:
    reviews = await table("acme", "blue", "plain")
    settings = ReviewSettings(
        reply="Sorry.",
        tenants={
            "acme": ReviewPolicy(then="close", reply="Please call us."),
            "blue": ReviewPolicy(then="hand_over", queue="leads"),
        },
    )
    assert await timeouts(reviews, settings).carry_out() == 3
    acme, blue, plain = [await move_on(reviews, f"r-{tenant}") for tenant in ("acme", "blue", "plain")]
    assert (acme.then, acme.reply, acme.queue) == ("close", "Please call us.", "")
    assert (blue.then, blue.reply, blue.queue) == ("hand_over", "Sorry.", "leads")
    assert (plain.then, plain.reply, plain.queue) == ("tell", "Sorry.", "")
    assert await timeouts(reviews, settings).carry_out() == 0


async def test_a_tenants_own_policy_leaves_the_rest_as_it_is_for_all() -> None:
    settings = ReviewSettings(after=timedelta(hours=5), queue="leads", tenants={"acme": ReviewPolicy(then="hand_over")})
    policy = settings.policy_of("acme")
    assert (policy.after, policy.then, policy.queue) == (timedelta(hours=5), "hand_over", "leads")
    assert settings.policy_of("another").then == "tell"


async def test_two_schedulers_at_once_time_a_review_out_once() -> None:
    reviews = await table("acme", "blue")
    done = await asyncio.gather(*(timeouts(reviews).carry_out() for _ in range(5)))
    assert sum(done) == 2


async def test_only_who_has_the_lease_works_and_an_outage_is_outlasted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    now_s = 0.0
    leases = Wanted(lambda: now_s)
    assert await leases.hold(LEASE, "another", lease_s=10)
    reviews = await table("acme")
    reviews.is_away = True
    running = asyncio.create_task(timeouts(reviews, leases=leases).run())
    await until(lambda: leases.times > 3)
    assert not caplog.records
    now_s = 11.0
    await until(lambda: bool(caplog.records))
    assert caplog.records[0].__dict__["error"] == "StoreUnavailable: PostgreSQL is away"
    reviews.is_away = False
    await until(lambda: reviews.moves == 1)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert len(await reviews.matching(ReviewFilter(), limit=9)) == 1
