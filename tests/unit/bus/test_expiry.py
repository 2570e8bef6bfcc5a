"""A round past its deadline on which nothing moves gets its outcome, once, whoever else comes to it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from bus.expiry import Sweep
from contracts.errors import StoreUnavailable, VersionConflict
from contracts.events import Event, TicketSubmitted
from contracts.ports import Position, Settled, Settlement, StoredRecord, Stores, TicketStore
from contracts.ticket import Desk, Signature, Ticket, close
from contracts.values import Disposition
from state.stores import memory_stores
from tests.unit.bus.kit import until

BY = Signature("triage", "v1")


@dataclass
class Published:
    """What a sweep handed over to be published."""

    records: list[StoredRecord] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)

    def __call__(self, records: Sequence[StoredRecord], owner: str) -> None:
        self.records += records
        self.owners.add(owner)

    @property
    def types(self) -> list[str]:
        return [stored.record.type for stored in self.records]

    def count(self, kind: str) -> int:
        return self.types.count(kind)


@dataclass
class Interrupted:
    """A ticket store that others get to between a look and a settlement, or whose first answers are lost."""

    tickets: TicketStore
    first: Settlement | None = None
    answers_lost: int = 0

    async def overdue(self, *, grace_s: float, limit: int) -> Sequence[Ticket]:
        return await self.tickets.overdue(grace_s=grace_s, limit=limit)

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        if self.first is not None:
            first, self.first = self.first, None
            await self.tickets.settle([first], "somebody")
        results = await self.tickets.settle(settlements, owner)
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailable("the answer got lost")
        return results


@pytest.fixture
def stores() -> Stores:
    return memory_stores()


def sweep(stores: Stores, published: Published, *, owner: str = "a", **changed: float) -> Sweep:
    return Sweep(stores, lambda: owner, BY, published, **changed)  # type: ignore[arg-type]


def message(event_id: str, ticket_id: str, late_s: float) -> Event:
    data = TicketSubmitted(ticket_id=ticket_id, from_email="ada@example.com", body=f"I am {event_id}")
    now = datetime.now(UTC)
    return Event(event_id, "tests", now, data, deadline=now - timedelta(seconds=late_s))


async def opened(stores: Stores, *late_s: float, ticket_id: str = "t1") -> Ticket:
    """A ticket with an open round for each deadline, missed by so many seconds, that nobody works on."""
    ticket = Ticket(ticket_id=ticket_id, tenant_id="default")
    for n, late in enumerate(late_s, start=1):
        event = message(f"{ticket_id}-e{n}", ticket_id, late)
        step = Settlement("triage", event, Position("support.tickets.v1", 0, n), ticket.open_round(event))
        await stores.tickets.settle([step], "somebody")
        ticket = await loaded(stores, ticket_id)
    return ticket


async def loaded(stores: Stores, ticket_id: str = "t1") -> Ticket:
    ticket = await stores.tickets.load(ticket_id)
    assert ticket is not None
    return ticket


def answered(ticket: Ticket) -> Settlement:
    """What an agent settles that answers the ticket's first round."""
    step = close(ticket, ticket.rounds[0], Disposition.ANSWERED, BY, reply="Here it is.")
    return Settlement("lookup", message("late", ticket.ticket_id, 0), Position("support.lookup.v1", 0, 0), step.ticket)


async def test_an_overdue_round_goes_to_a_person_and_the_customer_is_told(stores: Stores) -> None:
    await opened(stores, 60)
    published = Published()
    assert await sweep(stores, published).sweep() == 1
    assert published.types == ["TicketTimedOut", "SendReply", "ReviewRequested"]
    assert published.owners == {"a"}
    round_ = (await loaded(stores)).rounds[0]
    assert (round_.desk, round_.disposition, round_.settled_by) == (Desk.CLOSED, Disposition.TIMED_OUT, "expiry")


