"""What no code decides, of a ticket's life: what customers and people wrote, and deadlines that passed."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.events import (
    CustomerReplied,
    Event,
    Payload,
    ReviewDecided,
    ReviewTimedOut,
    RoundExpired,
    TicketSubmitted,
)
from contracts.ticket import Round
from state.past import Life, PastStep

EXPIRY = "expiry"
_SOURCE = "urn:switchyard:replay"
_MOVES: dict[str, type[Payload]] = {move.type_name(): move for move in (ReviewDecided, ReviewTimedOut)}


@dataclass(frozen=True, slots=True)
class Input:
    """An event from outside, and who handled it when."""

    began: datetime
    group: str
    event: Event


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a ticket is run again: its inputs, and the events from the first of which on the candidate decides."""

    life: Life
    inputs: tuple[Input, ...]
    window: frozenset[str]  # ids of events
    steps: Mapping[tuple[str, str], PastStep]  # what followed from the inputs in life
    known: frozenset[tuple[str, str]]  # (id, type) of every event that was emitted in life

    @property
    def began(self) -> datetime:
        """When the first step was."""
        return min(one.began for one in self.inputs)


def plan(life: Life, window: Collection[str], records: Mapping[str, Event]) -> Plan | None:
    """What to run for a window (ids of events), given those that were read; None: nothing of it was handled yet."""
    looked_at = [step.began for step in life.steps if step.event_id in window]
    if not looked_at:
        return None
    messages = [one for one in _messages(life, records) if one.began <= max(looked_at)]
    rounds = {place for place, round_ in enumerate(life.ticket.rounds, 1) if _is_of(round_, messages)}
    inputs = [*messages, *_of_rounds(_moves(life), rounds), *_of_rounds(_expiries(life), rounds)]
    return Plan(
        life,
        tuple(sorted(inputs, key=lambda one: one.began)),
        frozenset(window),
        _following(life, {one.event.id for one in inputs}),
        frozenset((event.event_id, event.type) for event in life.events),
    )


def _messages(life: Life, records: Mapping[str, Event]) -> Iterator[Input]:
    """The customer's messages as they were read, else as the rounds they opened hold them."""
    rounds = {round_.event_id: round_ for round_ in life.ticket.rounds}
    for step in life.steps:
        if step.type in (TicketSubmitted.type_name(), CustomerReplied.type_name()):
            event = records.get(step.event_id)
            if event is None and step.event_id in rounds:
                event = _message_of(life, rounds[step.event_id])
            if event is not None:
                yield Input(step.began, step.group, event)


def _message_of(life: Life, round_: Round) -> Event:
    said = {
        "ticket_id": life.ticket.ticket_id,
        "tenant_id": life.ticket.tenant_id,
        "from_email": round_.from_email,
        "sender_verified": round_.sender_verified,
        "body": round_.body,
        "order_ref": round_.order_ref,
    }
    # An id of its own: that it was no duplicate is known, or it would have opened no round.
    data: Payload = (
        TicketSubmitted(**said, subject=round_.subject, message_id=round_.event_id)
        if round_.submission
        else CustomerReplied(**said)
    )
    return Event(round_.event_id, _SOURCE, datetime.now(UTC), data, deadline=round_.deadline)


def _moves(life: Life) -> Iterator[Input]:
    steps = {step.event_id: step for step in life.steps}
    for event in life.events:
        if event.type in _MOVES and event.event_id in steps:
            step = steps[event.event_id]
            data = _MOVES[event.type].model_validate(event.payload, extra="ignore")
            yield Input(step.began, step.group, Event(event.event_id, _SOURCE, step.began, data))


def _expiries(life: Life) -> Iterator[Input]:
    ticket = life.ticket
    for step in life.steps:
        if step.group == EXPIRY and step.emits:
            data = RoundExpired(
                ticket_id=ticket.ticket_id, tenant_id=ticket.tenant_id, round=step.emits[0].payload["round"]
            )
            yield Input(step.began, EXPIRY, Event(step.event_id, _SOURCE, step.began, data))


def _of_rounds(inputs: Iterator[Input], rounds: Collection[int]) -> Iterator[Input]:
    return (one for one in inputs if getattr(one.event.data, "round", 0) in rounds)


def _is_of(round_: Round, messages: Collection[Input]) -> bool:
    return any(one.event.id == round_.event_id for one in messages)


def _following(life: Life, inputs: Collection[str]) -> Mapping[tuple[str, str], PastStep]:
    """The steps that handled the inputs, and all that followed from these."""
    reached, waiting, found = set(inputs), set(inputs), dict[tuple[str, str], PastStep]()
    while waiting:
        handled = [step for step in life.steps if step.event_id in waiting]
        found |= {step.key: step for step in handled}
        waiting = {event.event_id for step in handled for event in step.emits} - reached
        reached |= waiting
    return {step.key: step for step in life.steps if step.key in found}
