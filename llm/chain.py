"""The chain between the gateway and a provider: one type, one concern a link, one list."""

import functools
from collections.abc import Awaitable, Callable

from contracts.models import ModelCall
from contracts.ports import AnswerCache, Journal
from contracts.values import Value
from llm.judge import usable
from llm.provider import Prompt


class Reply(Value):
    """What came back for a prompt; `paid` is the call behind it, None when it came from the cache."""

    text: str
    paid: ModelCall | None = None


Ask = Callable[[Prompt], Awaitable[Reply]]
Link = Callable[[Ask, Prompt], Awaitable[Reply]]


def compose(ask: Ask, *outermost_first: Link) -> Ask:
    """Wrap what asks; the first link named sees the prompt first."""
    for link in reversed(outermost_first):
        ask = functools.partial(link, ask)
    return ask


def recalled(journal: Journal) -> Link:
    """Give again what was paid for while handling the same event, with the calls behind it."""

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        kept = await journal.recall(prompt.call.event_id, prompt.call.step, prompt.digest())
        return Reply.model_validate_json(kept) if kept is not None else await ask_next(prompt)

    return link


def cached(cache: AnswerCache, ttl_s: float) -> Link:
    """Answer a cacheable request from the tenant's cache; a repaired answer is kept for the request it answers."""

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        request, tenant_id = prompt.request, prompt.call.tenant_id
        if not request.cacheable:
            return await ask_next(prompt)
        found = await cache.get(tenant_id, request.digest())
        if found is not None and usable(text := found.decode("utf-8", "replace"), request.answer):
            return Reply(text=text)
        reply = await ask_next(prompt)
        if usable(reply.text, request.answer):
            await cache.put(tenant_id, request.digest(), reply.text.encode(), ttl_s)
        return reply

    return link


def kept(journal: Journal) -> Link:
    """Keep each paid reply as soon as it is there, a malformed one too, so that a crash does not buy it again."""

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        reply = await ask_next(prompt)
        await journal.keep(prompt.call, prompt.digest(), reply.model_dump_json().encode())
        return reply

    return link
