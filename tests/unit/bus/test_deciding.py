import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from bus.deciding import Deciding, timing_out
from bus.middleware import DeadlinePassed
from bus.outcome import Done, Duplicate
from bus.relay import Relay
from contracts.errors import BusUnavailable, ContractBroken, TenantMismatch, UnknownTenant, VersionConflict
from contracts.events import Event, LookupRequested, ModelCalled, TicketSubmitted, TicketTimedOut, caused_id
from contracts.models import ModelCall
from contracts.ports import OutgoingRecord, Position
from contracts.ticket import Desk, Signature, Step, Ticket, hand_to
from contracts.values import Tier
from state.memory_tickets import MemoryTickets
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


@dataclass
class Wire:
    """What was published, in order; `down` calls fail first."""

    sent: list[OutgoingRecord] = field(default_factory=list)
    down: int = 0
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, records: Sequence[OutgoingRecord]) -> list[Position]:
        self.tried.set()
        if self.down:
            self.down -= 1
            raise BusUnavailable("down")
        self.sent.extend(records)
        return [Position(record.topic, 0, index) for index, record in enumerate(records)]


async def triage(ticket: Ticket, event: Event) -> Step:
    opened = ticket.open_round(event)
    return hand_to(Desk.LOOKUP, opened, opened.rounds[-1], [CALL])


async def types_of(store: MemoryTickets) -> list[str]:
    rows = await store.claim_unpublished(older_than_s=0, lease_s=60, limit=10)
    return [row.record.type for row in rows]


async def test_a_step_is_stored_published_and_marked() -> None:
    store, wire = MemoryTickets(), Wire()
    assert await Deciding(triage, BY, store, wire.publish)(delivery(event(deadline=NOW))) == Done()
    ticket = await store.load("t1")
    assert ticket is not None
    assert (ticket.version, len(ticket.rounds)) == (1, 1)
    handoff, usage = wire.sent
    assert [handoff.topic, usage.topic] == ["support.lookup.v1", "support.usage.v1"]
    assert [handoff.event_id, usage.event_id] == [caused_id("e1", "triage", 0), caused_id("e1", "triage", 1)]
    assert dict(handoff.headers)["deadline"] == b"2026-11-01T12:00:00Z"
    assert "deadline" not in dict(usage.headers)
    assert dict(handoff.headers)["ce_causationid"] == b"e1"
    called = ModelCalled.model_validate_json(usage.value)
    assert (called.event_id, called.agent, called.input_tokens) == ("e1", "triage", 7)
    assert await types_of(store) == []


async def test_an_outage_of_kafka_is_waited_out_before_the_lane_is_free() -> None:
    store, wire = MemoryTickets(), Wire(down=2)
    assert await Deciding(triage, BY, store, wire.publish)(delivery()) == Done()
    assert [record.type for record in wire.sent] == ["LookupRequested", "ModelCalled"]


async def test_what_a_dead_worker_stored_is_published_by_the_relay_once() -> None:
    store, wire = MemoryTickets(), Wire(down=10**6)
    relay = Relay(store, wire.publish, older_than_s=0, lease_s=0.01)
    dying = asyncio.create_task(Deciding(triage, BY, store, wire.publish)(delivery()))
    await asyncio.wait_for(wire.tried.wait(), timeout=5)
    dying.cancel()
    with pytest.raises(BusUnavailable):
        await relay.sweep()
    assert not wire.sent
    wire.down = 0
    async with asyncio.timeout(5):
        while not wire.sent:
            await relay.sweep()
    assert [record.type for record in wire.sent] == ["LookupRequested", "ModelCalled"]
    assert await relay.sweep() == 0


async def test_a_record_that_can_never_be_published_stays_and_holds_up_no_other() -> None:
    store, wire = MemoryTickets(), Wire(down=1)
    sent: list[str] = []

    async def too_large_first(records: Sequence[OutgoingRecord]) -> list[Position]:
        if records[0].type == "LookupRequested":
            raise ContractBroken("too large")
        sent.append(records[0].type)
        return await wire.publish(records)

    with pytest.raises(ContractBroken):
        await Deciding(triage, BY, store, too_large_first)(delivery())
    wire.down = 0
    await Relay(store, too_large_first, older_than_s=0, lease_s=0).sweep()
    assert sent == ["ModelCalled"]
    assert await types_of(store) == ["LookupRequested"]


