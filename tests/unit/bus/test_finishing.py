"""What becomes of decided, failed and refused deliveries, with stores in memory and without Kafka."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bus.admission import Admission
from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery
from bus.engine import Engine
from bus.finishing import Finishing
from bus.frontier import Assignment
from bus.outcome import DONE, DeadLetter, Decided, Later, Outcome
from bus.parking import Scheduler
from bus.relay import Relay
from bus.settling import Settling
from contracts.errors import BusUnavailable, ContractBroken, ModelUnavailable, TenantMismatch
from contracts.events import TicketSubmitted
from contracts.ports import Known, ParkedRecord, Position, Record, Settled, Settlement, Stores, Wanted
from contracts.ticket import Ticket
from contracts.topics import TICKETS
from state.stores import memory_stores
from tests.unit.bus.kit import event, fetched, until

GROUP = "g"
NOT_NOW = ModelUnavailable("not now")


@dataclass
class Slow:
    """A store where calls of the kinds held wait, before anything is done, until `open` is set."""

    store: Any
    held: set[str] = field(default_factory=set)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        return await self._pass("settle", self.store.settle(settlements, owner))  # type: ignore[no-any-return]

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        return await self._pass("look_up", self.store.look_up(group, wanted))  # type: ignore[no-any-return]

    async def park(self, *args: Any, **kwargs: Any) -> None:
        await self._pass("park", self.store.park(*args, **kwargs))

    async def block(self, *args: Any, **kwargs: Any) -> None:
        await self._pass("block", self.store.block(*args, **kwargs))

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        return await self._pass("queue", self.store.queue(group, followers))  # type: ignore[no-any-return]

    async def release(self, group: str, ticket_id: str, parked_id: int) -> ParkedRecord | None:
        return await self._pass("release", self.store.release(group, ticket_id, parked_id))  # type: ignore[no-any-return]

    async def _pass(self, what: str, call: Any) -> Any:
        self.asked.append(what)
        if what in self.held:
            await self.open.wait()
        return await call


@dataclass
class Letters:
    """Stands for Kafka's dead-letter topic."""

    away: bool = False
    tries: int = 0
    written: list[int] = field(default_factory=list)  # offsets of the originals

    async def put(self, topic: str, *, key: Any, value: Any, headers: Sequence[tuple[str, bytes]]) -> Position:
        self.tries += 1
        if self.away:
            raise BusUnavailable("away")
        self.written.append(int(dict(headers)["kafka_dlt-original-offset"]))
        return Position(topic, 0, 0)


