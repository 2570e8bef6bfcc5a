import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from bus.admission import Admission
from bus.codec import Codec
from bus.delivery import Delivery
from bus.frontier import Assignment
from contracts.errors import StoreUnavailable, Undecodable
from contracts.ports import Known, Parking, Record, Settlement, Stores, TicketStore, Wanted
from contracts.ticket import Ticket
from contracts.topics import TICKETS
from state.stores import memory_stores
from tests.unit.bus.kit import NOW, fetched, record, ticket_json, until


@dataclass
class Watched:
    """The memory store's look-ups: counted, held up, failing first, as the test wants."""

    store: TicketStore
    asked: list[int] = field(default_factory=list)
    away: int = 0
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        self.asked.append(len(wanted))
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        known = await self.store.look_up(group, wanted)
        await self.answer.wait()
        return known


@dataclass
class HeldUp:
    """The memory store's queues, whose answers come when the test wants."""

    parking: Parking
    asked: int = 0
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        self.asked += 1
        queued = await self.parking.queue(group, followers)
        await self.answer.wait()
        return queued


class Door:
    """An admission, and what came through it."""

    def __init__(self) -> None:
        self.stores: Stores = memory_stores()
        self.watched = Watched(self.stores.tickets)
        self.watched.answer.set()
        self.queues = HeldUp(self.stores.parking)
        self.queues.answer.set()
        self.assignment = Assignment(0)
        self.offered: list[Delivery] = []
        self.settled: list[Delivery] = []
        self.lanes: set[str] = set()
        self.admission = Admission(
            TICKETS,
            "g",
            Codec(timedelta(days=1), lambda: NOW),
            self.watched,  # type: ignore[arg-type]
            self.queues,  # type: ignore[arg-type]
            offer=self.offered.extend,
            settled=self.settled.append,
            has_lane=self.lanes.__contains__,
            is_leaving=lambda ticket_id: False,
        )

    def fetch(self, *ticket_ids: str, body: str = "b") -> None:
        start = self.assignment.end or 0
        self.admission.put(
            [
                fetched(self.assignment, start + n, key=i.encode(), value=ticket_json(ticket_id=i, body=body))
                for n, i in enumerate(ticket_ids)
            ]
        )

    async def settle(self, ticket_id: str, body: str = "b") -> Settlement:
        of = Codec(timedelta(days=1), lambda: NOW).decode(
            TICKETS, record(ticket_json(ticket_id=ticket_id, body=body), key=ticket_id.encode())
        )
        ticket = Ticket(ticket_id=ticket_id, tenant_id="default").open_round(of)
        settlement = Settlement("g", of, fetched(Assignment(1), 0).position, ticket)
        await self.stores.tickets.settle([settlement], "me")
        return settlement


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    running = asyncio.create_task(door.admission.run())
    yield door
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_whole_fetch_is_looked_up_at_once_and_comes_with_its_tickets(door: Door) -> None:
    await door.settle("known", body="earlier")
    door.fetch("new", "known", "new")
    await until(lambda: len(door.offered) == 3)
    assert door.watched.asked == [3]
    versions = [one.ticket.version for one in door.offered if one.ticket is not None]
    assert versions == [0, 1, 0]


async def test_a_ticket_that_has_a_lane_is_not_read_again(door: Door) -> None:
    """Its state comes from the delivery ahead; should none give it, it is loaded when its turn comes."""
    await door.settle("known", body="earlier")
    door.lanes |= {"known", "new"}
    door.fetch("known", "new", "other")
    await until(lambda: len(door.offered) == 3)
    assert [one.ticket and one.ticket.ticket_id for one in door.offered] == [None, None, "other"]


async def test_a_ticket_that_moved_on_in_its_lane_during_the_look_up_comes_as_it_is_now(door: Door) -> None:
    door.lanes.add("t1")
    door.watched.answer.clear()
    door.fetch("t1")
    await until(lambda: bool(door.watched.asked))
    now = Ticket(ticket_id="t1", tenant_id="default", version=7)
    door.admission.noticed_settled("another event", "t1", now)
    door.watched.answer.set()
    await until(lambda: bool(door.offered))
    assert door.offered[0].ticket == now


async def test_what_the_group_has_settled_comes_to_no_lane(door: Door) -> None:
    await door.settle("t1")
    door.fetch("t1", "t2")
    await until(lambda: len(door.offered) == 1)
    assert [one.event.ticket_id for one in door.settled] == ["t1"]


