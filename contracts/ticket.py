"""The ticket: what has been written, found and decided, a round at a time; and the step that changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from contracts.errors import ContractBroken
from contracts.events import (
    OUTCOME_OF_DISPOSITION,
    CustomerReplied,
    Event,
    LookupRequested,
    Payload,
    ReasoningRequested,
    ReviewRequested,
    SendReply,
    TicketSubmitted,
    TriageRequested,
)
from contracts.facts import Assessment, Facts, TakenAction
from contracts.models import ModelCall
from contracts.shop import ActionKind, Address
from contracts.values import Disposition, Label, Money, Priority, Value

_GIVEN_TO_A_PERSON = frozenset({Disposition.ESCALATED, Disposition.TIMED_OUT})
_HANDOFFS = frozenset({TriageRequested, LookupRequested, ReasoningRequested})


class Desk(StrEnum):
    """Who has a round. CLOSED: its outcome was emitted."""

    TRIAGE = "triage"
    LOOKUP = "lookup"
    REASONING = "reasoning"
    EFFECTS = "effects"
    CLOSED = "closed"


class PersonsPart(Value):
    """What people have to do with a round."""

    asked: int  # how often one was asked to decide
    decided_by: str = ""  # who decided what is carried out now, or was
    reply: str = ""  # what that person wrote, for the customer to read when it is done
    note: str = ""  # what the agent that has the round again is to know


class DecidedAnew(Value):
    """That ops had a round decided anew."""

    times: int
    told: str  # the reply that the customer had got by then


class Round(Value):
    """One message of the customer and all that came of it."""

    number: int
    event_id: str
    submission: bool  # from TicketSubmitted, so an equal one is a duplicate
    from_email: str
    sender_verified: bool | None = None  # as the producer says, who may not
    subject: str
    body: str
    order_ref: str | None = None
    deadline: AwareDatetime | None = None
    desk: Desk = Desk.TRIAGE
    label: Label | None = None
    other_labels: tuple[Label, ...] = ()  # of what else the message asks for
    confidence: float | None = None  # 0..1
    language: str | None = None  # ISO 639-1
    priority: Priority = Priority.NORMAL
    order_refs: tuple[str, ...] = ()  # as written, normalised where they have the shop's shape
    lookup: Facts | None = None
    assessment: tuple[Assessment, ...] = ()
    disposition: Disposition | None = None
    reply: str = ""
    actions: tuple[TakenAction, ...] = ()
    settled_by: str | None = None
    cost_usd: Money = Decimal(0)
    person: PersonsPart | None = None
    anew: DecidedAnew | None = None

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to come."""
        return self.desk is not Desk.CLOSED

    @property
    def waits_for_a_person(self) -> bool:
        """Whether the last word is still a person's."""
        return not self.is_open and self.disposition in _GIVEN_TO_A_PERSON

    @property
    def can_time_out(self) -> bool:
        """Whether its deadline still counts: what is decided is carried out, however late, and perhaps already was."""
        return self.is_open and self.desk is not Desk.EFFECTS


class Proposal(Value):
    """An action that waits for the customer's yes."""

    action: ActionKind
    order_id: str  # "" when it is about no order
    asked_in_round: int
    asked_of: str  # only this e-mail address may confirm
    reason: str | None = None
    item_ids: tuple[str, ...] = ()
    new_item_ids: tuple[str, ...] = ()  # the n-th for the n-th of item_ids
    payment_method_id: str | None = None
    address: Address | None = None
    amount: Money | None = None  # the money the customer was told it moves


class Question(Value):
    """An open question to the customer; the answer goes to the desk that asked."""

    desk: Desk
    label: Label
    asked_in_round: int


