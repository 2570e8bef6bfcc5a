"""The ticket's own rules: how rounds open, move, close, and what each emits."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import ContractBroken
from contracts.events import (
    OUTCOME_OF_DISPOSITION,
    Event,
    LookupRequested,
    Payload,
    ReasoningRequested,
    ReviewRequested,
    SendReply,
    TicketEscalated,
    TicketResolved,
    TicketTimedOut,
)
from contracts.facts import Facts, LookupOutcome, OrderFacts, TakenAction
from contracts.models import ModelCall
from contracts.shop import ActionKind
from contracts.ticket import (
    TIMED_OUT_REPLY,
    Desk,
    Signature,
    Step,
    Ticket,
    close,
    effect_key,
    escalate,
    event_deadline,
    hand_to,
    spent,
    time_out,
)
from contracts.values import Disposition, Label, Tier
from tests.unit.contracts.strategies import NOW, any_text, identifiers, replied, submissions, submitted

NEW = Ticket(ticket_id="t1", tenant_id="default")
LOOKUP = Signature("lookup", "v1")


def opened(*events: Event) -> Ticket:
    ticket = NEW
    for event in events or (submitted(),):
        ticket = ticket.open_round(event)
    return ticket


def paid(cost: str) -> ModelCall:
    return ModelCall(
        call_id="c",
        step="s",
        tier=Tier.FAST,
        provider="p",
        model="m",
        cost_usd=Decimal(cost),
        latency_s=0.1,
        outcome="ok",
    )


def handoff(kind: type[LookupRequested] | type[ReasoningRequested], number: int = 1) -> Event:
    return Event(id="h", source="test", time=NOW, data=kind(ticket_id="t1", round=number), deadline=NOW)


# --- opening a round --------------------------------------------------------------------------------------


def test_a_submission_opens_the_first_round_with_all_that_was_written() -> None:
    ticket = opened(submitted(order_ref="#1"))
    (first,) = ticket.rounds
    assert (first.number, first.event_id, first.submission, first.desk) == (1, "e1", True, Desk.TRIAGE)
    assert (first.from_email, first.subject, first.body) == ("ann@example.com", "Order", "Where is my order?")
    assert (first.order_ref, first.deadline, first.is_open) == ("#1", NOW, True)


def test_opening_a_round_leaves_the_ticket_it_came_from_alone() -> None:
    before = opened()
    before.open_round(replied("And now?"))
    assert len(before.rounds) == 1


def test_a_reply_without_an_address_is_from_whoever_wrote_first() -> None:
    ticket = opened(submitted(), replied("And now?"))
    assert ticket.rounds[1].from_email == "ann@example.com"
    assert (ticket.rounds[1].number, ticket.rounds[1].submission) == (2, False)


def test_a_reply_from_another_address_keeps_it() -> None:
    assert opened(submitted(), replied("?", from_email="bob@example.com")).rounds[1].from_email == "bob@example.com"


def test_a_reply_on_a_ticket_nobody_submitted_is_from_nobody() -> None:
    assert opened(replied("Hello?")).rounds[0].from_email == ""


@pytest.mark.parametrize("kind", [LookupRequested, ReasoningRequested])
def test_a_handoff_opens_no_round(kind: type[LookupRequested] | type[ReasoningRequested]) -> None:
    with pytest.raises(ContractBroken, match=f"{kind.__name__} does not open a round"):
        NEW.open_round(handoff(kind))


@given(st.lists(any_text, max_size=6))
def test_rounds_are_numbered_from_one_in_the_order_they_were_opened(bodies: list[str]) -> None:
    ticket = opened(submitted(), *(replied(body) for body in bodies))
    assert [ticket.round(n + 1) for n in range(len(ticket.rounds))] == list(ticket.rounds)
    assert [r.number for r in ticket.rounds] == list(range(1, len(bodies) + 2))


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_a_round_that_is_not_there_breaks_the_contract(number: int) -> None:
    with pytest.raises(ContractBroken, match=f"ticket t1 has no round {number}"):
        opened().round(number)


# --- duplicates -------------------------------------------------------------------------------------------


@given(submissions)
def test_the_same_submission_is_known_again_unless_it_has_a_message_id(data: Payload) -> None:
    event = Event(id="e", source="s", time=NOW, data=data)
    ticket = Ticket(ticket_id=data.ticket_id, tenant_id=data.tenant_id).open_round(event)
    assert ticket.already_submitted(data) is (data.message_id is None)


@pytest.mark.parametrize("change", [{"body": "x"}, {"subject": "x"}, {"order_ref": "x"}, {"from_email": "x"}])
def test_a_submission_that_differs_is_new(change: dict[str, str]) -> None:
    assert not opened().already_submitted(submitted().data.model_copy(update=change))


def test_a_submission_with_the_text_of_a_reply_is_new() -> None:
    ticket = opened(submitted(), replied("And now?"))
    assert not ticket.already_submitted(submitted("And now?", subject="").data)


# --- closing a round --------------------------------------------------------------------------------------


@pytest.mark.parametrize("disposition", list(Disposition))
def test_every_disposition_closes_the_round_with_its_outcome(disposition: Disposition) -> None:
    ticket = opened()
    step = close(ticket, ticket.rounds[0], disposition, LOOKUP, reply="Hello", reason="because")
    closed = step.ticket.rounds[0]
    assert (closed.desk, closed.disposition, closed.reply, closed.settled_by) == (
        Desk.CLOSED,
        disposition,
        "Hello",
        "lookup",
    )
    outcome = step.emits[0]
    assert type(outcome) is OUTCOME_OF_DISPOSITION[disposition]
    assert (outcome.round, outcome.reply, outcome.reason) == (1, "Hello", "because")
    assert (outcome.agent, outcome.agent_version) == ("lookup", "v1")


def test_closing_writes_to_the_customer_once() -> None:
    ticket = opened()
    outcome, reply = close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply="Here it is").emits
    assert isinstance(outcome, TicketResolved)
    assert isinstance(reply, SendReply)
    assert (reply.to_email, reply.subject, reply.text) == ("ann@example.com", "Re: Order", "Here it is")


@pytest.mark.parametrize(("from_email", "reply"), [("", "Hello"), ("ann@example.com", "")])
def test_closing_writes_to_nobody_without_an_address_or_a_text(from_email: str, reply: str) -> None:
    ticket = opened(submitted(from_email=from_email))
    assert len(close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply=reply).emits) == 1


@given(st.text(max_size=400))
@example("x" * 400)
def test_the_subject_of_a_reply_is_never_empty_and_never_long(subject: str) -> None:
    ticket = opened(submitted(subject=subject))
    reply = close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply="Hello").emits[1]
    assert isinstance(reply, SendReply)
    assert reply.subject.startswith("Re: ")
    assert 4 < len(reply.subject) <= 200


def test_the_outcome_tells_the_facts_the_orders_and_the_money() -> None:
    action = TakenAction(kind=ActionKind.CANCEL_PENDING_ORDER, order_id="#2", amount=Decimal(5))
    facts = Facts(outcome=LookupOutcome.FOUND, orders=(OrderFacts(order_id="#1", status="pending"),))
    ticket = opened()
    round_ = ticket.rounds[0].model_copy(
        update={"lookup": facts, "label": Label.CANCEL_ORDER, "cost_usd": Decimal("0.10")}
    )
    step = close(
        ticket,
        round_,
        Disposition.ACTED,
        LOOKUP,
        reply="",
        actions=[action],
        calls=[paid("0.02"), paid("0.03")],
    )
    outcome = step.emits[0]
    assert isinstance(outcome, TicketResolved)
    assert (outcome.orders, outcome.actions, outcome.lookup) == (("#1", "#2"), (action,), facts)
    assert (outcome.label, outcome.cost_usd) == (Label.CANCEL_ORDER, Decimal("0.15"))
    assert step.ticket.rounds[0].cost_usd == Decimal("0.15")


def test_an_order_is_named_once_however_often_it_comes_up() -> None:
    facts = Facts(outcome=LookupOutcome.FOUND, orders=(OrderFacts(order_id="#1", status="pending"),))
    taken, last = (
        TakenAction(kind=kind, order_id="#1", amount=Decimal(5))
        for kind in (ActionKind.MODIFY_PENDING_ORDER_ADDRESS, ActionKind.CANCEL_PENDING_ORDER)
    )
    ticket = opened()
    round_ = ticket.rounds[0].model_copy(update={"lookup": facts, "actions": (taken,)})
    outcome = close(ticket, round_, Disposition.ACTED, LOOKUP, reply="", actions=[last]).emits[0]
    assert isinstance(outcome, TicketResolved)
    assert (outcome.orders, outcome.actions) == (("#1",), (taken, last))


def test_closing_one_round_leaves_the_others_open() -> None:
    ticket = opened(submitted(), replied("And now?"))
    after = close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply="Yes").ticket
    assert [r.is_open for r in after.rounds] == [False, True]
    assert after.status == "triage"


# --- escalating and timing out ----------------------------------------------------------------------------


def test_escalating_asks_a_person_with_the_evidence() -> None:
    ticket = opened()
    step = escalate(ticket, ticket.rounds[0], LOOKUP, reason="unsure", reply="Soon", evidence={"why": 1})
    outcome, reply, request = step.emits
    assert isinstance(outcome, TicketEscalated)
    assert isinstance(reply, SendReply)
    assert isinstance(request, ReviewRequested)
    assert (request.round, request.asked_by, request.reason, request.evidence) == (1, "lookup", "unsure", {"why": 1})


def test_a_review_is_the_same_review_at_every_try() -> None:
    ticket = opened()
    first, again = (escalate(ticket, ticket.rounds[0], LOOKUP, reason="unsure", reply="") for _ in range(2))
    assert first == again


def test_a_submission_past_its_deadline_times_out_and_goes_to_a_person() -> None:
    step = time_out(NEW, submitted(), LOOKUP)
    assert [type(payload) for payload in step.emits] == [TicketTimedOut, SendReply, ReviewRequested]
    assert step.ticket.status == "timed_out"
    assert step.ticket.rounds[0].reply == TIMED_OUT_REPLY


def test_a_handoff_past_its_deadline_times_its_round_out() -> None:
    ticket = opened(submitted(), replied("And now?"))
    step = time_out(ticket, handoff(LookupRequested, number=2), LOOKUP)
    assert [r.is_open for r in step.ticket.rounds] == [True, False]


def test_a_closed_round_does_not_time_out_again() -> None:
    closed = time_out(opened(), handoff(LookupRequested), LOOKUP).ticket
    step = time_out(closed, handoff(LookupRequested), LOOKUP)
    assert (step.ticket, step.emits) == (closed, ())


def test_a_message_that_is_known_does_not_time_out_as_another_round() -> None:
    assert time_out(opened(), submitted(event_id="another"), LOOKUP) == Step(opened())


def test_a_handoff_of_an_unknown_round_cannot_time_out() -> None:
    with pytest.raises(ContractBroken):
        time_out(NEW, handoff(LookupRequested), LOOKUP)


# --- handing over -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("desk", "kind"), [(Desk.LOOKUP, LookupRequested), (Desk.REASONING, ReasoningRequested)])
def test_a_handoff_moves_the_round_and_asks_the_desk(desk: Desk, kind: type[Payload]) -> None:
    ticket = opened()
    step = hand_to(desk, ticket, ticket.rounds[0], [paid("0.01")])
    assert (step.ticket.rounds[0].desk, step.ticket.status) == (desk, str(desk))
    assert step.ticket.rounds[0].cost_usd == Decimal("0.01")
    assert step.emits == (kind(ticket_id="t1", round=1),)
    assert event_deadline(step.emits[0], submitted()) == NOW


def test_what_is_decided_has_no_deadline() -> None:
    ticket = opened()
    outcome = close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply="").emits[0]
    assert event_deadline(outcome, submitted()) is None


@given(st.lists(st.decimals(0, 100, places=6), max_size=5))
def test_costs_add_up_exactly(costs: list[Decimal]) -> None:
    round_ = spent(opened().rounds[0], [paid(str(cost)) for cost in costs])
    assert round_.cost_usd == sum(costs, Decimal(0))


# --- effect keys ------------------------------------------------------------------------------------------


@given(identifiers, identifiers, st.integers(1, 10**6))
def test_an_effect_key_is_stable_and_short(ticket_id: str, tenant_id: str, number: int) -> None:
    ticket = Ticket(ticket_id=ticket_id, tenant_id=tenant_id)
    key = effect_key(ticket, number, "reply/TicketAwaitingCustomer")
    assert key == effect_key(ticket.model_copy(update={"version": 7}), number, "reply/TicketAwaitingCustomer")
    assert len(key) <= 100
    assert key.isascii()


def test_effect_keys_tell_tenants_tickets_rounds_and_effects_apart() -> None:
    tickets = [Ticket(ticket_id=t, tenant_id=o) for t, o in [("a", "b"), ("b", "a"), ("ab", "c"), ("a", "bc")]]
    keys = {effect_key(t, number, what) for t in tickets for number in (1, 2) for what in ("reply", "review")}
    assert len(keys) == 16


def test_an_effect_key_never_changes_between_releases() -> None:
    assert effect_key(NEW, 1, "review") == "e96eb6717269ec3e59af84aa/1/review"


# --- status -----------------------------------------------------------------------------------------------


def test_the_status_is_the_desk_of_the_newest_open_round_else_how_the_newest_ended() -> None:
    ticket = opened(submitted(), replied("And now?"))
    first = close(ticket, ticket.rounds[0], Disposition.ANSWERED, LOOKUP, reply="").ticket
    both = close(first, first.rounds[1], Disposition.REFUSED, LOOKUP, reply="").ticket
    assert [NEW.status, ticket.status, first.status, both.status] == ["new", "triage", "triage", "refused"]
    handed = hand_to(Desk.LOOKUP, ticket, ticket.rounds[0]).ticket
    assert handed.status == "triage"
    second_only = close(ticket, ticket.rounds[1], Disposition.REFUSED, LOOKUP, reply="").ticket
    assert second_only.status == "triage"
