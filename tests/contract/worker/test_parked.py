"""Tickets that fail: parked in order while the partition goes on, resumed, or left behind a dead letter."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.errors import ContractBroken, ModelUnavailable
from contracts.events import Event
from contracts.ports import Known, ParkedRecord, Record, Stores, TicketStore, Wanted
from tests.contract.worker.bench import FAST, Bench, until

pytestmark = pytest.mark.kafka

PARKING = replace(FAST, retry_delays_s=(1.5, 1.5), longest_wait_in_place_s=0.1)


def failing_first(bench: Bench, times: int) -> list[str]:
    """Let the first tries at a ticket `sick` fail; returns the bodies handled without failing, in order."""
    handled: list[str] = []
    failures = 0

    async def think(event: Event) -> None:
        nonlocal failures
        if event.ticket_id == "sick" and failures < times:
            failures += 1
            raise ModelUnavailable("not now")
        handled.append(event.data.body)  # type: ignore[attr-defined]

    bench.agent.meanwhile = think
    return handled


async def test_a_failed_ticket_and_its_later_records_wait_in_order_while_others_go_on(bench: Bench) -> None:
    """Rows of one sequence are parked together; a retry topic would let the later ones overtake."""
    handled = failing_first(bench, times=1)
    async with bench.worker(options=PARKING):
        for number in range(3):
            await bench.submit("sick", f"sick {number}")
        await bench.submit("well", "well")
        await until(bench.all_committed)  # nothing holds the offsets: the ticket waits in the database
        assert handled == ["well"]
        await bench.submit("sick", "sick 3")

        async def all_are_handled() -> bool:
            return len(handled) == 5

        await until(all_are_handled)
        await until(bench.all_committed)
    assert handled == ["well", "sick 0", "sick 1", "sick 2", "sick 3"]
    assert await bench.replies("sick") == ["sick 0", "sick 1", "sick 2", "sick 3"]
    assert not (await bench.store.look_up(bench.agent.name, [Wanted("x", "sick")])).parked


class Slowly:
    """The store's queues, each addition held until a parked record has been resumed and waits in its lane."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._due = asyncio.Event()
        self.looked_up = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores.parking, name)

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        await self._due.wait()
        await self.looked_up.wait()
        for _ in range(100):  # turns of the loop
            await asyncio.sleep(0)
        return await self._stores.parking.queue(group, followers)

    async def due(self, group: str, **bounds: Any) -> Sequence[ParkedRecord]:
        found = await self._stores.parking.due(group, **bounds)
        if found and not self._due.is_set():
            self._due.set()
            self.looked_up.clear()
        return found


class LookUps:
    """The store's tickets, whose look-ups are told of."""

    def __init__(self, tickets: TicketStore, told: asyncio.Event) -> None:
        self._tickets = tickets
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tickets, name)

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        known = await self._tickets.look_up(group, wanted)
        self._told.set()
        return known


async def test_a_record_resumed_before_its_lane_was_free_is_handled_once_it_is(bench: Bench) -> None:
    """It stood behind itself in the lane, was queued behind itself with the others, and so settled unhandled."""
    slowly = Slowly(bench.stores)
    tickets = LookUps(bench.stores.tickets, slowly.looked_up)
    bench.stores = replace(bench.stores, tickets=tickets, parking=slowly)
    handled = failing_first(bench, times=1)
    async with bench.worker(options=replace(PARKING, retry_delays_s=(0.2,), longest_wait_in_place_s=0)):
        await asyncio.gather(*(bench.submit("sick", f"sick {number}") for number in range(3)))

        async def all_are_handled() -> bool:
            return len(handled) == 3

        await until(all_are_handled)
        await until(bench.all_committed)
    assert sorted(handled) == ["sick 0", "sick 1", "sick 2"]
    assert len(await bench.replies("sick")) == 3


async def test_a_parked_ticket_outlives_its_worker_and_so_do_its_attempts(bench: Bench) -> None:
    """Retries kept in memory are lost at a restart (dapr/dapr#7549)."""
    handled = failing_first(bench, times=99)
    async with bench.worker(options=PARKING):
        await bench.submit("sick", "sick")
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 1
    async with bench.worker(options=PARKING):
        letters = await bench.dead_letters(1)
    assert len(bench.agent.seen) == 3
    assert dict(letters[0].headers)["kafka_dlt-attempts"] == b"3"
    assert not handled


async def test_behind_a_dead_letter_the_ticket_stays_parked_and_others_go_on(bench: Bench) -> None:
    async def think(event: Event) -> None:
        if event.data.body == "broken":  # type: ignore[attr-defined]
            raise ContractBroken("cannot be")

    bench.agent.meanwhile = think
    async with bench.worker():
        await bench.submit("sick", "broken")
        await bench.submit("sick", "behind it")
        await bench.submit("well", "well")
        await until(bench.all_committed)
    assert [letter.key for letter in await bench.dead_letters(1)] == [b"sick"]
    assert await bench.replies("sick") == []
    assert await bench.replies("well") == ["well"]
    bench.agent.seen.clear()
    async with bench.worker():
        await bench.submit("sick", "later")
        await until(bench.all_committed)
    assert not bench.agent.seen


async def test_a_strangers_record_does_not_stop_somebodys_ticket(bench: Bench) -> None:
    async with bench.worker():
        await bench.submit("t1", "mine")
        await until(bench.all_committed)
        value = b'{"ticket_id":"t1","tenant_id":"stranger","body":"give me"}'
        await bench.publisher.put(bench.topic.name, key=b"t1", value=value)
        await bench.dead_letters(1)
        await bench.submit("t1", "mine too")
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["mine", "mine too"]


async def test_a_deadline_ends_a_ticket_that_is_parked(bench: Bench) -> None:
    failing_first(bench, times=99)
    patient = replace(PARKING, retry_delays_s=(60.0, 60.0))
    async with bench.worker(options=patient):
        value = b'{"ticket_id":"sick","body":"x"}'
        await bench.publisher.put(bench.topic.name, key=b"sick", value=value, headers=[("deadline", _in(2))])

        async def it_timed_out() -> bool:
            ticket = await bench.store.load("sick")
            return ticket is not None and ticket.status == "timed_out"

        await until(it_timed_out)
    assert len(bench.agent.seen) == 1


def _in(seconds: float) -> bytes:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().encode()
