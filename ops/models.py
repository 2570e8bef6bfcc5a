"""The model gateway of one worker: its tiers' models and keys, and the chain that stands before them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING

from opentelemetry import trace

from contracts.errors import Misconfigured
from contracts.model_ports import Breakers, Budgets, Flights, KeyLimits, Load, ModelCalls, Recordings
from contracts.ports import AnswerCache, Journal
from contracts.values import Tier
from llm.breaking import OpenTargets, guarded
from llm.budgeting import Allowance, budgeted
from llm.buying import bought
from llm.caching import cached
from llm.chain import Link, compose, recalled
from llm.fallback import falling_back
from llm.gateway import Gateway
from llm.limiting import Line, limited
from llm.metrics import Metrics
from llm.prices import Price, Prices
from llm.provider import Completion, Key, Prompt, Provider, Target
from llm.recording import recorded, replayed
from llm.redaction import redacted
from ops.settings import CLASSIFIER, LlmSettings, Settings
from ops.usage import alert_record, usage_record
from state.answer_cache import RedisAnswerCache
from state.breakers import BreakerOptions, RedisBreakers
from state.budgets import RedisBudgets
from state.journal import PostgresJournal
from state.key_limits import MemoryKeyLimits, RedisKeyLimits
from state.model_calls import PostgresModelCalls
from state.recordings import PostgresRecordings
from state.redis_calls import RedisCalls

if TYPE_CHECKING:
    import asyncpg

    from llm.labelling import Labeller

_STANDIN_KEY = "stand-in"


@dataclass(frozen=True, slots=True)
class Shared:
    """What the links share with those of other workers."""

    journal: Journal
    book: ModelCalls
    cache: AnswerCache
    flights: Flights
    recordings: Recordings
    breakers: Breakers
    budgets: Budgets | None = None
    redis: RedisCalls | None = None


def shared_in(pool: asyncpg.Pool, redis: RedisCalls, settings: LlmSettings) -> Shared:
    """Shared through the database and Redis."""
    book, cache = PostgresModelCalls(pool, usage_record, alert_record), RedisAnswerCache(redis)
    return Shared(
        PostgresJournal(pool),
        book,
        cache,
        cache,
        PostgresRecordings(pool),
        RedisBreakers(redis, _breaker_options(settings)),
        RedisBudgets(redis, book),
        redis,
    )


@contextlib.asynccontextmanager
async def chat_model(
    tiers: Iterable[Tier], settings: Settings, pool: asyncpg.Pool, labeller: Labeller | None = None
) -> AsyncIterator[Gateway]:
    """What answers an agent that asks these tiers; `labeller` is the local tier's classifier. Raises as `gateway`."""
    async with (
        RedisCalls.open(settings.redis.url.get_secret_value()) as redis,
        gateway(settings.llm, tiers, shared_in(pool, redis, settings.llm), labeller) as model,
    ):
        yield model


@contextlib.asynccontextmanager
async def gateway(
    settings: LlmSettings, tiers: Iterable[Tier], shared: Shared, labeller: Labeller | None = None
) -> AsyncIterator[Gateway]:
    """A gateway over these tiers. The first one's first model is ready to be asked, the others are soon.

    Raises Misconfigured: no provider can answer a tier, or a model has no price.
    """
    async with contextlib.AsyncExitStack() as open_until_stop:
        targets = {tier: _targets(settings, tier, open_until_stop, labeller) for tier in tiers}
        every = [target for of_tier in targets.values() for target in of_tier]
        if every and settings.recordings != "replay":
            await _ready(every[:1])
            others = asyncio.create_task(_ready(every[1:]))
            open_until_stop.callback(others.cancel)
        yield gateway_over(targets, settings, shared)


def gateway_over(
    targets: Mapping[Tier, Sequence[Target]],
    settings: LlmSettings,
    shared: Shared,
    *,
    tracer: trace.Tracer | None = None,
) -> Gateway:
    """A gateway over these targets, with the chain that the settings ask for. Raises Misconfigured: no price."""
    prices, metrics, open_targets = _prices(settings), Metrics(), OpenTargets()
    links = _links(settings, shared, prices, open_targets, metrics, list(chain.from_iterable(targets.values())))
    chosen = [links[name] for name in settings.chain if name in links]
    if settings.recordings == "replay":
        ask = compose(replayed(shared.recordings), *(link for link in chosen if link is links["redacted"]))
    else:
        tracer = tracer or trace.get_tracer("switchyard.llm")
        ask = compose(bought(shared.book, prices, metrics, tracer), *chosen)
    return Gateway(targets, ask, prices, away=open_targets.away, default_timeout_s=settings.timeout_s)


def _links(
    settings: LlmSettings,
    shared: Shared,
    prices: Prices,
    open_targets: OpenTargets,
    metrics: Metrics,
    targets: Sequence[Target],
) -> Mapping[str, Link]:
    """Every link by its name in the settings; what has nothing to do is left out."""
    allowances = allowances_of(settings)
    links = {
        "redacted": redacted(emails=settings.mask_emails, phones=settings.mask_phones),
        "recalled": recalled(shared.journal),
        "cached": cached(shared.cache, shared.flights, settings.cache_ttl.total_seconds(), metrics),
        "fallback": falling_back(prices, open_targets),
        "limited": limited({target.provider_name: Line(_key_limits(settings, shared, target)) for target in targets}),
        "guarded": guarded(shared.breakers, open_targets),
    }
    if settings.recordings == "record":
        links["recorded"] = recorded(shared.recordings)
    if allowances and shared.budgets is not None:
        links["budgeted"] = budgeted(shared.budgets, allowances)
    return links


