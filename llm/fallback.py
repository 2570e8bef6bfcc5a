"""The fallback link: the tier's models in their order, the next one when one cannot answer."""

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from contracts.errors import (
    ModelKeyRefused,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefused,
    ModelsAway,
    ModelUnavailable,
    SupportError,
)
from contracts.model_ports import Hold, ProviderCall
from llm.asking import seconds_left
from llm.breaking import OpenTargets
from llm.chain import Ask, Link, Reply
from llm.prices import Prices
from llm.provider import Attempt, Prompt, Target

_log = logging.getLogger(__name__)
_PATIENCE = 4  # more tries at the last target, when its keys have had enough
_LEASE_BESIDES_S = 30.0  # how much longer than its call a hold lives


def falling_back(prices: Prices, open_targets: OpenTargets) -> Link:
    """Ask the targets in turn. Each try is an attempt of its own, with its own row in the book.

    A key that has had enough or is refused leaves the same target its others; the last target is asked again once a
    key has room. Time is shared out, so that the last target has its part. Raises what is most worth waiting for, when
    none can answer.
    """

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        errors: list[SupportError] = []
        for place, target in enumerate(prompt.targets):
            if wait_s := open_targets.wait_s(target):
                errors.append(ModelsAway(f"{target.name} is left alone", retry_after_s=wait_s))
                continue
            others_left = len(prompt.targets) - place - 1
            shared = _share(prompt, others_left + 1)
            give_up_at = time.monotonic() + shared.timeout_s
            for _ in range(len(target.keys) + (0 if others_left else _PATIENCE)):
                try:
                    return await ask_next(shared.trying(attempt_at(target, shared, prices)))
                except (ModelRateLimited, ModelKeyRefused) as error:
                    errors.append(error)
                    if time.monotonic() > give_up_at:
                        break
                except (ModelOverloaded, ModelUnavailable, ModelRefused, ModelsAway) as error:
                    errors.append(error)
                    break
            _log.info("%s cannot answer: %s", target.name, type(errors[-1]).__name__)
        raise _worth_waiting_for(errors)

    return link


def attempt_at(target: Target, prompt: Prompt, prices: Prices) -> Attempt:
    """A try at a target, with what is held for it: the input as counted, at its dearest, and all of the output."""
    call = ProviderCall(
        id=uuid.uuid4().hex,
        context=prompt.call,
        tier=prompt.request.tier,
        provider=target.provider_name,
        model=target.model,
        day=datetime.now(UTC).date(),
    )
    input_tokens, output_tokens = prompt.input_tokens(), prompt.request.max_output_tokens
    usd = prices.most_usd(target.provider_name, target.model, input_tokens, output_tokens)
    tokens = input_tokens + output_tokens if usd else 0  # what is free uses up no budget
    return Attempt(call, target, Hold(usd, tokens, prompt.timeout_s + _LEASE_BESIDES_S))


def _share(prompt: Prompt, targets_left: int) -> Prompt:
    """The prompt with its part of the time that is left, where that is short."""
    timeout_s = seconds_left(prompt).timeout_s
    return replace(prompt, timeout_s=timeout_s / targets_left) if timeout_s < prompt.timeout_s else prompt


def _worth_waiting_for(errors: Sequence[SupportError]) -> SupportError:
    """An outage that ends soonest, before what may get better, before what will not."""
    for kind in (ModelsAway, ModelOverloaded, ModelUnavailable, ModelKeyRefused):
        found = [error for error in errors if isinstance(error, kind)]
        if kind is ModelKeyRefused and found:
            return ModelsAway(f"no key is accepted: {found[-1]}")
        if found:
            return min(found, key=lambda error: getattr(error, "retry_after_s", None) or 0.0)
    return errors[-1]
