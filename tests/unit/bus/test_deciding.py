import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from bus.deciding import Deciding, timing_out
from bus.middleware import DeadlinePassed
from bus.outcome import Decided, Outcome
from contracts.errors import ContractBroken, TenantMismatch, UnknownTenant
from contracts.events import Event, LookupRequested, TicketSubmitted, TicketTimedOut, caused_id
from contracts.models import ModelCall
from contracts.ports import Position, Settlement
from contracts.ticket import Desk, Signature, Step, Ticket, hand_to
from contracts.values import Tier
from state.stores import memory_stores
from tests.unit.bus.kit import NOW, cancel_order, delivery, event

BY = Signature("triage", "v1")
CALL = ModelCall(
    call_id="c1",
    step="classify",
    tier=Tier.FAST,
    provider="p",
    model="m",
    input_tokens=7,
    output_tokens=2,
    cost_usd=Decimal("0.001"),
    latency_s=0.5,
    outcome="ok",
)


async def triage(ticket: Ticket, event: Event) -> Step:
    opened = ticket.open_round(event)
    return hand_to(Desk.LOOKUP, opened, opened.rounds[-1], [CALL])


def decided(outcome: Outcome) -> Settlement:
    assert isinstance(outcome, Decided)
    return outcome.settlement


async def test_a_step_is_decided_and_nothing_is_stored() -> None:
    tickets = memory_stores().tickets
    one = delivery(event(deadline=NOW))
    one.limit = None
    settlement = decided(await Deciding(triage, BY, tickets)(one))
    assert (settlement.group, settlement.position) == ("triage", Position("t", 0, 0))
    assert (settlement.ticket.version, len(settlement.ticket.rounds)) == (0, 1)
    (handoff,) = settlement.outgoing
    assert (handoff.topic, handoff.event_id) == ("support.lookup.v1", caused_id("e1", "triage", 0))
    assert dict(handoff.headers)["deadline"] == b"2026-11-01T12:00:00Z"
    assert dict(handoff.headers)["ce_causationid"] == b"e1"
    assert await tickets.load("t1") is None


async def test_a_ticket_looked_up_before_is_not_loaded_again() -> None:
    tickets = memory_stores().tickets
    first = decided(await Deciding(triage, BY, tickets)(delivery()))
    await tickets.settle([first], "me")
    one = delivery(event(event_id="e2"))
    one.ticket = Ticket(ticket_id="t1", tenant_id="default", version=41)
    assert decided(await Deciding(triage, BY, tickets)(one)).ticket.version == 41
    one.ticket = None
    assert decided(await Deciding(triage, BY, tickets)(one)).ticket.version == 1


async def test_an_event_about_a_ticket_nobody_stored_is_refused() -> None:
    deciding = Deciding(triage, BY, memory_stores().tickets)
    with pytest.raises(ContractBroken, match="nobody stored"):
        await deciding(delivery(event(cancel_order())))


async def test_only_the_tenants_served_are_served() -> None:
    deciding = Deciding(triage, BY, memory_stores().tickets, tenants=frozenset({"acme"}))
    with pytest.raises(UnknownTenant):
        await deciding(delivery())
    acme = TicketSubmitted(ticket_id="t1", tenant_id="acme", body="b")
    assert decided(await deciding(delivery(event(acme)))).ticket.tenant_id == "acme"


async def test_a_known_ticket_under_another_tenant_is_refused() -> None:
    tickets = memory_stores().tickets
    deciding = Deciding(triage, BY, tickets)
    await tickets.settle([decided(await deciding(delivery()))], "me")
    other = TicketSubmitted(ticket_id="t1", tenant_id="other", body="b")
    with pytest.raises(TenantMismatch):
        await deciding(delivery(event(other, event_id="e2")))


@pytest.mark.parametrize("change", [{"tenant_id": "other"}, {"ticket_id": "t2"}, {"version": 7}])
async def test_a_step_may_not_change_whose_ticket_it_is(change: dict[str, object]) -> None:
    async def confused(ticket: Ticket, event: Event) -> Step:
        return Step(ticket.model_copy(update=change))

    with pytest.raises(ContractBroken):
        await Deciding(confused, BY, memory_stores().tickets)(delivery())


async def test_a_step_may_not_emit_about_another_ticket() -> None:
    async def confused(ticket: Ticket, event: Event) -> Step:
        return Step(ticket, (LookupRequested(ticket_id="t2", round=1),))

    with pytest.raises(ContractBroken):
        await Deciding(confused, BY, memory_stores().tickets)(delivery())


async def test_a_decision_is_cut_short_at_the_deadline() -> None:
    async def endless(ticket: Ticket, event: Event) -> Step:
        await asyncio.Event().wait()
        raise AssertionError

    limit = datetime.now(UTC) + timedelta(seconds=0.1)
    with pytest.raises(DeadlinePassed):
        await Deciding(endless, BY, memory_stores().tickets)(delivery(event(deadline=limit)))


async def test_a_timeout_of_the_agents_own_is_not_the_deadline() -> None:
    async def slow_tool(ticket: Ticket, event: Event) -> Step:
        raise TimeoutError("the tool's")

    limit = datetime.now(UTC) + timedelta(seconds=60)
    with pytest.raises(TimeoutError, match="the tool's"):
        await Deciding(slow_tool, BY, memory_stores().tickets)(delivery(event(deadline=limit)))


async def test_a_passed_deadline_is_an_outcome_and_a_persons_turn() -> None:
    settlement = decided(await Deciding(timing_out(BY), BY, memory_stores().tickets)(delivery()))
    assert [record.type for record in settlement.outgoing] == ["TicketTimedOut", "ReviewRequested"]
    outcome = TicketTimedOut.model_validate_json(settlement.outgoing[0].value)
    assert (outcome.agent, outcome.agent_version) == ("triage", "v1")


async def test_the_trace_goes_on_in_what_is_emitted() -> None:
    deciding = Deciding(triage, BY, memory_stores().tickets)
    with TracerProvider().get_tracer("test").start_as_current_span("parent") as span:
        settlement = decided(await deciding(delivery()))
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    assert trace_id in dict(settlement.outgoing[0].headers)["traceparent"].decode()