def _key_limits(settings: LlmSettings, shared: Shared, target: Target) -> KeyLimits:
    if shared.redis is not None:
        limits = _limits_in(shared.redis, settings, target.provider_name, [key.id for key in target.keys])
        if limits is not None:
            return limits
    return MemoryKeyLimits(len(target.keys))


def limits_in(redis: RedisCalls, settings: LlmSettings, provider: str) -> KeyLimits | None:
    """What a provider's keys took, as all workers count it; None where nothing limits them."""
    keys, _ = access(settings, provider)
    return _limits_in(redis, settings, provider, [_digest(key) for key in keys])


def _limits_in(
    redis: RedisCalls, settings: LlmSettings, provider: str, key_ids: Sequence[str]
) -> RedisKeyLimits | None:
    limit = settings.limits.get(provider)  # type: ignore[call-overload]
    if limit is None:
        return None
    a_minute = Load(limit.requests, limit.input_tokens, limit.output_tokens, limit.tokens)
    return RedisKeyLimits(redis, provider, key_ids, a_minute, window_s=limit.window_s)


def allowances_of(settings: LlmSettings) -> dict[str, Allowance]:
    """What each scope may spend."""
    return {scope: Allowance(given.usd, given.tokens) for scope, given in settings.budgets.items()}


def _prices(settings: LlmSettings) -> Prices:
    overrides = {(CLASSIFIER, model): Price(Decimal(0), Decimal(0)) for model in _classifiers(settings)}
    for key, price in settings.prices.items():
        provider, _, model = key.partition(":")
        overrides[provider, model] = Price(Decimal(str(price.input)), Decimal(str(price.output)))
    return Prices(overrides)


def _classifiers(settings: LlmSettings) -> list[str]:
    return [model for _, model in settings.models_of(Tier.LOCAL)] if settings.has_classifier else []


def _breaker_options(settings: LlmSettings) -> BreakerOptions:
    given = settings.breaker
    return BreakerOptions(given.failures, given.share, given.window_s, given.open_s, given.longest_open_s)


# --- providers --------------------------------------------------------------------------------------------


def _targets(
    settings: LlmSettings, tier: Tier, open_until_stop: contextlib.AsyncExitStack, labeller: Labeller | None
) -> list[Target]:
    found = []
    for provider, model in settings.models_of(tier):
        if provider == CLASSIFIER:
            found.append(_classifying(model, labeller))
            continue
        keys, url = access(settings, provider)
        found.append(
            Target(
                provider,
                model,
                tuple(
                    Key(_OnDemand(provider, model, key, url, open_until_stop), key[-4:], _digest(key)) for key in keys
                ),
            )
        )
    return found


def _classifying(model: str, labeller: Labeller | None) -> Target:
    if labeller is None:
        raise Misconfigured("a classifier answers triage alone: other agents need a model of a provider")
    from llm.classifier_provider import ClassifierProvider

    return Target(CLASSIFIER, model, (Key(ClassifierProvider(labeller, model)),))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def access(settings: LlmSettings, name: str) -> tuple[list[str], str | None]:
    """(keys, base URL) of a provider; the stand-in's where it answers."""
    if settings.uses_standin and settings.standin_url:
        return [_STANDIN_KEY], settings.standin_url + ("/v1" if name == "openai" else "")
    url = {"anthropic": settings.anthropic_base_url, "openai": settings.openai_base_url}[name]
    return settings.keys_of(name), url


async def _ready(targets: Sequence[Target]) -> None:
    for key in (key for target in targets for key in target.keys):
        if isinstance(key.provider, _OnDemand):
            await key.provider.opened()


class _OnDemand:
    """A provider whose SDK is imported when it is first asked: that takes up to two seconds, in a thread."""

    def __init__(
        self, name: str, model: str, key: str, url: str | None, open_until_stop: contextlib.AsyncExitStack
    ) -> None:
        self._name = name
        self._model = model
        self._key = key
        self._url = url
        self._open_until_stop = open_until_stop
        self._opening = asyncio.Lock()
        self._provider: Provider | None = None

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model once; see `llm.provider.Provider`."""
        return await (self._provider or await self.opened()).complete(prompt)

    async def opened(self) -> Provider:
        """The provider, with a client of its own. Raises Misconfigured: there is no key."""
        async with self._opening:
            if self._provider is None:
                await asyncio.to_thread(_import_sdk, self._name)
                self._provider = await self._connected()
        return self._provider

    async def _connected(self) -> Provider:
        if self._name == "anthropic":
            from llm import anthropic_provider

            client = anthropic_provider.connect(self._key, self._url)
            await self._open_until_stop.enter_async_context(client)
            return anthropic_provider.AnthropicProvider(client, self._model)
        from llm import openai_provider

        openai_client = openai_provider.connect(self._key, self._url)
        await self._open_until_stop.enter_async_context(openai_client)
        return openai_provider.OpenAIProvider(openai_client, self._model)


def _import_sdk(name: str) -> None:
    if name == "anthropic":
        import llm.anthropic_provider
    else:
        import llm.openai_provider  # noqa: F401
