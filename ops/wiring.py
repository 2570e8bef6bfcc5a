"""Wiring: the one place that sees every package and hands adapters to those who need a port."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from agents.effects import Effects
from agents.identity import Senders
from agents.lookup import Lookup
from agents.review import Review
from bus.connection import KafkaConnection
from bus.consumer import Worker
from bus.options import WorkerOptions
from contracts import topics
from contracts.errors import Misconfigured
from contracts.models import Degrade
from contracts.ports import Agent, ChatModel, PolicySearch, Reviews, Shop
from contracts.values import Tier
from ops.housekeeping import Housekeeping, in_background, retention
from ops.review_timeouts import ReviewTimeouts
from ops.settings import KafkaSettings, LlmSettings, Settings
from ops.versions import agent_version
from state.housekeeping import PostgresHousekeeping
from state.leases import PostgresLeases
from state.migrate import migrate
from state.pool import open_pool
from state.reviews import PostgresReviews
from state.shop import PostgresShop
from state.stores import postgres_stores

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from agents.prompts import Prompt
    from llm.gateway import Gateway
    from llm.labelling import Labeller

    OpenModel = Callable[
        [Iterable[Tier], Settings, asyncpg.Pool, Labeller | None], contextlib.AbstractAsyncContextManager[Gateway]
    ]


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
async def worker(name: str, settings: Settings, *, called: str = "") -> AsyncIterator[Worker]:
    """One worker process's engine around one agent; without a name of its own it is called by host and process.

    Raises Misconfigured: no such agent, or no model for it.
    """
    agent_wired = wired(name)
    keep = retention(settings.postgres)
    async with database(settings) as pool, contextlib.AsyncExitStack() as open_until_stop:
        needs = Needs()
        agent = await agent_wired.build(Making(name, settings, pool, open_until_stop, needs))
        stores = postgres_stores(pool)
        housekeeping = Housekeeping(PostgresHousekeeping(pool).prune, stores.leases, keep)
        await open_until_stop.enter_async_context(in_background(housekeeping))
        yield Worker(
            agent,
            stores,
            kafka_connection(settings.kafka),
            topic=agent_wired.reads,
            options=WorkerOptions(
                name=called or settings.kafka.instance_id or f"{socket.gethostname()}-{os.getpid()}",
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


# --- agents -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Making:
    """What a builder makes an agent of."""

    name: str
    settings: Settings
    pool: asyncpg.Pool
    open_until_stop: contextlib.AsyncExitStack
    needs: Needs
    prompt_of: Callable[[str], Prompt] | None = None  # other prompts than those shipped
    open_model: OpenModel | None = None  # another way to a model than the live one

    @property
    def shop(self) -> Shop:
        """The shop's rows."""
        return PostgresShop(self.pool, self.settings.shop_of)

    @property
    def senders(self) -> Senders:
        """Who is taken for whom."""
        return Senders(frozenset(self.settings.agents.verify_senders))

    async def asked(
        self, *, escalates: bool = False, files: Sequence[Path] = (), labeller: Labeller | None = None
    ) -> Asked:
        """A model for the agent's prompt. What that takes is imported only now: the others start without.

        `files`: what else shapes its decisions, for the version.
        """
        from agents.prompts import load_prompt
        from ops.models import chat_model

        prompt = _first_asked((self.prompt_of or load_prompt)(self.name), self.settings.llm, escalates=escalates)
        tiers = _tiers_of(prompt, escalates=escalates)
        if labeller is None and self.settings.llm.has_classifier:
            tiers = [tier for tier in tiers if tier is not Tier.LOCAL]  # a classifier answers triage alone
        opened = (self.open_model or chat_model)(tiers, self.settings, self.pool, labeller)
        gateway = await self.open_until_stop.enter_async_context(opened)
        self.needs.away.append(gateway.is_away)
        models = [":".join(names) for tier in tiers for names in self.settings.llm.models_of(tier)]
        models += [labeller.version] if labeller else []
        return Asked(gateway, prompt, agent_version(self.name, models=models, files=files))


class Asked(NamedTuple):
    """What an agent that asks a model has besides; its version tells of the models."""

    model: ChatModel
    prompt: Prompt
    version: str


async def _triage(making: Making) -> Agent:
    """Triage asks the local tier first, where there is one: that answers for nothing."""
    from agents.triage import Triage

    settings = making.settings
    labeller = await _labeller(settings.llm)
    model, prompt, version = await making.asked(escalates=True, labeller=labeller)
    surely = settings.agents.min_confidence
    return Triage(
        model=model,
        version=version,
        prompt=prompt,
        min_confidence=surely,
        sure_from={Tier.LOCAL: max(surely, labeller.sure_at if labeller else 0), Tier.FAST: surely},
    )


async def _labeller(settings: LlmSettings) -> Labeller | None:
    if not settings.has_classifier:
        return None
    from ops.classifiers import labeller_of

    return await labeller_of(settings)