async def test_what_is_settled_while_the_look_up_runs_comes_to_no_lane(door: Door) -> None:
    door.watched.answer.clear()
    door.fetch("t1", "t2")
    await until(lambda: door.watched.asked == [2])
    await asyncio.sleep(0)
    settlement = await door.settle("t1")
    now = settlement.ticket.model_copy(update={"version": 1})
    door.admission.noticed_settled(settlement.event.id, "t1", now)
    door.admission.noticed_settled("another", "t2", None)
    door.watched.answer.set()
    await until(lambda: len(door.offered) == 1)
    assert [one.event.ticket_id for one in door.settled] == ["t1"]
    assert door.offered[0].ticket is None, "to be loaded anew"


async def test_the_later_records_of_a_parked_ticket_wait_behind_it(door: Door) -> None:
    """A follower that overtakes its parked ticket."""
    await door.stores.parking.park("g", "t1", record(offset=9), wait_s=60, attempts=1, error="x")
    door.fetch("t1", "t2")
    await until(lambda: len(door.offered) == 1)
    assert [one.event.ticket_id for one in door.offered] == ["t2"]
    assert [one.event.ticket_id for one in door.settled] == ["t1"]
    parked = await door.stores.parking.due("g", within_s=100, limit=9)
    following = await door.stores.parking.release("g", "t1", parked[0].parked_id)
    assert following is not None
    assert following.record.offset == 0


async def test_a_ticket_parked_while_the_look_up_runs_is_parked(door: Door) -> None:
    door.watched.answer.clear()
    door.fetch("t1")
    await until(lambda: door.watched.asked == [1])
    await asyncio.sleep(0)
    await door.stores.parking.park("g", "t1", record(offset=9), wait_s=60, attempts=1, error="x")
    door.admission.noticed_parked("t1")
    door.watched.answer.set()
    await until(lambda: len(door.settled) == 1)
    assert not door.offered


async def test_a_ticket_parked_while_others_are_queued_is_parked(door: Door) -> None:
    """A follower that overtakes its parked ticket, as it was looked up before, and others took long to queue."""
    await door.stores.parking.park("g", "t1", record(offset=9), wait_s=60, attempts=1, error="x")
    door.queues.answer.clear()
    door.fetch("t1", "t2")
    await until(lambda: door.queues.asked == 1)
    await door.stores.parking.park("g", "t2", record(offset=8), wait_s=60, attempts=1, error="x")
    door.admission.noticed_parked("t2")
    door.queues.answer.set()
    await until(lambda: len(door.settled) + len(door.offered) == 2)
    assert not door.offered


async def test_what_is_resumed_waits_behind_nobody(door: Door) -> None:
    await door.stores.parking.park("g", "t1", record(ticket_json(ticket_id="t1")), wait_s=0, attempts=1, error="x")
    [parked] = await door.stores.parking.due("g", within_s=1, limit=9)
    one = Delivery(parked.record, parked.ticket_id)
    one.parked = parked
    door.admission.put([one])
    await until(lambda: len(door.offered) == 1)


async def test_an_outage_of_the_store_is_waited_out(door: Door) -> None:
    door.watched.away = 2
    door.fetch("t1")
    await until(lambda: len(door.offered) == 1)
    assert door.watched.asked == [1, 1, 1]


async def test_what_cannot_be_read_is_offered_in_its_tickets_turn_without_a_look_up(door: Door) -> None:
    door.admission.put([fetched(door.assignment, 0, key=b"t1", value=b"no JSON")])
    door.fetch("t1")
    await until(lambda: len(door.offered) == 2)
    assert isinstance(door.offered[0].decoded, Undecodable)
    assert [one.key for one in door.offered] == ["t1", "t1"]
    assert door.watched.asked == [1]


async def test_what_was_revoked_meanwhile_is_forgotten(door: Door) -> None:
    door.watched.answer.clear()
    door.fetch("t1")
    await until(lambda: door.watched.asked == [1])
    door.assignment.over = True
    door.assignment = Assignment(0)
    door.watched.answer.set()
    door.fetch("t2")
    await until(lambda: len(door.offered) == 1)
    assert door.offered[0].event.ticket_id == "t2"
    assert not door.settled
