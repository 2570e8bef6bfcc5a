"""What scales promise, whoever keeps them."""

import asyncpg
import pytest

from contracts.control import Scale
from contracts.ports import Scales
from state.scales import MemoryScales, PostgresScales


class ScalesContract:
    async def test_the_last_decision_about_an_agent_counts(self, scales: Scales) -> None:
        assert await scales.wanted() == {}
        for agent, workers in (("triage", 2), ("lookup", 1), ("triage", 0)):
            await scales.decide(Scale(agent, workers, by="ada"))
        assert await scales.wanted() == {"triage": 0, "lookup": 1}

    async def test_decisions_are_told_newest_first_with_what_they_were_made_from(self, scales: Scales) -> None:
        inputs = {"unfinished": 5000, "bounded_by": "partitions", "model_share_used": None}
        await scales.decide(Scale("triage", 2, by="ada", reason="a sale"))
        await scales.decide(Scale("lookup", 1, by="ben"))
        await scales.decide(Scale("triage", 4, by="autoscale", reason="more", inputs=inputs))
        [newest, oldest] = await scales.decisions("triage", limit=10)
        assert (newest.workers, newest.by, newest.reason, newest.inputs) == (4, "autoscale", "more", inputs)
        assert (oldest.workers, oldest.by, oldest.reason, oldest.inputs) == (2, "ada", "a sale", {})
        assert newest.at is not None
        assert oldest.at is not None
        assert newest.at >= oldest.at
        assert [scale.agent for scale in await scales.decisions(None, limit=2)] == ["triage", "lookup"]

    async def test_advice_is_what_was_found_last_and_changes_nothing_that_is_wanted(self, scales: Scales) -> None:
        assert await scales.advice("triage") is None
        await scales.decide(Scale("triage", 2, by="ada"))
        for workers in (4, 3):
            await scales.advise(Scale("triage", workers, by="autoscale", reason="more", inputs={"open": workers}))
        advice = await scales.advice("triage")
        assert advice is not None
        assert (advice.workers, advice.by, advice.reason, advice.inputs) == (3, "autoscale", "more", {"open": 3})
        assert advice.at is not None
        assert await scales.advice("lookup") is None
        assert await scales.wanted() == {"triage": 2}
        assert len(await scales.decisions(None, limit=10)) == 1


class TestInMemory(ScalesContract):
    @pytest.fixture
    def scales(self) -> Scales:
        return MemoryScales()


@pytest.mark.postgres
class TestOnPostgres(ScalesContract):
    @pytest.fixture
    def scales(self, pool: asyncpg.Pool) -> Scales:
        return PostgresScales(pool)
