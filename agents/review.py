"""Review: keeps what waits for a person, and turns what the person decided into the round's next step."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from agents.approval import changed, draft_in, proposal_in, standing
from agents.deciding import commanded
from agents.order_refs import order_refs
from agents.replies import say
from agents.rules import RULES, Rules
from contracts.errors import ContractBroken
from contracts.events import Event, ReviewDecided, ReviewRequested, ReviewTimedOut
from contracts.ports import Reviews, Shop
from contracts.reviews import Move
from contracts.ticket import (
    Desk,
    PersonsPart,
    Round,
    Signature,
    Step,
    Ticket,
    close,
    effect_key,
    escalate,
    hand_to,
    reopened,
    reply_command,
    review_id,
)
from contracts.values import Disposition


@dataclass(frozen=True, slots=True)
class Review:
    """Carries out what a person decided, once, and only what the table of reviews says was decided.

    Consumes ReviewRequested, ReviewDecided, ReviewTimedOut. Emits the round's outcome and the reply, a shop command,
    or the handoff to the agent that is to decide again. What was approved is checked against the order's rows as they
    are now: the person decides about the money, not about the rules.
    """

    reviews: Reviews
    shop: Shop
    version: str
    due_after: Callable[[str], timedelta]  # of a tenant's reviews
    rules: Mapping[str, Rules] = field(default_factory=dict)  # by tenant; those shipped for all others
    name: str = field(default="review", init=False)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Note a review, or carry out the move that was made on it if its round still waits for that."""
        data = event.data
        if isinstance(data, ReviewRequested):
            due_in_s = self.due_after(data.tenant_id).total_seconds()
            await self.reviews.open(data, event.id, due_in_s=due_in_s)
            return Step(ticket)
        if not isinstance(data, ReviewDecided | ReviewTimedOut):
            return Step(ticket)
        review = await self.reviews.find(data.review_id)
        round_ = ticket.round(data.round)
        if review is None or review.moved_by_event != event.id:
            return Step(ticket)
        if is_beside(ticket, round_, data.review_id):
            return _write_again(ticket, round_, review.request, data)
        if not waits_for(ticket, round_, data.review_id):
            return Step(ticket)
        if isinstance(data, ReviewTimedOut):
            return self._time_out(ticket, round_, data)
        return await self._decided(ticket, round_, review.request, data)

    async def _decided(self, ticket: Ticket, round_: Round, asked: ReviewRequested, decided: ReviewDecided) -> Step:
        if decided.decision == "hand_back":
            return _hand_back(ticket, round_, Desk(decided.to or Desk.TRIAGE), decided.note)
        proposal = None if decided.decision == "answer" else changed(proposal_in(asked), decided.changes)
        part = _part(round_, decided_by=decided.decided_by, reply=decided.reply)
        if proposal is None:
            reply = decided.reply or draft_in(asked)
            if not reply:
                raise ContractBroken("there is nothing to answer with")
            answered = round_.model_copy(update={"person": part})
            return close(ticket, answered, Disposition.ANSWERED, self._signature, reply=reply)
        rules = self.rules.get(ticket.tenant_id, RULES)
        proposal, objection = await standing(self.shop, ticket, round_, proposal, rules)
        if objection:
            reason = f"{decided.decided_by} approved it, but {objection}"
            return escalate(ticket, round_, self._signature, reason=reason, reply="", evidence=asked.evidence)
        return commanded(proposal, ticket, reopened(round_, Desk.EFFECTS, part))

    def _time_out(self, ticket: Ticket, round_: Round, late: ReviewTimedOut) -> Step:
        match late.then:
            case "hand_over":
                return Step(ticket)
            case "tell":
                reply = late.reply or say("still_waiting", round_.language)
                told = reply_command(ticket, round_, reply, f"{late.type_name()}/{_asked(round_)}")
                return Step(ticket, (told,) if round_.from_email else ())
            case "close":
                reply = late.reply or say("closed_unanswered", round_.language)
                reason = "no person decided in time"
                return close(ticket, round_, Disposition.ANSWERED, self._signature, reply=reply, reason=reason)

    @property
    def _signature(self) -> Signature:
        return Signature(self.name, self.version)


def waits_for(ticket: Ticket, round_: Round, review: str) -> bool:
    """Whether this review's decision is what the round waits for."""
    return round_.waits_for_a_person and review_id(ticket, round_) == review


def is_beside(ticket: Ticket, round_: Round, review: str) -> bool:
    """Whether a review is about something else than how the round ends: a reply that did not arrive, say."""
    return not review.startswith(effect_key(ticket, round_.number, "review"))


def _write_again(ticket: Ticket, round_: Round, asked: ReviewRequested, move: Move) -> Step:
    """Send what a person decided about something beside the round, which stays as it ended."""
    text = (move.reply or draft_in(asked)) if isinstance(move, ReviewDecided) else ""
    if not text or not round_.from_email:
        return Step(ticket)
    digest = hashlib.sha256(asked.review_id.encode()).hexdigest()[:24]
    return Step(ticket, (reply_command(ticket, round_, text, f"review/{digest}"),))


def _hand_back(ticket: Ticket, round_: Round, desk: Desk, note: str) -> Step:
    """Let an agent decide again. Orders that the note names are the first ones meant."""
    written = round_.order_refs or order_refs(f"{round_.subject}\n{round_.body}", round_.order_ref)
    refs = tuple(dict.fromkeys([*order_refs(note), *written]))
    given_back = reopened(round_, desk, _part(round_, note=note)).model_copy(update={"order_refs": refs})
    return hand_to(desk, ticket, given_back)


def _part(round_: Round, *, decided_by: str = "", reply: str = "", note: str = "") -> PersonsPart:
    return PersonsPart(asked=_asked(round_), decided_by=decided_by, reply=reply, note=note)


def _asked(round_: Round) -> int:
    return round_.person.asked if round_.person else 1
