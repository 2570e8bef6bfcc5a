"""Who is next when keys have no room."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from contracts.errors import ModelRateLimited
from contracts.model_ports import KeyGranted, KeyWait, Load, NoKey
from contracts.models import CallContext
from llm.fallback import attempt_at
from llm.limiting import Line
from llm.prices import Price, Prices
from llm.provider import Prompt
from state.key_limits import MemoryKeyLimits
from tests.unit.llm.kit import CALL, REQUEST, target
from tests.unit.llm.scripted_providers import Told

LOAD = Load(1, 100, 50)
PRICES = Prices({("own", "m"): Price(Decimal(1), Decimal(1))})


class Gate:
    """Limits of one key that lets so many through as it is told to."""

    def __init__(self) -> None:
        self.room = 0
        self.asked = 0
        self.granted: list[str] = []

    async def acquire(self, call_id: str, load: Load, *, lease_s: float) -> KeyGranted | KeyWait | NoKey:
        self.asked += 1
        if not self.room:
            return KeyWait(0.01)
        self.room -= 1
        self.granted.append(call_id)
        return KeyGranted(0)

    async def settle(self, call_id: str, key: int, load: Load, used: Load | None) -> None:
        self.room += used is None

    async def pause(self, key: int, wait_s: float) -> None: ...
    async def correct(self, key: int, left: Load, limit: Load) -> None: ...


def prompt(name: str, tenant: str = "north", due_s: float | None = None, timeout_s: float = 30) -> Prompt:
    deadline = None if due_s is None else datetime.now(UTC) + timedelta(seconds=due_s)
    call: CallContext = replace(CALL, tenant_id=tenant, ticket_id=name, deadline=deadline)
    asked = Prompt(REQUEST, call, timeout_s)
    return replace(asked, attempt=attempt_at(target(Told(), "own", "m"), asked, PRICES))


async def served(gate: Gate, *prompts: Prompt) -> list[str]:
    """The order in which tickets get through, one at a time."""
    line, order = Line(gate), []

    async def one(asked: Prompt) -> None:
        await line.acquire(asked, LOAD)
        order.append(asked.call.ticket_id)

    waiting = [asyncio.create_task(one(asked)) for asked in prompts]
    while gate.asked < len(prompts):  # there is no room for anybody yet
        await asyncio.sleep(0)
    while len(order) < len(prompts):
        gate.room = 1
        line.look()
        await asyncio.sleep(0.002)
    await asyncio.gather(*waiting)
    return order


async def test_the_earliest_deadline_goes_first() -> None:
    order = await served(Gate(), prompt("late", due_s=90), prompt("never"), prompt("soon", due_s=30))
    assert order == ["soon", "late", "never"]


async def test_a_flood_of_one_tenant_does_not_starve_another() -> None:
    flood = [prompt(f"flood{n}", tenant="loud", due_s=20) for n in range(100)]
    few = [prompt(f"few{n}", tenant="quiet", due_s=60) for n in range(10)]
    order = await served(Gate(), *flood, *few)
    assert max(order.index(f"few{n}") for n in range(10)) <= 25


async def test_who_waits_too_long_is_told_and_takes_no_room() -> None:
    gate = Gate()
    line = Line(gate)
    with pytest.raises(ModelRateLimited):
        await line.acquire(prompt("t1", timeout_s=0.05), LOAD)
    gate.room = 1
    assert await line.acquire(prompt("t2"), LOAD) == 0
    assert len(gate.granted) == 1


async def test_who_is_cancelled_in_line_leaves_its_place() -> None:
    gate = Gate()
    line = Line(gate)
    gone = asyncio.create_task(line.acquire(prompt("gone"), LOAD))
    while gate.asked < 2:  # alone, and then in the line
        await asyncio.sleep(0)
    gone.cancel()
    gate.room = 1
    assert await line.acquire(prompt("next"), LOAD) == 0
    assert gate.room == 0  # what it was granted as it left was given back


async def test_a_thousand_pass_at_once_where_there_is_room() -> None:
    line = Line(MemoryKeyLimits(2))
    got = await asyncio.gather(*(line.acquire(prompt(f"t{n}"), LOAD) for n in range(1000)))
    assert set(got) == {0, 1}
