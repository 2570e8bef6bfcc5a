"""What an agent's handlers need besides workers, looked at without taking any of it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

import asyncpg

from contracts.model_ports import Breakers, KeyLimits, Spending
from llm.budgeting import budgets_of_agent
from ops.autoscale import Room
from ops.models import allowances_of, limits_in
from ops.settings import CLASSIFIER, LlmSettings, Settings
from ops.usage import alert_record, usage_record
from ops.wiring import tiers_of
from state.breakers import RedisBreakers
from state.budgets import RedisBudgets
from state.model_calls import PostgresModelCalls
from state.redis_calls import RedisCalls

_SPENT = 0.99  # what is left is too little for a call


def _today() -> date:
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class Rooms:
    """Looks at what there is for an agent, as its workers count it. Raises StoreUnavailable."""

    settings: LlmSettings
    limits: Mapping[str, KeyLimits]  # by provider; one that nothing limits is not there
    breakers: Breakers
    spending: Spending
    today: Callable[[], date] = _today

    async def of(self, agent: str) -> Room:
        """All the room there is for an agent that asks no model; else that of the models it asks for every ticket."""
        models = _models_of(agent, self.settings)
        if not models:
            return Room()
        answering = [names for names in models if not await self._is_open(names)]
        provider, model = (answering or models)[0]
        return Room(
            model=f"{provider}:{model}",
            model_share_used=await self._share_used(provider),
            has_budget=await self._has_budget(agent),
            breaker_is_open=not answering,
        )

    async def _is_open(self, names: tuple[str, str]) -> bool:
        return "guarded" in self.settings.chain and await self.breakers.is_open(":".join(names))

    async def _share_used(self, provider: str) -> float | None:
        limits = self.limits.get(provider)
        return None if limits is None or "limited" not in self.settings.chain else await limits.share_used()

    async def _has_budget(self, agent: str) -> bool:
        if "budgeted" not in self.settings.chain:
            return True
        budgets = budgets_of_agent(agent, self.today(), allowances_of(self.settings))
        return await self.spending.share_spent(budgets) < _SPENT


def _models_of(agent: str, settings: LlmSettings) -> Sequence[tuple[str, str]]:
    """(provider, model) in the order they are asked: of the agent's first tier that a provider answers.

    Those it asks only when unsure, or in need, do not bound it: what is short there is seen by what more gain.
    """
    for tier in tiers_of(agent, settings):
        models = [names for names in settings.models_of(tier) if names[0] != CLASSIFIER]
        if models:
            return models
    return ()


@asynccontextmanager
async def rooms(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[Rooms]:
    """Looks at the database and Redis of these settings; Redis need not be up."""
    async with RedisCalls.open(settings.redis.url.get_secret_value()) as redis:
        book = PostgresModelCalls(pool, usage_record, alert_record)
        limits: dict[str, KeyLimits] = {}
        for provider in settings.llm.limits:
            if (of_provider := limits_in(redis, settings.llm, provider)) is not None:
                limits[provider] = of_provider
        yield Rooms(settings.llm, limits, RedisBreakers(redis), RedisBudgets(redis, book))