async def test_a_round_whose_action_is_under_way_is_left_to_those_who_carry_it_out(stores: Stores) -> None:
    ticket = await opened(stores, 60, 30)
    decided = ticket.with_round(ticket.rounds[0].model_copy(update={"desk": Desk.EFFECTS}))
    position = Position("support.reasoning.v1", 0, 0)
    await stores.tickets.settle([Settlement("reasoning", message("r", "t1", 0), position, decided)], "somebody")
    published = Published()
    ending = sweep(stores, published)
    assert [await ending.sweep(), await ending.sweep()] == [1, 0]
    assert [round_.desk for round_ in (await loaded(stores)).rounds] == [Desk.EFFECTS, Desk.CLOSED]


async def test_it_happens_once_however_often_and_by_how_many_it_is_swept(stores: Stores) -> None:
    for n in range(5):
        await opened(stores, 60, ticket_id=f"t{n}")
    published = Published()
    sweeps = [sweep(stores, published, owner=owner) for owner in "abc"]
    await asyncio.gather(*(one.sweep() for one in sweeps for _ in range(3)))
    assert published.count("TicketTimedOut") == 5


async def test_only_what_is_past_its_deadline_by_more_than_the_grace_is_swept(stores: Stores) -> None:
    await opened(stores, -60, ticket_id="has-time")
    await opened(stores, 20, ticket_id="late")
    await opened(stores, 60, -60, ticket_id="one-of-two")
    published = Published()
    assert await sweep(stores, published, grace_s=30).sweep() == 1
    assert await sweep(stores, published, grace_s=30).sweep() == 0
    assert [round_.is_open for round_ in (await loaded(stores, "one-of-two")).rounds] == [False, True]


async def test_every_overdue_round_of_a_ticket_gets_its_outcome_the_oldest_deadline_first(stores: Stores) -> None:
    await opened(stores, 30, 60)
    published = Published()
    ending = sweep(stores, published)
    assert await ending.sweep() == 1
    assert [round_.is_open for round_ in (await loaded(stores)).rounds] == [True, False]
    assert await ending.sweep() == 1
    assert await ending.sweep() == 0
    assert published.count("TicketTimedOut") == 2
    assert len({stored.record.event_id for stored in published.records}) == 6


async def test_a_round_that_is_answered_at_the_last_moment_stays_answered(stores: Stores) -> None:
    ticket = await opened(stores, 60)
    published = Published()
    meanwhile = replace(stores, tickets=Interrupted(stores.tickets, first=answered(ticket)))  # type: ignore[arg-type]
    assert await sweep(meanwhile, published).sweep() == 0
    assert await sweep(meanwhile, published).sweep() == 0
    assert published.records == []
    assert (await loaded(stores)).rounds[0].disposition is Disposition.ANSWERED


async def test_what_was_decided_before_the_sweep_is_refused_after_it(stores: Stores) -> None:
    ticket = await opened(stores, 60)
    await sweep(stores, Published()).sweep()
    [result] = await stores.tickets.settle([answered(ticket)], "somebody")
    assert isinstance(result, VersionConflict)


async def test_an_answer_that_got_lost_costs_nothing_and_is_published_once(stores: Stores) -> None:
    await opened(stores, 60)
    published = Published()
    flaky = replace(stores, tickets=Interrupted(stores.tickets, answers_lost=2))  # type: ignore[arg-type]
    assert await sweep(flaky, published).sweep() == 1
    assert published.types == ["TicketTimedOut", "SendReply", "ReviewRequested"]


async def test_it_sweeps_by_itself_while_it_has_the_lease(stores: Stores) -> None:
    published, idle = Published(), Published()
    await stores.leases.hold("expiry", "a", lease_s=60)
    tasks = [
        asyncio.create_task(sweep(stores, seen, owner=owner, interval_s=0.01).run())
        for owner, seen in (("b", idle), ("a", published))
    ]
    await opened(stores, 30, 60)
    await until(lambda: published.count("TicketTimedOut") == 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (published.count("TicketTimedOut"), idle.records) == (2, [])
    assert await stores.leases.hold("expiry", "c", lease_s=60)