class Ticket(Value):
    """A ticket at one version. Version 0 is a ticket nobody has stored yet."""

    ticket_id: str
    tenant_id: str
    version: int = 0
    rounds: tuple[Round, ...] = ()
    proposal: Proposal | None = None
    question: Question | None = None

    @property
    def status(self) -> str:
        """The desk that has the newest open round, or how the newest round ended."""
        if not self.rounds:
            return "new"
        for round_ in reversed(self.rounds):
            if round_.desk is not Desk.CLOSED:
                return round_.desk.value
        return str(self.rounds[-1].disposition)

    @property
    def deadline(self) -> datetime | None:
        """When the first of its open rounds times out; None: none does."""
        deadlines = [r.deadline for r in self.rounds if r.deadline is not None and r.can_time_out]
        return min(deadlines) if deadlines else None

    def round(self, number: int) -> Round:
        """The round of that number. Raises ContractBroken: the ticket has no such round."""
        if not 1 <= number <= len(self.rounds):
            raise ContractBroken(f"ticket {self.ticket_id} has no round {number}")
        return self.rounds[number - 1]

    def open_round(self, event: Event) -> Ticket:
        """Add the round that a customer's message opens."""
        data = event.data
        if not isinstance(data, TicketSubmitted | CustomerReplied):
            raise ContractBroken(f"{event.type} does not open a round")
        first = self.rounds[0] if self.rounds else None
        inherits = first is not None and not data.from_email
        opened = Round(
            number=len(self.rounds) + 1,
            event_id=event.id,
            submission=isinstance(data, TicketSubmitted),
            from_email=first.from_email if first and inherits else data.from_email,
            sender_verified=first.sender_verified
            if first and inherits and data.sender_verified is None
            else data.sender_verified,
            subject=data.subject if isinstance(data, TicketSubmitted) else "",
            body=data.body,
            order_ref=data.order_ref,
            deadline=event.deadline,
        )
        return self.model_copy(update={"rounds": (*self.rounds, opened)})

    def already_submitted(self, data: TicketSubmitted) -> bool:
        """Whether the same message was submitted before under another event id."""
        said = (data.from_email, data.sender_verified, data.subject, data.body, data.order_ref)
        return data.message_id is None and any(
            r.submission and (r.from_email, r.sender_verified, r.subject, r.body, r.order_ref) == said
            for r in self.rounds
        )

    def with_round(self, changed: Round) -> Ticket:
        """Replace the round of the same number."""
        rounds = tuple(changed if r.number == changed.number else r for r in self.rounds)
        return self.model_copy(update={"rounds": rounds})


@dataclass(frozen=True, slots=True)
class Signature:
    """Who decided: the agent and its version (one hash over code, prompt, model, tools and schema)."""

    agent: str
    version: str


@dataclass(frozen=True, slots=True)
class Step:
    """What an agent returns: the next state, and what to emit.

    `emits` go to the topics the catalogue names for their types, in this order.
    """

    ticket: Ticket
    emits: tuple[Payload, ...] = ()


def spent(round_: Round, calls: Sequence[ModelCall]) -> Round:
    """Add what the calls cost to the round."""
    return round_.model_copy(update={"cost_usd": round_.cost_usd + sum((c.cost_usd for c in calls), Decimal(0))})


def hand_to(desk: Desk, ticket: Ticket, round_: Round, calls: Sequence[ModelCall] = ()) -> Step:
    """Hand a round to lookup or reasoning; back to triage only a person does."""
    handoff = {Desk.TRIAGE: TriageRequested, Desk.LOOKUP: LookupRequested, Desk.REASONING: ReasoningRequested}[desk]
    moved = spent(round_, calls).model_copy(update={"desk": desk})
    request = handoff(ticket_id=ticket.ticket_id, tenant_id=ticket.tenant_id, round=round_.number)
    return Step(ticket.with_round(moved), (request,))


def close(
    ticket: Ticket,
    round_: Round,
    disposition: Disposition,
    by: Signature,
    *,
    reply: str,
    reason: str = "",
    actions: Sequence[TakenAction] = (),
    calls: Sequence[ModelCall] = (),
) -> Step:
    """End a round: its one outcome, and the reply to the customer where there is one to write to."""
    closed = spent(round_, calls).model_copy(
        update={
            "desk": Desk.CLOSED,
            "disposition": disposition,
            "reply": reply,
            "actions": (*round_.actions, *actions),
            "settled_by": by.agent,
        }
    )
    outcome = OUTCOME_OF_DISPOSITION[disposition](
        ticket_id=ticket.ticket_id,
        tenant_id=ticket.tenant_id,
        round=closed.number,
        disposition=disposition,
        reply=reply,
        reason=reason,
        label=closed.label,
        other_labels=closed.other_labels,
        orders=_orders_of(closed),
        actions=closed.actions,
        agent=by.agent,
        agent_version=by.version,
        cost_usd=closed.cost_usd,
        lookup=closed.lookup,
        assessment=closed.assessment,
        decided_by=closed.person.decided_by if closed.person else "",
    )
    emits: tuple[Payload, ...] = (outcome,)
    if reply and closed.from_email and not (closed.anew and closed.anew.told == reply):
        why = outcome.type_name() + (f"/anew/{closed.anew.times}" if closed.anew else "")
        emits = (outcome, reply_command(ticket, closed, reply, why))
    return Step(ticket.with_round(closed), emits)