class Desk:
    """Lanes, a settling writer and what finishes deliveries; the test is the handler."""

    def __init__(self) -> None:
        self.stores: Stores = memory_stores()
        self.tickets, self.parking = Slow(self.stores.tickets), Slow(self.stores.parking)
        self.letters = Letters()
        self.assignment = Assignment(0)
        self.failures: list[BaseException] = []
        self.engine = Engine(self._handle, KafkaConnection("nowhere:1"), topic=TICKETS.name, group=GROUP)
        tickets: Any = self.tickets
        parking: Any = self.parking
        letters: Any = self.letters
        relay = Relay(self.stores.outbox, self.stores.leases, letters, "me")
        self.settling = Settling(tickets, lambda: "me", self._stored, failed=self.failures.append)
        self.admission = Admission(
            TICKETS,
            GROUP,
            Codec(timedelta(days=1)),
            tickets,
            parking,
            offer=self.engine.offer,
            settled=lambda delivery: self.finishing.settled_unrun(delivery),
            has_lane=lambda ticket_id: self.engine.lanes.get(ticket_id) is not None,
            is_leaving=lambda ticket_id: self.finishing.is_leaving(ticket_id),
        )
        self.finishing = Finishing(
            GROUP,
            self.engine,
            self.admission,
            self.settling,
            relay,
            parking,
            Scheduler(parking, self.stores.leases, GROUP, "me", lambda parked: None),
            DeadLetters(GROUP, letters),
            retry_delays_s=(1.0, 1.0),
            failed=self.failures.append,
        )

    def fetched(self, event_id: str, ticket_id: str) -> Delivery:
        """An event of a ticket, in hand."""
        one = fetched(self.assignment, self.assignment.end or 0, topic=TICKETS.name, key=ticket_id.encode())
        one.read_as(event(TicketSubmitted(ticket_id=ticket_id, body="b"), event_id=event_id))
        return one

    def fetch(self, *event_ids: str, ticket_id: str = "t1") -> None:
        """Put events of one ticket into its lane, each decided on the ticket as nobody stored it."""
        for event_id in event_ids:
            one = self.fetched(event_id, ticket_id)
            one.ticket = Ticket(ticket_id=ticket_id, tenant_id="default")
            self.engine.offer([one])

    def taken(self) -> Delivery:
        one = self.engine.lanes.take()
        assert one is not None
        return one

    def decide(self, delivery: Delivery, ticket: Ticket | None = None) -> None:
        """Let the handler return a step."""
        on = ticket or delivery.ticket
        assert on is not None
        settlement = Settlement(GROUP, delivery.event, delivery.position, on.open_round(delivery.event))
        self.finishing.finish(delivery, Decided(settlement))

    async def bodies(self, ticket_id: str = "t1") -> int:
        ticket = await self.stores.tickets.load(ticket_id)
        return len(ticket.rounds) if ticket else 0

    async def is_handled(self, event_id: str) -> bool:
        return bool((await self.stores.tickets.look_up(GROUP, [Wanted(event_id, "t1")])).handled)

    async def due(self) -> Sequence[ParkedRecord]:
        return await self.stores.parking.due(GROUP, within_s=1000, limit=10)

    async def resume(self, event_id: str) -> None:
        """Put the one parked record that is due into its lane, as the scheduler does."""
        [parked] = await self.due()
        one = Delivery(parked.record, parked.ticket_id)
        one.read_as(event(TicketSubmitted(ticket_id=parked.ticket_id, body="b"), event_id=event_id))
        one.parked = parked
        self.engine.offer([one])

    async def queue_of(self, ticket_id: str = "t1") -> list[int]:
        """The offsets that wait for a ticket, in their order; they are gone then."""
        [first] = await self.due()
        offsets = []
        parked: ParkedRecord | None = first
        while parked is not None:
            offsets.append(parked.record.offset)
            parked = await self.stores.parking.release(GROUP, ticket_id, parked.parked_id)
        return offsets

    async def _handle(self, _delivery: Delivery) -> Outcome:
        return DONE

    def _stored(self, *what: Any) -> None:
        self.finishing.stored(*what)


# --- steps ------------------------------------------------------------------------------------------------


async def test_lane_and_frontier_wait_until_the_step_is_stored() -> None:
    """Acknowledged before it is stored, a step is lost with its worker."""
    desk = Desk()
    desk.fetch("e1", "e2")
    desk.tickets.held = {"settle"}
    desk.decide(desk.taken())
    await until(lambda: desk.tickets.asked == ["settle"])
    assert desk.engine.lanes.take() is None
    assert desk.assignment.frontier() == 0
    desk.tickets.open.set()
    await until(lambda: desk.assignment.frontier() == 1)
    following = desk.taken()
    assert following.ticket is not None
    assert following.ticket.version == 1, "what was stored comes along"


async def test_a_refused_step_is_decided_again_on_fresh_state_ahead_of_those_behind_it() -> None:
    """Marked in the inbox before its ticket is saved, the step would be taken for a duplicate, and lost."""
    desk = Desk()
    desk.fetch("e0")
    desk.decide(desk.taken())
    await until(lambda: desk.assignment.frontier() == 1)
    desk.fetch("e1", "e2")
    desk.decide(desk.taken())
    await until(lambda: desk.engine.lanes.ready == 1)
    again = desk.taken()
    assert again.event.id == "e1"
    assert again.ticket is None, "to be loaded anew"
    assert not await desk.is_handled("e1")
    lane = desk.engine.lanes.get("t1")
    assert lane is not None
    assert "e1" not in (lane.handled or {})
    desk.decide(again, await desk.stores.tickets.load("t1"))
    await until(lambda: desk.assignment.frontier() == 2)
    assert await desk.bodies() == 2


