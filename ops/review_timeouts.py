"""Time-outs of reviews: what a tenant's policy says is done once about a review that nobody decides in time."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from contracts.errors import SupportError
from contracts.events import ReviewTimedOut
from contracts.ports import Leases, Reviews
from contracts.reviews import Review
from ops.review_moves import record_of
from ops.settings import ReviewPolicy

LEASE = "review-timeouts"

_AT_ONCE = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReviewTimeouts:
    """Makes the move of the policy on each overdue review, while the lease is ours. One of the workers does.

    The lease spares the others the work. That no review times out twice is the table's promise: a move is made on one
    version of a review, and takes its due time away.
    """

    reviews: Reviews
    leases: Leases
    policy_of: Callable[[str], ReviewPolicy]  # a tenant's
    look_every_s: float = 2.0
    lease_s: float = 10.0
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def run(self) -> None:
        """Look again and again, until cancelled. A failure is logged, and tried again the next time."""
        while True:
            try:
                if await self.leases.hold(LEASE, self.owner, lease_s=self.lease_s):
                    await self.carry_out()
            except SupportError as error:
                _log.warning("reviews did not time out", extra={"error": f"{type(error).__name__}: {error}"})
            await asyncio.sleep(self.look_every_s)

    async def carry_out(self) -> int:
        """Time out what is overdue, the longest first; returns how many reviews were."""
        late = await self.reviews.overdue(limit=_AT_ONCE)
        return sum([await self._time_out(review) for review in late])

    async def _time_out(self, review: Review) -> bool:
        """False: a person was faster."""
        request = review.request
        policy = self.policy_of(request.tenant_id)
        move = ReviewTimedOut(
            ticket_id=request.ticket_id,
            tenant_id=request.tenant_id,
            review_id=request.review_id,
            round=request.round,
            then=policy.then,
            reply=policy.reply,
            queue=policy.queue if policy.then == "hand_over" else "",
        )
        if not await self.reviews.move(review, move, record_of(review, move)):
            return False
        _log.info("a review timed out", extra={"review_id": request.review_id, "then": policy.then})
        return True