def escalate(
    ticket: Ticket,
    round_: Round,
    by: Signature,
    *,
    reason: str,
    reply: str,
    evidence: dict[str, Any] | None = None,
    disposition: Disposition = Disposition.ESCALATED,
    calls: Sequence[ModelCall] = (),
) -> Step:
    """End a round by giving it to a person, with what they need to see.

    The customer is told so the first time alone, when the round comes to a person again.
    """
    asked = round_.person.asked if round_.person else 0
    round_ = round_.model_copy(update={"person": PersonsPart(asked=asked + 1)})
    told = "" if asked else reply
    step = close(ticket, round_, disposition, by, reply=told, reason=reason, calls=calls)
    request = ReviewRequested(
        ticket_id=ticket.ticket_id,
        tenant_id=ticket.tenant_id,
        review_id=review_id(ticket, round_),
        round=round_.number,
        asked_by=by.agent,
        reason=reason,
        evidence=evidence or {},
    )
    return Step(step.ticket, (*step.emits, request))


TIMED_OUT_REPLY = "We have not managed to answer you in time. A colleague is looking into it and will write to you."


def time_out(ticket: Ticket, event: Event, by: Signature) -> Step:
    """End the event's round because its deadline passed. A closed round, and a known message, stay as they are."""
    if isinstance(event.data, TicketSubmitted) and ticket.already_submitted(event.data):
        return Step(ticket)
    if isinstance(event.data, TicketSubmitted | CustomerReplied):
        ticket = ticket.open_round(event)
        round_ = ticket.rounds[-1]
    else:
        round_ = ticket.round(getattr(event.data, "round", 0))
    if not round_.is_open:
        return Step(ticket)
    return escalate(
        ticket,
        round_,
        by,
        reason="the deadline passed",
        reply=TIMED_OUT_REPLY,
        disposition=Disposition.TIMED_OUT,
    )


def review_id(ticket: Ticket, round_: Round) -> str:
    """The id of the review that a round waits for, or waited for last."""
    nth = round_.person.asked if round_.person else 1
    return effect_key(ticket, round_.number, "review" if nth == 1 else f"review/{nth}")


def reopened(round_: Round, desk: Desk, person: PersonsPart) -> Round:
    """A round that a person gives back to a desk. What the desk has to do is late already: it has no deadline."""
    update = {"desk": desk, "person": person, "disposition": None, "reply": "", "settled_by": None, "deadline": None}
    return round_.model_copy(update=update)


def decide_anew(ticket: Ticket, round_: Round, desk: Desk) -> Step:
    """Give a round that ended to a desk once more. It has no deadline then, and a reply that it repeats is not sent."""
    times = round_.anew.times if round_.anew else 0
    anew = DecidedAnew(times=times + 1, told=round_.reply)
    update = {"anew": anew, "disposition": None, "reply": "", "settled_by": None, "deadline": None}
    return hand_to(desk, ticket, round_.model_copy(update=update))


def effect_key(ticket: Ticket, round_number: int, what: str) -> str:
    """The key under which an effect of a round happens once, short enough for an identifier."""
    digest = hashlib.sha256(f"{ticket.tenant_id}\x1f{ticket.ticket_id}".encode()).hexdigest()[:24]
    return f"{digest}/{round_number}/{what}"


def event_deadline(payload: Payload, cause: Event) -> datetime | None:
    """Handoffs inherit the cause's deadline; what is already decided has none."""
    return cause.deadline if type(payload) in _HANDOFFS else None


def reply_command(ticket: Ticket, round_: Round, text: str, why: str) -> SendReply:
    """The order to write to the round's customer, once for each reason why."""
    first = ticket.rounds[0].subject if ticket.rounds else ""
    return SendReply(
        ticket_id=ticket.ticket_id,
        tenant_id=ticket.tenant_id,
        effect_key=effect_key(ticket, round_.number, f"reply/{why}"),
        round=round_.number,
        to_email=round_.from_email,
        subject=f"Re: {first or 'your request'}"[:200],
        text=text,
    )


def _orders_of(round_: Round) -> tuple[str, ...]:
    found = [o.order_id for o in round_.lookup.orders] if round_.lookup else []
    return tuple(dict.fromkeys([*found, *(a.order_id for a in round_.actions if a.order_id)]))