async def test_a_step_refused_again_and_again_is_a_try_that_failed() -> None:
    desk = Desk()
    desk.fetch("e0")
    desk.decide(desk.taken())
    await until(lambda: desk.assignment.frontier() == 1)
    desk.fetch("e1")
    for _ in range(11):
        await until(lambda: desk.engine.lanes.ready == 1)
        desk.decide(desk.taken(), Ticket(ticket_id="t1", tenant_id="default"))
    await until(lambda: desk.assignment.frontier() == 2)
    assert [(parked.record.offset, parked.attempts) for parked in await desk.due()] == [(1, 1)]


# --- parked tickets ---------------------------------------------------------------------------------------


async def test_a_ticket_is_parked_before_its_lane_is_free() -> None:
    desk = Desk()
    desk.fetch("e1")
    desk.parking.held = {"park"}
    desk.finishing.finish(desk.taken(), Later(NOT_NOW, 5))
    await until(lambda: desk.parking.asked == ["park"])
    desk.fetch("e2")
    assert desk.engine.lanes.take() is None, "it would overtake the one that is to be tried again"
    assert desk.assignment.frontier() == 0
    desk.parking.open.set()
    await until(lambda: desk.assignment.frontier() == 2)
    assert await desk.queue_of() == [0, 1]


async def test_what_comes_while_those_behind_are_put_into_the_queue_follows_them() -> None:
    desk = Desk()
    desk.fetch("e1", "e2", "e3")
    desk.parking.held = {"queue"}
    desk.finishing.finish(desk.taken(), Later(NOT_NOW, 5))
    await until(lambda: desk.parking.asked == ["park", "queue"])
    desk.fetch("e4", "e5")
    desk.parking.open.set()
    await until(lambda: desk.assignment.frontier() == 5)
    assert await desk.queue_of() == [0, 1, 2, 3, 4]
    assert len(desk.engine.lanes) == 0


async def test_what_is_admitted_while_those_before_it_are_put_into_the_queue_follows_them() -> None:
    """Two writes to one ticket's queue at the same moment: the later records came first."""
    desk = Desk()
    desk.fetch("e1", "e2")
    desk.parking.held = {"queue"}
    desk.finishing.finish(desk.taken(), Later(NOT_NOW, 5))
    await until(lambda: desk.parking.asked == ["park", "queue"])
    desk.parking.held = set()
    admitting = asyncio.create_task(desk.admission.run())
    desk.admission.put([desk.fetched("e3", "t1"), desk.fetched("other", "t2")])
    await until(lambda: desk.tickets.asked == ["look_up"])
    for _ in range(20):  # turns of the loop, in which it would be queued
        await asyncio.sleep(0)
    desk.parking.open.set()
    await until(lambda: desk.assignment.frontier() == 3)
    assert await desk.queue_of() == [0, 1, 2]
    admitting.cancel()
    await asyncio.wait([admitting])


async def test_what_is_parked_while_records_are_admitted_is_not_overtaken_by_them() -> None:
    """The look-up came before the ticket was parked, the lane is free by the time that its answer is used."""
    desk = Desk()
    await desk.stores.parking.block(GROUP, "t2", desk.fetched("blocked", "t2").record, attempts=1, error="x")
    desk.fetch("e1")
    one = desk.taken()
    desk.parking.held = {"queue"}
    admitting = asyncio.create_task(desk.admission.run())
    desk.admission.put([desk.fetched("e2", "t1"), desk.fetched("other", "t2")])
    await until(lambda: desk.parking.asked == ["queue"])
    desk.finishing.finish(one, Later(NOT_NOW, 5))
    await until(lambda: len(desk.engine.lanes) == 0)
    desk.parking.open.set()
    await until(lambda: desk.assignment.unsettled == 1)  # the blocked one, which nobody handles here
    assert len(desk.engine.lanes) == 0
    assert await desk.queue_of() == [1, 2]
    admitting.cancel()
    await asyncio.wait([admitting])


async def test_a_dead_letter_of_a_parked_ticket_that_cannot_be_written_holds_up_no_other_ticket() -> None:
    """What came meanwhile for the ticket waited for its letter, and all that was fetched with it or later too."""
    desk = Desk()
    desk.letters.away = True
    desk.fetch("e1")
    desk.finishing.finish(desk.taken(), Later(NOT_NOW, 0))
    await until(lambda: desk.assignment.frontier() == 1)
    await desk.resume("e1")
    desk.finishing.finish(desk.taken(), DeadLetter(ContractBroken("never")))
    admitting = asyncio.create_task(desk.admission.run())
    desk.admission.put([desk.fetched("e2", "t1"), desk.fetched("other", "t2")])
    await until(lambda: desk.engine.lanes.ready == 1)
    other = desk.taken()
    assert other.event.id == "other"
    desk.finishing.finish(other, DONE)
    desk.letters.away = False
    await until(lambda: desk.assignment.frontier() == 3)
    assert desk.engine.lanes.take() is None, "it waits behind the dead letter"
    assert desk.letters.written == [0]
    admitting.cancel()
    await asyncio.wait([admitting])


