"""The run of a replay: who waits for whom, and what goes on around it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from contracts.errors import ModelOverloaded, StoreUnavailable, SupportError
from contracts.events import Event, TicketSubmitted
from contracts.ports import Position
from contracts.ticket import Step, Ticket
from ops.replay.answers import Till
from ops.replay.inputs import Plan, plan
from ops.replay.parties import parties
from ops.replay.run import Run
from state.memory_tickets import MemoryTickets
from state.past import Life, PastStep
from state.reviews import MemoryReviews

THEN = datetime(2026, 1, 31, 9, tzinfo=UTC)


def planned(ticket_id: str, minute: int, *emails: str, tenant: str = "north") -> Plan:
    """A ticket with a message of each address, a second apart."""
    ticket, steps, records = Ticket(ticket_id=ticket_id, tenant_id=tenant), [], {}
    for nth, email in enumerate(emails):
        said = TicketSubmitted(
            ticket_id=ticket_id, tenant_id=tenant, from_email=email, subject="Hello", body=f"Number {nth}"
        )
        event, at = Event(f"{ticket_id}/{nth}", "shop", THEN, said), THEN + timedelta(minutes=minute, seconds=nth)
        ticket, records[event.id] = ticket.open_round(event), event
        place = Position("support.tickets.v1", 0, nth)
        steps.append(PastStep(ticket_id, "triage", event.id, event.type, place, at, 0.0, Decimal(0), 0, ()))
    found = plan(Life(ticket, tuple(steps), ()), set(records), records)
    assert found is not None
    return found


@dataclass
class Watched:
    """Notes who is at the desk with whom."""

    name: str = "triage"
    version: str = "v1"
    meet: int = 1  # so many have to be at the desk before anybody leaves it
    failures: int = 0
    failure: SupportError = field(default_factory=lambda: ModelOverloaded("too much", retry_after_s=0))
    log: list[str] = field(default_factory=list)
    here: Counter[str] = field(default_factory=Counter)
    crowds: list[Counter[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._all_here = asyncio.Barrier(self.meet)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        if self.failures:
            self.failures -= 1
            raise self.failure
        assert isinstance(event.data, TicketSubmitted)
        who = event.data.from_email.casefold()
        self.here[who] += 1
        self.log.append(event.id)
        self.crowds.append(+self.here)
        await self._all_here.wait()
        await asyncio.sleep(0)
        self.here[who] -= 1
        return Step(ticket.open_round(event))


async def run(desk: Watched, *plans: Plan, changes: tuple[datetime, ...] = ()) -> list[str]:
    """Run them; returns the events in the order in which the desk saw them, and the world's changes between."""

    async def bring_to(at: datetime) -> datetime | None:
        desk.log.extend("change" for change in changes if change <= at and desk.log.count("change") < len(changes))
        return min((change for change in changes if change > at), default=None)

    staff = {"triage": desk}
    party_of = parties(plans, lambda tenant_id: "one shop")
    runs = Run(staff, staff, MemoryTickets(), MemoryReviews(), Till(), bring_to, party_of)
    async with asyncio.timeout(10):
        reruns = await runs.run(plans)
    assert not any(step.problem for rerun in reruns.values() for step in rerun.steps)
    return desk.log


async def test_tickets_of_several_customers_are_at_a_desk_at_the_same_time() -> None:
    desk = Watched(meet=3)
    await run(desk, *(planned(f"t{n}", n, f"{n}@example.com") for n in range(3)))
    assert max(len(crowd) for crowd in desk.crowds) == 3


async def test_those_of_one_customer_come_one_after_another_as_they_did_in_life() -> None:
    desk = Watched()
    late, early = planned("t1", 5, "Ada@example.com"), planned("t2", 1, "ada@example.com ", tenant="south")
    others = [planned(f"o{n}", n, f"{n}@example.com", f"{n}@example.com") for n in range(20)]
    log = await run(desk, late, *others, early)
    assert [event_id for event_id in log if event_id.startswith("t")] == ["t2/0", "t1/0"]
    assert all(count == 1 for crowd in desk.crowds for count in crowd.values())


async def test_a_ticket_in_which_two_customers_wrote_waits_for_both() -> None:
    log = await run(
        Watched(), planned("t3", 9, "bo@example.com"), planned("t2", 3, "ada@example.com", "bo@example.com"),
        planned("t1", 1, "ada@example.com"),
    )  # fmt: skip
    assert log == ["t1/0", "t2/0", "t2/1", "t3/0"]


async def test_no_step_is_run_past_the_moment_when_the_world_changes() -> None:
    plans = [planned(f"t{n}", n, f"{n}@example.com") for n in (1, 2, 3, 4)]
    log = await run(Watched(), *plans, changes=(THEN + timedelta(minutes=2, seconds=30),))
    assert (set(log[:2]), log[2], set(log[3:])) == ({"t1/0", "t2/0"}, "change", {"t3/0", "t4/0"})


async def test_a_model_that_is_overloaded_for_a_moment_is_asked_again() -> None:
    assert await run(Watched(failures=2), planned("t1", 1, "ada@example.com")) == ["t1/0"]


async def test_a_store_that_is_gone_ends_the_run_and_is_no_tickets_fault() -> None:
    with pytest.raises(StoreUnavailable, match="gone"):
        await run(Watched(failures=9, failure=StoreUnavailable("gone")), planned("t1", 1, "ada@example.com"))