async def _lookup(making: Making) -> Agent:
    return Lookup(shop=making.shop, version=agent_version(making.name), senders=making.senders)


async def _reasoning(making: Making) -> Agent:
    from agents.reasoning import Reasoning
    from ops.retrieval import policy_search
    from ops.rules import rules_of_tenants

    agents = making.settings.agents
    policy: PolicySearch = policy_search(making.pool, making.settings)
    model, prompt, version = await making.asked(files=[agents.rules[tenant_id] for tenant_id in sorted(agents.rules)])
    return Reasoning(
        model=model,
        shop=making.shop,
        policy=policy,
        version=version,
        prompt=prompt,
        money_limit_usd=agents.money_limit_usd,
        rules=rules_of_tenants(agents.rules),
        senders=making.senders,
    )


async def _effects(making: Making) -> Agent:
    from ops.effects import effects_port

    port = await making.open_until_stop.enter_async_context(effects_port(making.settings, making.pool))
    return Effects(port=port, shop=making.shop, version=agent_version(making.name))


async def _review(making: Making) -> Agent:
    """What keeps the tenants' time-out policies runs beside it."""
    from ops.rules import rules_of_tenants

    reviews: Reviews = PostgresReviews(making.pool)
    policy_of, rules = making.settings.review.policy_of, making.settings.agents.rules
    timeouts = ReviewTimeouts(reviews, PostgresLeases(making.pool), policy_of)
    await making.open_until_stop.enter_async_context(in_background(timeouts))
    return Review(
        reviews=reviews,
        shop=making.shop,
        version=agent_version(making.name, files=[rules[tenant_id] for tenant_id in sorted(rules)]),
        due_after=lambda tenant_id: policy_of(tenant_id).after,
        rules=rules_of_tenants(rules),
    )


def asking(agent: str) -> Build:
    """Builds an agent that asks a model and needs nothing else: `module:Class`, imported only when it is built."""

    async def build(making: Making) -> Agent:
        make: Callable[..., Agent] = pkgutil.resolve_name(agent)
        model, prompt, version = await making.asked()
        return make(model=model, version=version, prompt=prompt)

    return build


Build = Callable[[Making], Awaitable[Agent]]


class Wired(NamedTuple):
    """How an agent is made, and whose records it is handed."""

    build: Build
    reads: topics.Topic
    escalates: bool | None = None  # whether it asks dearer tiers when unsure; None: it asks no model


AGENTS: Mapping[str, Wired] = MappingProxyType(
    {
        "triage": Wired(_triage, topics.TICKETS, escalates=True),
        "lookup": Wired(_lookup, topics.LOOKUP),
        "reasoning": Wired(_reasoning, topics.REASONING, escalates=False),
        "effects": Wired(_effects, topics.EFFECTS),
        "review": Wired(_review, topics.REVIEW),
    }
)
"""The agents by their names, which are their consumer groups' too. A new agent is one more line."""


def agents_named(name: str | None) -> tuple[str, ...]:
    """The agent of that name, or all of them. Raises Misconfigured: there is none."""
    if name is None:
        return tuple(AGENTS)
    wired(name)
    return (name,)


def wired(name: str) -> Wired:
    """How the agent of a name is made. Raises Misconfigured: there is none."""
    if name not in AGENTS:
        raise Misconfigured(f"there is no agent {name!r}; the agents are {', '.join(AGENTS)}")
    return AGENTS[name]


INBOXES: Mapping[str, topics.Topic] = MappingProxyType({name: wired.reads for name, wired in AGENTS.items()})
"""The topic each agent's consumer group reads."""


def tiers_of(name: str, settings: LlmSettings) -> Sequence[Tier]:
    """The tiers that an agent may come to ask, its own first; none where it asks no model.

    Raises Misconfigured: there is no such agent.
    """
    from agents.prompts import load_prompt

    escalates = wired(name).escalates
    if escalates is None:
        return ()
    return _tiers_of(_first_asked(load_prompt(name), settings, escalates=escalates), escalates=escalates)


def _first_asked(prompt: Prompt, settings: LlmSettings, *, escalates: bool) -> Prompt:
    """The prompt with the tier that is asked first: who escalates begins at the local one, where there is one."""
    return replace(prompt, tier=Tier.LOCAL) if escalates and settings.local else prompt


def _tiers_of(prompt: Prompt, *, escalates: bool) -> list[Tier]:
    """The tiers that an agent may come to ask, its own first: dearer ones when unsure, cheaper ones in need."""
    dearer = list(Tier)[list(Tier).index(prompt.tier) + 1 :] if escalates else []
    cheaper = Degrade.CHEAPER in (prompt.on_breach, prompt.on_outage)
    return [prompt.tier, *dearer, *(list(Tier)[: list(Tier).index(prompt.tier)] if cheaper else [])]