async def test_behind_a_strangers_dead_letter_in_its_queue_a_ticket_keeps_its_order() -> None:
    """What is resumed may be a stranger's record: those that come meanwhile go behind those that wait since before."""
    desk = Desk()
    desk.letters.away = True
    desk.fetch("strange", "e1")
    desk.finishing.finish(desk.taken(), Later(NOT_NOW, 0))
    await until(lambda: desk.assignment.frontier() == 2)
    await desk.resume("strange")
    stranger = desk.taken()
    desk.finishing.finish(stranger, DeadLetter(TenantMismatch("another tenant's")))
    admitting = asyncio.create_task(desk.admission.run())
    desk.admission.put([desk.fetched("e2", "t1")])
    await until(lambda: stranger.next_in_lane is not None)
    desk.letters.away = False
    await until(lambda: desk.assignment.frontier() == 3)
    await until(lambda: "release" in desk.parking.asked)
    assert desk.engine.lanes.take() is None
    assert await desk.queue_of() == [1, 2]
    admitting.cancel()
    await asyncio.wait([admitting])


async def test_the_tries_that_failed_are_kept_with_the_parked_record() -> None:
    """Retries kept in memory are lost at a restart, and begin anew (dapr/dapr#7549)."""
    desk = Desk()
    desk.fetch("e1")
    one = desk.taken()
    one.attempts = 2
    desk.finishing.finish(one, Later(NOT_NOW, 5))
    await until(lambda: desk.assignment.frontier() == 1)
    assert [parked.attempts for parked in await desk.due()] == [2]


async def test_parked_tickets_take_no_memory_however_many_they_are() -> None:
    """Queues of retries grew without a bound (confluentinc/parallel-consumer#832, #836)."""
    desk = Desk()
    for number in range(50):
        desk.fetch(f"e{number}", f"f{number}", ticket_id=f"t{number}")
    while (one := desk.engine.lanes.take()) is not None:
        desk.finishing.finish(one, Later(NOT_NOW, 5))
    await until(lambda: desk.assignment.unsettled == 0)
    assert (len(desk.engine.lanes), desk.assignment.held_bytes, desk.finishing._tasks) == (0, 0, set())


# --- dead letters -----------------------------------------------------------------------------------------


async def test_behind_a_dead_letter_the_ticket_is_blocked_with_those_that_follow() -> None:
    desk = Desk()
    desk.fetch("e1", "e2")
    desk.finishing.finish(desk.taken(), DeadLetter(ContractBroken("never")))
    await until(lambda: desk.assignment.frontier() == 2)
    assert desk.letters.written == [0]
    assert desk.engine.lanes.take() is None
    assert (await desk.stores.tickets.look_up(GROUP, [Wanted("e3", "t1")])).parked == {"t1"}
    assert await desk.due() == [], "until a person frees it"


async def test_a_dead_letter_that_cannot_be_written_holds_its_lane_and_its_offset() -> None:
    desk = Desk()
    desk.letters.away = True
    desk.fetch("e1", "e2")
    desk.finishing.finish(desk.taken(), DeadLetter(ContractBroken("never")))
    await until(lambda: desk.letters.tries >= 2)
    assert desk.assignment.frontier() == 0
    assert desk.engine.lanes.take() is None
    desk.letters.away = False
    await until(lambda: desk.assignment.frontier() == 2)
    assert desk.letters.written == [0]


async def test_a_strangers_dead_letter_blocks_nobodys_ticket() -> None:
    desk = Desk()
    desk.fetch("e1", "e2")
    desk.finishing.finish(desk.taken(), DeadLetter(TenantMismatch("another tenant's")))
    await until(lambda: desk.assignment.frontier() == 1)
    assert desk.letters.written == [0]
    assert desk.taken().event.id == "e2"