async def test_an_event_settled_meanwhile_is_a_duplicate_and_publishes_nothing() -> None:
    store, wire = MemoryTickets(), Wire()
    deciding = Deciding(triage, BY, store, wire.publish)
    await deciding(delivery())
    assert await deciding(delivery()) == Duplicate()
    assert len(wire.sent) == 2


async def test_a_ticket_that_moves_on_while_the_agent_thinks_is_a_conflict_that_stores_nothing() -> None:
    store, wire = MemoryTickets(), Wire()

    async def overtaken(ticket: Ticket, decided: Event) -> Step:
        await Deciding(triage, BY, store, wire.publish)(delivery(event(event_id="e0")))
        return await triage(ticket, decided)

    with pytest.raises(VersionConflict):
        await Deciding(overtaken, BY, store, wire.publish)(delivery())
    assert not await store.handled("triage", "e1")
    assert len(wire.sent) == 2


async def test_an_event_about_a_ticket_nobody_stored_is_refused() -> None:
    deciding = Deciding(triage, BY, MemoryTickets(), Wire().publish)
    with pytest.raises(ContractBroken, match="nobody stored"):
        await deciding(delivery(event(cancel_order())))


async def test_only_the_tenants_served_are_served() -> None:
    deciding = Deciding(triage, BY, MemoryTickets(), Wire().publish, tenants=frozenset({"acme"}))
    with pytest.raises(UnknownTenant):
        await deciding(delivery())
    acme = TicketSubmitted(ticket_id="t1", tenant_id="acme", body="b")
    assert await deciding(delivery(event(acme))) == Done()


async def test_a_known_ticket_under_another_tenant_is_refused() -> None:
    deciding = Deciding(triage, BY, MemoryTickets(), Wire().publish)
    await deciding(delivery())
    other = TicketSubmitted(ticket_id="t1", tenant_id="other", body="b")
    with pytest.raises(TenantMismatch):
        await deciding(delivery(event(other, event_id="e2")))


@pytest.mark.parametrize("change", [{"tenant_id": "other"}, {"ticket_id": "t2"}, {"version": 7}])
async def test_a_step_may_not_change_whose_ticket_it_is(change: dict[str, object]) -> None:
    async def confused(ticket: Ticket, event: Event) -> Step:
        return Step(ticket.model_copy(update=change))

    with pytest.raises(ContractBroken):
        await Deciding(confused, BY, MemoryTickets(), Wire().publish)(delivery())


async def test_a_step_may_not_emit_about_another_ticket() -> None:
    async def confused(ticket: Ticket, event: Event) -> Step:
        return Step(ticket, (LookupRequested(ticket_id="t2", round=1),))

    store = MemoryTickets()
    with pytest.raises(ContractBroken):
        await Deciding(confused, BY, store, Wire().publish)(delivery())
    assert not await store.handled("triage", "e1")


async def test_a_decision_is_cut_short_at_the_deadline_and_stores_nothing() -> None:
    async def endless(ticket: Ticket, event: Event) -> Step:
        await asyncio.Event().wait()
        raise AssertionError

    store = MemoryTickets()
    limit = datetime.now(UTC) + timedelta(seconds=0.1)
    with pytest.raises(DeadlinePassed):
        await Deciding(endless, BY, store, Wire().publish)(delivery(event(deadline=limit)))
    assert await store.load("t1") is None


async def test_a_timeout_of_the_agents_own_is_not_the_deadline() -> None:
    async def slow_tool(ticket: Ticket, event: Event) -> Step:
        raise TimeoutError("the tool's")

    limit = datetime.now(UTC) + timedelta(seconds=60)
    with pytest.raises(TimeoutError, match="the tool's"):
        await Deciding(slow_tool, BY, MemoryTickets(), Wire().publish)(delivery(event(deadline=limit)))


async def test_a_passed_deadline_is_an_outcome_and_a_persons_turn() -> None:
    store, wire = MemoryTickets(), Wire()
    assert await Deciding(timing_out(BY), BY, store, wire.publish)(delivery()) == Done()
    assert [record.type for record in wire.sent] == ["TicketTimedOut", "ReviewRequested"]
    outcome = TicketTimedOut.model_validate_json(wire.sent[0].value)
    assert (outcome.agent, outcome.agent_version) == ("triage", "v1")


async def test_the_trace_goes_on_in_what_is_emitted() -> None:
    wire = Wire()
    deciding = Deciding(triage, BY, MemoryTickets(), wire.publish)
    with TracerProvider().get_tracer("test").start_as_current_span("parent") as span:
        await deciding(delivery())
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    assert trace_id in dict(wire.sent[0].headers)["traceparent"].decode()
