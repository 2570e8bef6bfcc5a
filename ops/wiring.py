"""Wiring: the one place that sees every package and hands adapters to those who need a port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.effects import Effects
from agents.lookup import Lookup
from bus.connection import KafkaConnection
from bus.consumer import Worker
from bus.options import WorkerOptions
from contracts.errors import Misconfigured
from contracts.models import Degrade
from contracts.ports import Agent, ChatModel, EffectsPort, PolicySearch, Shop
from contracts.topics import INBOX_OF_GROUP
from contracts.values import Tier
from ops.housekeeping import Housekeeping, in_background, retention
from ops.settings import KafkaSettings, Settings
from ops.versions import agent_version
from state.effects import PostgresEffects
from state.housekeeping import PostgresHousekeeping
from state.migrate import migrate
from state.pool import open_pool
from state.shop import PostgresShop
from state.stores import postgres_stores

if TYPE_CHECKING:
    import asyncpg

    from agents.prompts import Prompt

AGENTS = ("triage", "lookup", "reasoning", "effects")


def kafka_connection(settings: KafkaSettings) -> KafkaConnection:
    """The cluster's address and credentials as the bus wants them."""
    password = settings.sasl_password
    return KafkaConnection(
        bootstrap_servers=settings.bootstrap_servers,
        security_protocol=settings.security_protocol,
        sasl_mechanism=settings.sasl_mechanism,
        sasl_username=settings.sasl_username,
        sasl_password=password.get_secret_value() if password else None,
        ssl_cafile=str(settings.ssl_cafile) if settings.ssl_cafile else None,
        ssl_certfile=str(settings.ssl_certfile) if settings.ssl_certfile else None,
        ssl_keyfile=str(settings.ssl_keyfile) if settings.ssl_keyfile else None,
    )


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    """A pool on a database whose schema is up to date."""
    dsn = settings.postgres.dsn.get_secret_value()
    await migrate(dsn)
    async with open_pool(dsn, max_size=settings.postgres.max_connections) as pool:
        yield pool


@contextlib.asynccontextmanager
async def worker(name: str, settings: Settings) -> AsyncIterator[Worker]:
    """One worker process's engine around one agent. Raises Misconfigured: no such agent, or no model for it."""
    if name not in AGENTS:
        raise Misconfigured(f"there is no agent {name!r}; the agents are {', '.join(AGENTS)}")
    keep = retention(settings.postgres)
    async with database(settings) as pool, contextlib.AsyncExitStack() as open_until_stop:
        needs = Needs()
        agent = await _agent(name, settings, pool, open_until_stop, needs)
        stores = postgres_stores(pool)
        housekeeping = Housekeeping(PostgresHousekeeping(pool).prune, stores.leases, keep)
        await open_until_stop.enter_async_context(in_background(housekeeping))
        yield Worker(
            agent,
            stores,
            kafka_connection(settings.kafka),
            topic=INBOX_OF_GROUP[name],
            options=WorkerOptions(
                lanes=settings.agents.lanes,
                default_deadline=settings.agents.default_deadline,
                drain_timeout_s=settings.agents.drain_timeout_s,
                tenants=frozenset(settings.tenants),
                instance_id=settings.kafka.instance_id,
            ),
            held_up=needs.are_away,
        )


@dataclass(slots=True)
class Needs:
    """What an agent cannot do without: each says whether it is away."""

    away: list[Callable[[], bool]] = field(default_factory=list)

    def are_away(self) -> bool:
        """Whether one of them is."""
        return any(is_away() for is_away in self.away)


async def _agent(
    name: str, settings: Settings, pool: asyncpg.Pool, open_until_stop: contextlib.AsyncExitStack, needs: Needs
) -> Agent:
    """The agent of that name. A new agent is one more branch here."""
    shop: Shop = PostgresShop(pool, settings.shop_of)
    if name == "lookup":
        return Lookup(shop=shop, version=agent_version(name))
    if name == "effects":
        port: EffectsPort = PostgresEffects(pool, settings.shop_of)
        return Effects(port=port, shop=shop, version=agent_version(name))
    return await _asking_agent(name, settings, pool, shop, open_until_stop, needs)


async def _asking_agent(
    name: str,
    settings: Settings,
    pool: asyncpg.Pool,
    shop: Shop,
    open_until_stop: contextlib.AsyncExitStack,
    needs: Needs,
) -> Agent:
    """An agent that asks a model. What that takes is imported only now: the others start without."""
    from agents.prompts import load_prompt
    from agents.reasoning import Reasoning
    from agents.triage import Triage
    from ops.models import chat_model
    from ops.retrieval import policy_search

    prompt = load_prompt(name)
    tiers = _tiers_of(prompt, escalates=name == "triage")
    gateway = await open_until_stop.enter_async_context(chat_model(tiers, settings, pool))
    needs.away.append(gateway.is_away)
    model: ChatModel = gateway
    models = [":".join(names) for tier in tiers for names in settings.llm.models_of(tier)]
    version = agent_version(name, models=models)
    if name == "triage":
        min_confidence = settings.agents.min_confidence
        return Triage(model=model, version=version, prompt=prompt, min_confidence=min_confidence)
    policy: PolicySearch = policy_search(pool, settings)
    limit_usd = settings.agents.money_limit_usd
    return Reasoning(model=model, shop=shop, policy=policy, version=version, prompt=prompt, money_limit_usd=limit_usd)


def _tiers_of(prompt: Prompt, *, escalates: bool) -> list[Tier]:
    """The tiers that an agent may come to ask, its own first: dearer ones when unsure, cheaper ones in need."""
    dearer = list(Tier)[list(Tier).index(prompt.tier) + 1 :] if escalates else []
    cheaper = Degrade.CHEAPER in (prompt.on_breach, prompt.on_outage)
    return [prompt.tier, *dearer, *(list(Tier)[: list(Tier).index(prompt.tier)] if cheaper else [])]
