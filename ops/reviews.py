"""What waits for a person, shown and decided."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.approval import changed, draft_in, proposal_in, standing
from agents.review import is_beside
from agents.rules import RULES, Rules
from contracts.errors import ContractBroken, SupportError
from contracts.events import ReviewDecided
from contracts.ports import Reviews, Shop, TicketStore
from contracts.reviews import Review, ReviewFilter
from contracts.ticket import Proposal, Ticket
from ops.review_moves import record_of
from ops.review_text import said, told, what_became
from ops.rules import rules_of_tenants
from ops.settings import Settings
from ops.wiring import database
from state.postgres_tickets import PostgresTickets
from state.reviews import PostgresReviews
from state.shop import PostgresShop

_LISTED = 500
_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Decide = Callable[[Review], ReviewDecided]
"""What a person decides, said of the review as it is."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a person needs to see and to decide."""

    reviews: Reviews
    tickets: TicketStore
    shop: Shop
    rules: Mapping[str, Rules] = field(default_factory=dict)  # by tenant; those shipped for all others

    async def listed(self, wanted: ReviewFilter) -> list[dict[str, Any]]:
        """The reviews that are wanted, longest waiting first."""
        return [told(review) for review in await self.reviews.matching(wanted, limit=_LISTED)]

    async def shown(self, review_id: str) -> dict[str, Any]:
        """A review with its evidence, its ticket's whole conversation, and what approving it would do now."""
        review = await self._find(review_id)
        ticket = await self._ticket(review)
        return told(review) | {
            "evidence": review.request.evidence,
            "conversation": [said(ticket, number) for number in range(1, len(ticket.rounds) + 1)],
            "approve": await self._approval(review, ticket, proposal_in(review.request)),
        }

    async def decide(self, review_id: str, decision: Decide) -> dict[str, Any]:
        """Make a decision, once. Raises SupportError: it cannot be made, or somebody was faster."""
        review = await self._find(review_id)
        decided = decision(review)
        while review.last_move != decided:
            await self._check(review, decided)
            if await self.reviews.move(review, decided, record_of(review, decided)):
                break
            review = await self._find(review_id)  # it was decided, or timed out, at this very moment
        return told(await self._find(review_id))

    async def _check(self, review: Review, decided: ReviewDecided) -> None:
        if not review.is_open:
            raise SupportError(f"review {review.request.review_id} cannot be decided any more: {what_became(review)}")
        if decided.decision == "hand_back":
            await self._check_hand_back(review)
        elif decided.decision != "answer":
            await self._check_approval(review, decided)

    async def _check_approval(self, review: Review, decided: ReviewDecided) -> None:
        proposal = changed(proposal_in(review.request), decided.changes)
        approval = await self._approval(review, await self._ticket(review), proposal, decided.reply)
        if not approval["possible"]:
            why_not = f"{approval['why_not']}; answer it or hand it back"
            raise SupportError(f"review {review.request.review_id} cannot be approved: {why_not}")

    async def _check_hand_back(self, review: Review) -> None:
        ticket = await self._ticket(review)
        if is_beside(ticket, ticket.round(review.request.round), review.request.review_id):
            raise SupportError(f"review {review.request.review_id} is not about how its round ends: answer it")

    async def _approval(
        self, review: Review, ticket: Ticket, proposal: Proposal | None, reply: str = ""
    ) -> dict[str, Any]:
        """What approving would do now, or why it cannot be done."""
        if proposal is not None:
            rules = self.rules.get(ticket.tenant_id, RULES)
            round_ = ticket.round(review.request.round)
            proposal, objection = await standing(self.shop, ticket, round_, proposal, rules)
            does = {
                "action": proposal.action,
                "order_id": proposal.order_id,
                "amount_usd": None if proposal.amount is None else float(proposal.amount),
                "confirmed_by_customer": bool(review.request.evidence.get("confirmed")),
            }
            return {"possible": objection is None, "why_not": objection, "does": does}
        if reply or draft_in(review.request):
            return {"possible": True, "why_not": None, "does": {"reply": reply or draft_in(review.request)}}
        why_not = "it holds neither a proposed action nor a drafted reply"
        return {"possible": False, "why_not": why_not, "does": None}

    async def _find(self, review_id: str) -> Review:
        review = await self.reviews.find(review_id)
        if review is None:
            raise SupportError(f"there is no review {review_id!r} (`switchyard review list` shows those that wait)")
        return review

    async def _ticket(self, review: Review) -> Ticket:
        ticket = await self.tickets.load(review.request.ticket_id)
        if ticket is None:
            raise ContractBroken(f"the ticket {review.request.ticket_id} of the review is gone")
        return ticket


async def list_reviews(wanted: ReviewFilter, settings: Settings) -> list[dict[str, Any]]:
    """The reviews that are wanted, longest waiting first."""
    async with database(settings) as pool:
        return await _desk(pool, settings).listed(wanted)


async def show_review(review_id: str, settings: Settings) -> dict[str, Any]:
    """A review with everything that bears on it."""
    async with database(settings) as pool:
        return await _desk(pool, settings).shown(review_id)


async def decide_review(review_id: str, decision: Decide, settings: Settings) -> dict[str, Any]:
    """Make a decision; returns the review as it is then."""
    async with database(settings) as pool:
        return await _desk(pool, settings).decide(review_id, decision)


def _desk(pool: Any, settings: Settings) -> Desk:
    rules = rules_of_tenants(settings.agents.rules)
    return Desk(PostgresReviews(pool), PostgresTickets(pool), PostgresShop(pool, settings.shop_of), rules)


def decision_of(review: Review, decision: str, by: str, **more: Any) -> ReviewDecided:
    """A person's decision on a review."""
    about = review.request.model_dump(include={"ticket_id", "tenant_id", "review_id", "round"})
    return ReviewDecided.model_validate(about | {"decision": decision, "decided_by": by} | more)


def age_in_s(given: str) -> float:
    """Seconds of an age such as 90s, 15m, 2h or 3d. Raises SupportError."""
    match = _AGE.fullmatch(given.strip())
    if match is None:
        raise SupportError(f"--older-than {given!r} is no age; write it like 15m, 2h or 3d")
    return float(int(match[1]) * _SECONDS[match[2]])
