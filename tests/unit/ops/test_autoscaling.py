import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from contracts.control import Scale
from contracts.errors import Misconfigured, StoreUnavailable, SupportError
from ops.autoscale import Goal, Lag, Room
from ops.service.autoscaling import Autoscaler, Turns, Unkept, fresh_advice, goals_of
from ops.settings import AutoscaleSettings, GoalSettings, read_settings
from ops.wiring import AGENTS
from state.leases import MemoryLeases
from state.scales import MemoryScales
from tests.unit.bus.kit import until


@dataclass
class Measured:
    open: int = 0
    pace_per_s: float = 0.0
    oldest_s: float = 0.0
    partitions: range = range(8)
    paused: str = ""
    workers: range = range(1)


class House:
    """Autoscalers of two agents, what is measured of these, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lags = {"triage": Measured(), "lookup": Measured()}
        self.away: set[str] = set()
        self.scales = MemoryScales()
        self.leases = MemoryLeases()
        self.measured: list[str] = []
        self.autoscaler = self.another()

    def another(self) -> Autoscaler:
        goals, turns = dict.fromkeys(self.lags, Goal()), Turns(self.leases, self.lags, lease_s=0.2)
        return Autoscaler(goals, self.scales, self.measure, self.room, turns.is_mine, clock=lambda: self.now_s)

    async def measure(self, agent: str) -> Lag:
        if agent in self.away:
            raise StoreUnavailable("Kafka is away")
        self.measured.append(agent)
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


async def test_what_holds_more_back_is_kept_once_though_the_number_stays() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10, paused="paused by ada")
    for _ in range(3):
        await house.autoscaler.look_at("triage")
    [kept] = await house.scales.decisions(None, limit=10)
    assert (kept.workers, kept.reason) == (1, "no more than 1 (bounded by: paused)")


async def test_the_advice_is_kept_as_one_json_object_with_the_number_also_where_nothing_changed() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10)
    for _ in range(2):
        await house.autoscaler.look_at("triage")
        kept = await house.scales.advice("triage")
        advice = json.loads(json.dumps(fresh_advice("triage", kept, 5).as_document()))
        assert (advice["agent"], advice["workers"], advice["inputs"]["pace_per_s"]) == ("triage", 3, 10)
    assert advice["reason"] == "3 workers are given 20 s to show their worth"


async def test_advice_of_an_autoscaler_that_stopped_is_none() -> None:
    with pytest.raises(SupportError, match="nobody looked at triage yet"):
        fresh_advice("triage", None, 5)
    old = Scale("triage", 3, by="autoscale", at=datetime.now(UTC) - timedelta(seconds=90))
    with pytest.raises(SupportError, match="nobody has looked at triage for 90 s"):
        fresh_advice("triage", old, 5)
    assert fresh_advice("triage", old, 30).workers == 3


async def test_one_autoscaler_decides_however_many_run_and_the_next_goes_on_where_it_ends() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10)
    others = [house.another() for _ in range(3)]
    for _ in range(3):
        for autoscaler in (house.autoscaler, *others):
            await autoscaler._take_turn("triage")
    assert len(house.measured) == 3, "one of four looks in each of three turns"

    async def taken_over() -> bool:
        await others[0]._take_turn("triage")
        return len(house.measured) > 3

    async with asyncio.timeout(30):
        while not await taken_over():
            await asyncio.sleep(0.01)
    await house.autoscaler._take_turn("triage")
    assert len(house.measured) == 4
    advice = await house.scales.advice("triage")
    assert advice is not None
    assert advice.reason == "3 workers are given 20 s to show their worth", "as the one before would have said"
    assert [kept.workers for kept in await house.scales.decisions(None, limit=10)] == [3]


async def test_two_autoscalers_of_one_agent_each_do_not_wait_for_one_another() -> None:
    house = House()
    await house.autoscaler._take_turn("triage")
    await house.another()._take_turn("lookup")
    assert house.measured == ["triage", "lookup"]


async def test_who_gets_the_turn_back_has_not_watched_what_went_before() -> None:
    house = House()
    await house.scales.decide(Scale("triage", 5, by="ada"))
    house.autoscaler.is_my_turn = turns = AsSaid()
    for house.now_s, turns.mine in ((0, True), (60, True), (90, False), (150, True)):
        await house.autoscaler._take_turn("triage")
    assert await house.scales.wanted() == {"triage": 5}


class AsSaid:
    mine = True

    async def __call__(self, _agent: str) -> bool:
        return self.mine


async def test_a_number_that_a_person_sets_is_watched_for_the_whole_calm_time() -> None:
    house = House()
    for house.now_s in range(0, 200, 10):
        await house.autoscaler.look_at("triage")
    await house.scales.decide(Scale("triage", 5, by="ada"))
    for house.now_s in range(200, 310, 10):
        assert (await house.autoscaler.look_at("triage")).workers == 5
    for house.now_s in range(310, 340, 10):
        await house.autoscaler.look_at("triage")
    assert await house.scales.wanted() == {"triage": 1}


async def test_a_trial_decides_the_same_and_keeps_nothing() -> None:
    house = House()
    house.lags["triage"] = Measured(open=900, pace_per_s=10)
    house.autoscaler.scales = Unkept(house.scales)
    assert (await house.autoscaler.look_at("triage")).workers == 3
    assert await house.scales.decisions(None, limit=10) == []
    assert await house.scales.advice("triage") is None


def test_goals_are_those_of_all_but_for_what_is_set_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert goals_of(None, AutoscaleSettings()) == dict.fromkeys(AGENTS, Goal())
    monkeypatch.setenv("SWITCHYARD_AUTOSCALE__MOST", "4")
    monkeypatch.setenv("SWITCHYARD_AUTOSCALE__AGENTS", '{"triage": {"most": 6, "to_zero": true, "fewest": 0}}')
    goals = goals_of(None, read_settings().autoscale)
    assert goals["lookup"] == Goal(most=4)
    assert goals["triage"] == Goal(most=6, fewest=0, to_zero=True)
    assert list(goals_of("lookup", read_settings().autoscale)) == ["lookup"]


def test_a_goal_of_nobody_and_one_that_contradicts_itself_are_named() -> None:
    with pytest.raises(Misconfigured, match=r"AUTOSCALE__AGENTS names triag; the agents are triage"):
        goals_of(None, AutoscaleSettings(agents={"triag": GoalSettings()}))
    with pytest.raises(Misconfigured, match=r"triage is to have at least 5 workers and at most 4"):
        goals_of(None, AutoscaleSettings(most=4, agents={"triage": GoalSettings(fewest=5)}))


async def test_it_goes_on_from_what_a_person_decided() -> None:
    house = House()
    await house.scales.decide(Scale("triage", 5, by="ada"))
    assert (await house.autoscaler.look_at("triage")).workers == 5
    for house.now_s in (100, 200):
        decision = await house.autoscaler.look_at("triage")
    assert decision.workers == 1
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
