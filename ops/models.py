"""The model gateway of one worker: the provider of the tier its agent asks, prices, journal and response cache."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import TYPE_CHECKING

from contracts.ports import AnswerCache, Journal
from contracts.values import Tier
from llm.gateway import Gateway, Route
from llm.prices import Price, Prices
from llm.provider import Provider
from ops.settings import LlmSettings, Settings
from state.answer_cache import RedisAnswerCache
from state.journal import PostgresJournal

if TYPE_CHECKING:
    import asyncpg

_STANDIN_KEY = "stand-in"


@contextlib.asynccontextmanager
async def chat_model(tier: Tier, settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[Gateway]:
    """What answers an agent that asks one tier: its gateway, with the journal in the database and the cache in Redis.

    Raises as `gateway` does.
    """
    async with (
        RedisAnswerCache.open(settings.redis.url.get_secret_value()) as cache,
        gateway(settings.llm, tier, PostgresJournal(pool), cache) as model,
    ):
        yield model


@contextlib.asynccontextmanager
async def gateway(settings: LlmSettings, tier: Tier, journal: Journal, cache: AnswerCache) -> AsyncIterator[Gateway]:
    """A gateway that answers one tier, so that a worker imports no SDK its agent does not need.

    Raises Misconfigured: no provider can answer the tier, or its model has no price.
    """
    name, model = settings.model_of(tier)
    async with _provider(settings, name, model) as provider:
        routes = {tier: Route(provider=provider, provider_name=name, model=model)}
        yield Gateway(routes, _prices(settings), journal, cache, default_timeout_s=settings.timeout_s)


def _prices(settings: LlmSettings) -> Prices:
    overrides = {}
    for key, price in settings.prices.items():
        provider, _, model = key.partition(":")
        overrides[provider, model] = Price(Decimal(str(price.input)), Decimal(str(price.output)))
    return Prices(overrides)


@contextlib.asynccontextmanager
async def _provider(settings: LlmSettings, name: str, model: str) -> AsyncIterator[Provider]:
    """The provider of a model, its SDK imported only now: that takes up to two seconds."""
    if name == "anthropic":
        from llm import anthropic_provider

        async with anthropic_provider.connect(*_access(settings, name)) as client:
            yield anthropic_provider.AnthropicProvider(client, model)
    else:
        from llm import openai_provider

        async with openai_provider.connect(*_access(settings, name)) as openai_client:
            yield openai_provider.OpenAIProvider(openai_client, model)


def _access(settings: LlmSettings, name: str) -> tuple[str, str | None]:
    """(key, base URL) of a provider; the stand-in's where it answers."""
    if settings.uses_standin and settings.standin_url:
        return _STANDIN_KEY, settings.standin_url + ("/v1" if name == "openai" else "")
    key = {"anthropic": settings.anthropic_api_key, "openai": settings.openai_api_key}[name]
    url = {"anthropic": settings.anthropic_base_url, "openai": settings.openai_base_url}[name]
    return key.get_secret_value() if key else "", url
