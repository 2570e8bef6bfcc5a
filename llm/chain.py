"""The chain between the gateway and the providers: one type, one concern a link, one list."""

import functools
from collections.abc import Awaitable, Callable

from contracts.models import ModelCall
from contracts.ports import Journal
from contracts.values import Value
from llm.provider import Prompt


class Reply(Value):
    """What came back for a prompt; `paid` is the call behind it, None when nothing was paid for this."""

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
