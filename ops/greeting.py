"""Asks each provider, with each of its keys, something that costs nothing."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import SupportError
from contracts.values import Tier
from ops.models import access
from ops.settings import CLASSIFIER, LlmSettings

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Greeting:
    """What became of one key. `error`: why it cannot be used."""

    provider: str
    tail: str  # the last four characters of the key
    error: SupportError | None


async def greetings(settings: LlmSettings) -> Sequence[Greeting]:
    """Greet every provider that a tier asks for, all at once. Raises Misconfigured: a tier has none that can answer."""
    named = {provider for tier in Tier for provider, _ in settings.models_of(tier)} - {CLASSIFIER}
    asked = [
        (provider, key, url) for provider in sorted(named) for keys, url in [access(settings, provider)] for key in keys
    ]
    return await asyncio.gather(*(_greeted(*one) for one in asked))


async def _greeted(provider: str, key: str, url: str | None) -> Greeting:
    error = None
    try:
        await _greet(provider, key, url)
    except SupportError as failed:
        error = failed
    return Greeting(provider, key[-4:], error)


async def _greet(provider: str, key: str, url: str | None) -> None:
    """Imports an SDK, which takes up to two seconds."""
    async with contextlib.AsyncExitStack() as stack:
        if provider == "anthropic":
            from llm import anthropic_provider

            anthropic = await stack.enter_async_context(anthropic_provider.connect(key, url))
            await anthropic_provider.greet(anthropic, _TIMEOUT_S)
        else:
            from llm import openai_provider

            openai = await stack.enter_async_context(openai_provider.connect(key, url))
            await openai_provider.greet(openai, _TIMEOUT_S)
