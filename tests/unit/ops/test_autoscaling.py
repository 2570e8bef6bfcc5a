import asyncio
import json
from dataclasses import dataclass

import pytest

from contracts.control import Scale
from contracts.errors import StoreUnavailable
from ops.autoscale import Goal, Lag, Room
from ops.service.autoscaling import Autoscaler
from state.scales import MemoryScales
from tests.unit.bus.kit import until


@dataclass
class Measured:
    open: int = 0
    pace_per_s: float = 0.0
    oldest_s: float = 0.0
    partitions: range = range(8)


class House:
    """An autoscaler of two agents, what is measured of them, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lags = {"triage": Measured(), "lookup": Measured()}
        self.away: set[str] = set()
        self.scales = MemoryScales()
        goals = dict.fromkeys(self.lags, Goal())
        self.autoscaler = Autoscaler(goals, self.scales, self.measure, self.room, clock=lambda: self.now_s)

    async def measure(self, agent: str) -> Lag:
        if agent in self.away:
            raise StoreUnavailable("Kafka is away")
        return self.lags[agent]

    async def room(self, _agent: str) -> Room:
        return Room()


async def test_a_change_is_kept_with_all_it_was_decided_from_and_what_stays_is_not() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10)
    await house.autoscaler.look_at("triage")
    await house.autoscaler.look_at("lookup")
    [kept] = await house.scales.decisions(None, limit=10)
    assert (kept.agent, kept.workers, kept.by, kept.reason) == ("triage", 3, "autoscale", "more, from 1 to 3")
    assert kept.inputs["open"] == 900
    assert kept.inputs["goal"]["target_s"] == 30
    assert json.loads(json.dumps(kept.inputs)) == kept.inputs
    await house.autoscaler.look_at("triage")
    assert len(await house.scales.decisions(None, limit=10)) == 1


async def test_the_advice_is_one_json_object_with_the_number() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10)
    await house.autoscaler.look_at("triage")
    advice = json.loads(json.dumps(house.autoscaler.advice("triage")))
    assert (advice["agent"], advice["workers"], advice["inputs"]["pace_per_s"]) == ("triage", 3, 10)


async def test_it_goes_on_from_what_a_person_decided() -> None:
    house = House()
    await house.scales.decide(Scale("triage", 5, by="ada"))
    assert (await house.autoscaler.look_at("triage")).workers == 5
    house.now_s = 300
    assert (await house.autoscaler.look_at("triage")).workers == 1
    assert await house.scales.wanted() == {"triage": 1}


async def test_one_that_cannot_be_measured_stays_as_it_is_and_the_others_are_decided_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    house.away = {"triage"}
    house.lags["lookup"] = Measured(open=900, pace_per_s=10)
    running = asyncio.create_task(house.autoscaler.run(every_s=0.001))
    await until(lambda: any("triage is not scaled for now: Kafka is away" in line for line in caplog.messages))
    running.cancel()
    await asyncio.wait({running})
    assert await house.scales.wanted() == {"lookup": 3}
