"""What the autoscaler sees of models is what their workers share: limits, budgets and breakers."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from contracts.errors import StoreUnavailable
from contracts.model_ports import Budget, Granted, Hold, KeyGranted, Load, ProviderCall
from contracts.models import CallContext
from contracts.values import Tier
from ops.autoscale import Room
from ops.models import limits_in
from ops.service.room import rooms
from ops.settings import LlmSettings, RedisSettings, Settings
from ops.usage import alert_record, usage_record
from state import budgets as budgets_module
from state.breakers import RedisBreakers
from state.budgets import RedisBudgets
from state.model_calls import PostgresModelCalls
from state.redis_calls import RedisCalls
from tests.services.native import Service

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

FAST = "openai:gpt-5.4-mini"


class Workers:
    """What workers of agents do to the stores they share, and what is then seen of it."""

    def __init__(self, redis: RedisCalls, redis_url: str, pool: asyncpg.Pool) -> None:
        self.redis = redis
        self.redis_url = redis_url
        self.pool = pool

    def settings(self, **llm: Any) -> Settings:
        given = LlmSettings(standin_url="http://127.0.0.1:1", **llm)
        return Settings(llm=given, redis=RedisSettings(url=self.redis_url))  # type: ignore[arg-type]

    async def ask(self, settings: Settings, provider: str, times: int) -> None:
        """Have calls under way."""
        limits = limits_in(self.redis, settings.llm, provider)
        assert limits is not None
        for _ in range(times):
            assert await limits.acquire(uuid.uuid4().hex, Load(1, 100, 50), lease_s=60) == KeyGranted(0)

    async def fail(self, target: str) -> None:
        """Find that a model does not answer."""
        breakers = RedisBreakers(self.redis)
        for number in range(5):
            await breakers.ask(target, f"c{number}")
            await breakers.tell(target, f"c{number}", answered=False)

    async def spend(self, agent: str, usd: str) -> None:
        """Pay for a call in the agent's budget of a dollar."""
        today = datetime.now(UTC).date()
        book = PostgresModelCalls(self.pool, usage_record, alert_record)
        budgets = RedisBudgets(self.redis, book)
        call = ProviderCall(
            uuid.uuid4().hex, CallContext("t1", "north", "e1", agent, "classify"), Tier.FAST, "openai", "m", today
        )
        hold, of_agent = Hold(Decimal(usd), 100, 60), [Budget("agent", agent, today.isoformat(), Decimal(1), None)]
        assert await budgets.reserve(call, hold, of_agent) == Granted()
        await budgets.settle(call, hold, of_agent, usd=Decimal(usd), tokens=10)

    async def room(self, agent: str, settings: Settings) -> Room:
        async with rooms(settings, self.pool) as found:
            return await found.of(agent)


@pytest.fixture
async def workers(pool: asyncpg.Pool, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workers]:
    monkeypatch.setattr(budgets_module, "AFTER_FLUSH_S", 0.1)
    async with RedisCalls.open(redis_url) as calls:
        yield Workers(calls, redis_url, pool)


async def test_where_nothing_is_set_there_is_room_for_all(workers: Workers) -> None:
    settings = workers.settings()
    assert await workers.room("triage", settings) == Room(model=FAST)
    assert await workers.room("reasoning", settings) == Room(model="anthropic:claude-sonnet-5")
    assert await workers.room("lookup", settings) == Room()


async def test_the_limit_of_the_model_an_agent_asks_is_seen_as_workers_of_any_agent_use_it(workers: Workers) -> None:
    settings = workers.settings(limits={"openai": {"requests": 20, "window_s": 1}, "anthropic": {"requests": 40}})
    await workers.ask(settings, "openai", 5)
    assert (await workers.room("triage", settings)).model_share_used == pytest.approx(0.25)
    assert (await workers.room("reasoning", settings)).model_share_used == 0
    assert (await workers.room("lookup", settings)).model_share_used is None


async def test_a_classifier_of_our_own_leaves_the_limit_to_be_that_of_who_is_asked_when_it_is_unsure(
    workers: Workers,
) -> None:
    settings = workers.settings(limits={"openai": {"requests": 20, "window_s": 1}}, local="classifier:seeds")
    await workers.ask(settings, "openai", 5)
    room = await workers.room("triage", settings)
    assert (room.model, room.model_share_used) == (FAST, pytest.approx(0.25))


async def test_a_model_that_does_not_answer_is_no_matter_while_the_next_of_its_tier_does(workers: Workers) -> None:
    settings = workers.settings(fast=f"{FAST},anthropic:claude-haiku-4-5", limits={"anthropic": {"requests": 10}})
    await workers.fail(FAST)
    room = await workers.room("triage", settings)
    assert (room.model, room.breaker_is_open, room.model_share_used) == ("anthropic:claude-haiku-4-5", False, 0)
    await workers.fail("anthropic:claude-haiku-4-5")
    room = await workers.room("triage", settings)
    assert (room.model, room.breaker_is_open) == (FAST, True)
    assert not (await workers.room("reasoning", settings)).breaker_is_open


async def test_a_budget_is_there_until_it_is_as_good_as_spent(workers: Workers) -> None:
    settings = workers.settings(budgets={"agent": {"usd": "1"}, "ticket": {"usd": "0"}})
    await workers.spend("triage", "0.98")
    assert (await workers.room("triage", settings)).has_budget
    await workers.spend("triage", "0.015")
    assert not (await workers.room("triage", settings)).has_budget
    assert (await workers.room("reasoning", settings)).has_budget


async def test_a_link_that_is_left_out_of_the_chain_bounds_nothing(workers: Workers) -> None:
    given = {"limits": {"openai": {"requests": 20}}, "budgets": {"agent": {"usd": "0"}}}
    await workers.fail(FAST)
    assert await workers.room("triage", workers.settings(chain="fallback", **given)) == Room(model=FAST)


async def test_with_redis_away_nothing_is_said(workers: Workers, redis_server: Service) -> None:
    redis_server.kill()
    with pytest.raises(StoreUnavailable):
        await workers.room("triage", workers.settings())
    assert await workers.room("lookup", workers.settings()) == Room()
