"""Rounds given back to be decided anew: which, how often, and what is then emitted, on every store."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from bus.codec import Codec
from bus.outgoing import outgoing_of
from contracts.errors import SupportError
from contracts.events import Event
from contracts.facts import TakenAction
from contracts.ports import Position, Record, Settled, Settlement, Stores
from contracts.shop import ActionKind
from contracts.ticket import Desk, Signature, Step, Ticket, close, escalate, hand_to
from contracts.topics import TICKETS
from contracts.values import Disposition, Label
from ops.service.anew import Anew, require_decides
from state.memory_tickets import MemoryTickets
from tests.contract.backends import Backend, in_memory, migrated_pool, on_postgres

CODEC = Codec(timedelta(hours=1))
TRIAGE = Signature("triage", "v1")


@dataclass
class Handled:
    """What triage has handled so far, as the topic and the store have it."""

    backend: Backend
    records: list[Record]

    @property
    def stores(self) -> Stores:
        return self.backend.stores

    @property
    def anew(self) -> Anew:
        return Anew("triage", TICKETS, self.stores.tickets, CODEC)

    def write(self, ticket_id: str, body: str) -> Event:
        """Have a customer write."""
        about = {"ticket_id": ticket_id, "body": body, "from_email": "ann@example.com"}
        value = json.dumps(about).encode()
        record = Record(TICKETS.name, 0, len(self.records), 1_700_000_000_000, ticket_id.encode(), value)
        self.records.append(record)
        return CODEC.decode(TICKETS, record)

    async def handle(self, ticket_id: str, body: str, decide: Any) -> Ticket:
        """Have triage open a round and decide it."""
        event = self.write(ticket_id, body)
        ticket = (await self.ticket(ticket_id)).open_round(event)
        step: Step = decide(ticket, ticket.rounds[-1])
        position = Position(TICKETS.name, 0, len(self.records) - 1)
        await self.settle(Settlement("triage", event, position, step.ticket, outgoing_of(step, event, TRIAGE)))
        return await self.ticket(ticket_id)

    async def settle(self, settlement: Settlement) -> None:
        [settled] = await self.stores.tickets.settle([settlement], "w1")
        assert settled is not None
        assert not isinstance(settled, Exception)

    async def ticket(self, ticket_id: str) -> Ticket:
        stored = await self.stores.tickets.load(ticket_id)
        return stored or Ticket(ticket_id=ticket_id, tenant_id="default")

    async def read(self) -> AsyncIterator[Record]:
        for record in self.records:
            yield record

    async def emitted(self, ticket_id: str, kind: str) -> list[dict[str, Any]]:
        timeline = await self.backend.timeline(ticket_id)
        return [one.detail for one in timeline if one.detail.get("type") == kind]


def answered(reply: str = "It is on its way.", **round_: Any) -> Any:
    def decide(ticket: Ticket, opened: Any) -> Step:
        labelled = {"label": Label.ORDER_STATUS, "confidence": 0.9} | round_
        return close(ticket, opened.model_copy(update=labelled), Disposition.ANSWERED, TRIAGE, reply=reply)

    return decide


def acted(ticket: Ticket, opened: Any) -> Step:
    taken = TakenAction(kind=ActionKind.CANCEL_PENDING_ORDER, order_id="#W1", amount=Decimal(12))
    return close(ticket, opened, Disposition.ACTED, TRIAGE, reply="Cancelled.", actions=[taken])


def given_to_a_person(ticket: Ticket, opened: Any) -> Step:
    return escalate(ticket, opened, TRIAGE, reason="triage is unsure", reply="A colleague writes to you.")


def asked(ticket: Ticket, opened: Any) -> Step:
    return close(ticket, opened, Disposition.NEEDS_CUSTOMER, TRIAGE, reply="Which order?")


def handed_on(ticket: Ticket, opened: Any) -> Step:
    return hand_to(Desk.LOOKUP, ticket, opened)


class AnewContract:
    @pytest.fixture
    def desk(self, backend: Backend) -> Handled:
        return Handled(backend, [])

    async def test_an_answered_round_is_given_back_once_for_each_rewind(self, desk: Handled) -> None:
        await desk.handle("t1", "Where is it?", answered())
        assert await desk.anew.counted(desk.read()) == {"again": 1}
        assert (await desk.ticket("t1")).status == Disposition.ANSWERED
        assert await desk.anew.given_back(desk.read(), 7) == {"again": 1}
        ticket = await desk.ticket("t1")
        [round_] = ticket.rounds
        assert (round_.desk, round_.disposition, round_.reply, round_.deadline) == (Desk.TRIAGE, None, "", None)
        [handoff] = await desk.emitted("t1", "TriageRequested")
        assert (handoff["group"], handoff["topic"]) == ("rewind", TICKETS.name)
        assert await desk.anew.given_back(desk.read(), 7) == {"open": 1}
        await self.decided_again(desk, "t1", handoff["event_id"])
        version = (await desk.ticket("t1")).version
        assert await desk.anew.given_back(desk.read(), 7) == {"again": 1}  # it was, before
        assert (await desk.ticket("t1")).version == version
        assert await desk.anew.given_back(desk.read(), 8) == {"again": 1}
        assert len({one["event_id"] for one in await desk.emitted("t1", "TriageRequested")}) == 2

    async def test_what_is_given_back_is_published_by_whichever_worker_comes(self, desk: Handled) -> None:
        await desk.handle("t1", "Where is it?", answered())
        await desk.stores.outbox.mark_published([])
        await desk.backend.live("w1", "w2")
        await desk.stores.leases.release("worker/w1", "w1")
        await desk.anew.given_back(desk.read(), 7)
        taken = await desk.stores.outbox.take_over("w2", limit=10)
        assert [one.record.type for one in taken] == ["TicketResolved", "SendReply", "TriageRequested"]

    async def test_what_came_of_a_round_besides_words_stays(self, desk: Handled) -> None:
        await desk.handle("acted", "Cancel it", acted)
        await desk.handle("person", "Hm", given_to_a_person)
        await desk.handle("asked", "Where?", asked)
        await desk.handle("answers", "The red one", answered(confidence=None))
        await desk.handle("under way", "Where?", handed_on)
        await desk.handle("parked", "Where?", answered())
        await desk.stores.parking.park("triage", "parked", desk.records[-1], wait_s=60, attempts=1, error="later")
        for body in ("Where?", "And now?"):
            await desk.handle("followed", body, answered())
        desk.write("nobody read it", "Hello?")
        desk.records.append(replace(desk.records[0], value=b"no json"))
        before = {one: await desk.ticket(one) for one in ("acted", "person", "asked", "answers", "under way", "parked")}
        expected = {"acted": 1, "person": 1, "followed": 3, "open": 2, "again": 1}
        assert await desk.anew.counted(desk.read()) == expected
        assert await desk.anew.given_back(desk.read(), 7) == expected
        assert {one: await desk.ticket(one) for one in before} == before
        assert [round_.is_open for round_ in (await desk.ticket("followed")).rounds] == [False, True]

    async def test_a_reply_that_is_repeated_is_not_sent_and_another_one_is(self, desk: Handled) -> None:
        await desk.handle("same", "Where?", answered("On its way."))
        await desk.handle("other", "Where?", answered("On its way."))
        await desk.anew.given_back(desk.read(), 7)
        for ticket_id, reply in (("same", "On its way."), ("other", "It is lost.")):
            [handoff] = await desk.emitted(ticket_id, "TriageRequested")
            await self.decided_again(desk, ticket_id, handoff["event_id"], reply)
        assert len(await desk.emitted("same", "TicketResolved")) == 2
        assert len(await desk.emitted("same", "SendReply")) == 1
        replies = await desk.emitted("other", "SendReply")
        assert len(replies) == 2
        assert replies[0]["event_id"] != replies[1]["event_id"]

    async def decided_again(self, desk: Handled, ticket_id: str, event_id: str, reply: str = "On its way.") -> None:
        ticket = await desk.ticket(ticket_id)
        step = answered(reply)(ticket, ticket.rounds[-1])
        event = replace(CODEC.decode(TICKETS, desk.records[0]), id=event_id, data=_data_of(desk, ticket_id))
        await desk.settle(
            Settlement("triage", event, Position("x", 0, 99), step.ticket, outgoing_of(step, event, TRIAGE))
        )


def _data_of(desk: Handled, ticket_id: str) -> Any:
    [record] = [one for one in desk.records if one.key == ticket_id.encode()]
    return CODEC.decode(TICKETS, record).data


class TestInMemory(AnewContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return in_memory()


@pytest.mark.postgres
class TestOnPostgres(AnewContract):
    @pytest.fixture
    async def backend(self, postgres_dsn: str) -> AsyncIterator[Backend]:
        async with migrated_pool(postgres_dsn) as pool:
            yield on_postgres(pool)


class Raced(MemoryTickets):
    """Somebody writes while the first round is given back."""

    interrupt: Any = None

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        if owner == "" and Raced.interrupt is not None:
            interrupt, Raced.interrupt = Raced.interrupt, None
            await interrupt()
        return await MemoryTickets.settle(self, settlements, owner)


async def test_a_ticket_that_moves_on_at_the_same_moment_is_looked_at_again() -> None:
    backend = in_memory()
    backend = replace(backend, stores=replace(backend.stores, tickets=Raced()))
    desk = Handled(backend, [])
    await desk.handle("t1", "Where?", answered())
    await desk.handle("t2", "Where?", answered())
    given = list(desk.records)

    async def interrupt() -> None:
        await desk.handle("t1", "And now?", answered())

    async def read() -> AsyncIterator[Record]:
        for record in given:
            yield record

    Raced.interrupt = interrupt
    assert await desk.anew.given_back(read(), 7) == {"followed": 1, "again": 1}
    assert [round_.is_open for round_ in (await desk.ticket("t1")).rounds] == [False, False]
    assert (await desk.ticket("t2")).rounds[0].is_open


def test_agents_that_decide_nothing_are_told_apart() -> None:
    require_decides("reasoning")
    with pytest.raises(
        SupportError, match="effects decides nothing anew: what it did stays done; `--again` is for tri"
    ):
        require_decides("effects")
