"""What the tests of the gateway share: an answer schema, a small wit, and a stand-in served on loopback."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpcore2
import pytest
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.model_ports import ModelCalls
from contracts.models import CallContext, ModelRequest
from contracts.ports import Journal
from contracts.values import Label, Tier, Value
from llm import anthropic_provider, openai_provider
from llm.gateway import Gateway
from llm.provider import Key, Provider, Target
from llm.standin.faults import Faults
from llm.standin.ledger import Ledger
from llm.standin.server import create_app, running
from ops.models import Shared, gateway_over
from ops.settings import LlmSettings
from state.answer_cache import MemoryAnswerCache
from state.breakers import MemoryBreakers
from state.journal import MemoryJournal
from state.model_calls import MemoryModelCalls
from state.recordings import MemoryRecordings

FAST_MODEL = {"anthropic": "claude-haiku-4-5", "openai": "gpt-4.1-mini"}
STRONG_MODEL = {"anthropic": "claude-sonnet-5", "openai": "gpt-5.4-mini"}


class Verdict(Value):
    """A closed answer with a set, a bound and an optional field."""

    label: Label
    confidence: float = Field(ge=0, le=1)
    note: str | None = None


def small_wit(title: str, system: str, content: str) -> dict[str, Any]:
    """Knows one schema; the note tells how long the material was."""
    if title != "Verdict":
        raise LookupError(title)
    return {"label": "complaint", "confidence": 0.75, "note": f"{len(content)} characters"}


REQUEST = ModelRequest(Tier.FAST, system="Choose a label.", content="My parcel is late. é 漢", answer=Verdict)
CALL = CallContext(ticket_id="t1", tenant_id="acme", event_id="e1", agent="triage", step="classify")


def asked_for(event_id: str, *, tenant_id: str = "acme") -> CallContext:
    """The same call while another event is handled."""
    return replace(CALL, event_id=event_id, tenant_id=tenant_id)


@dataclass(frozen=True)
class StandIn:
    """A stand-in that runs, with its ledger and its faults at hand."""

    base_url: str
    ledger: Ledger
    faults: Faults

    def paid_calls(self) -> int:
        """How many calls were paid for so far."""
        return int(self.ledger.summary()["paid_calls"])

    def calls(self) -> int:
        """How many calls came in so far."""
        return int(self.ledger.summary()["calls"])


class Stage:
    """An ASGI app that is whichever app stands on it: one server serves every test a stand-in of its own."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@contextmanager
def standin_server() -> Iterator[Callable[[], StandIn]]:
    """Serve in a thread of its own; yields what puts up a new stand-in, with the small wit, in place of the last."""
    stage, url, stop = Stage(), queue.Queue[str](), threading.Event()

    async def serve() -> None:
        async with running(stage) as base_url:
            url.put(base_url)
            await asyncio.to_thread(stop.wait)

    def put_up() -> StandIn:
        ledger, faults = Ledger(), Faults()
        stage.app = create_app(small_wit, ledger=ledger, faults=faults)
        return StandIn(base_url, ledger, faults)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    base_url = url.get(timeout=10)
    tls = httpcore2.default_ssl_context()
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Each client would read the CA bundle, which takes longer than the test that opens it.
            patch.setattr(httpcore2, "default_ssl_context", lambda **_: tls)
            yield put_up
    finally:
        stop.set()
        thread.join(timeout=10)


@asynccontextmanager
async def open_providers(protocol: str, base_url: str, *models: str) -> AsyncIterator[list[Provider]]:
    """The adapters of a protocol's models, against one server."""
    if protocol == "anthropic":
        async with anthropic_provider.connect("any-key", base_url) as anthropic:
            yield [anthropic_provider.AnthropicProvider(anthropic, model) for model in models]
    else:
        async with openai_provider.connect("any-key", f"{base_url}/v1") as openai:
            yield [openai_provider.OpenAIProvider(openai, model) for model in models]


@asynccontextmanager
async def open_provider(protocol: str, base_url: str) -> AsyncIterator[Provider]:
    """The adapter of a protocol's fast model."""
    async with open_providers(protocol, base_url, FAST_MODEL[protocol]) as (provider,):
        yield provider


def shared(journal: Journal | None = None, *, book: ModelCalls | None = None, **others: Any) -> Shared:
    """What a gateway shares, in memory; a part of it may be given."""
    journal = journal or MemoryJournal()
    cache = others.pop("cache", None) or MemoryAnswerCache()
    own = {"cache": cache, "flights": cache, "recordings": MemoryRecordings(), "breakers": MemoryBreakers()}
    return Shared(journal=journal, book=book or MemoryModelCalls(journal), **{**own, **others})


def target(provider: Provider, name: str, model: str) -> Target:
    """A model behind one key."""
    return Target(name, model, (Key(provider, "-key", "id"),))


@asynccontextmanager
async def open_gateway(
    protocol: str,
    base_url: str,
    *,
    journal: Journal | None = None,
    cache: MemoryAnswerCache | None = None,
    settings: LlmSettings | None = None,
    tracer: Any = None,
    **parts: Any,
) -> AsyncIterator[Gateway]:
    """A gateway with both tiers on one server."""
    models = {Tier.FAST: FAST_MODEL[protocol], Tier.STRONG: STRONG_MODEL[protocol]}
    async with open_providers(protocol, base_url, *models.values()) as providers:
        targets = {
            tier: [target(provider, protocol, model)]
            for (tier, model), provider in zip(models.items(), providers, strict=True)
        }
        links = shared(journal, cache=cache, **parts)
        yield gateway_over(targets, settings or LlmSettings(), links, tracer=tracer)
