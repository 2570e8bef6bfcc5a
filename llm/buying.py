"""The end of the chain: asks the provider, once, and writes down what became of it before anybody hears."""

import asyncio
import logging
import random
import time
from decimal import Decimal

from opentelemetry import trace

from contracts.errors import (
    ModelOverloaded,
    ModelRefused,
    ModelUnavailable,
    Outage,
    UsageUnknown,
)
from contracts.model_ports import Entry, ModelCalls
from contracts.models import ModelCall
from llm.asking import seconds_left
from llm.chain import Ask, Reply
from llm.judge import MAX_ANSWER_BYTES, usable
from llm.metrics import Metrics
from llm.prices import Prices
from llm.provider import Completion, Prompt
from llm.tracing import chat_span, tell_usage

_log = logging.getLogger(__name__)
_PATIENCE_S = 60.0  # for the book to come back, with an answer in hand that was paid for


def bought(book: ModelCalls, prices: Prices, metrics: Metrics, tracer: trace.Tracer) -> Ask:
    """Ask the attempt's target with its key. The row, the event and the journal's entry are written in one go.

    Raises what the provider raises. A call that may have been paid for and does not say what it used (cut off, out
    of time, cancelled) is charged what was held for it, and marked as estimated.
    """

    async def ask(prompt: Prompt) -> Reply:
        attempt, started_s = prompt.at, time.monotonic()
        target = attempt.target
        reply = None
        try:
            with chat_span(tracer, target.provider_name, target.model, prompt) as span:
                completion = await target.keys[attempt.key].provider.complete(seconds_left(prompt))
                tell_usage(span, completion)
            made = _answered(prompt, completion, prices, time.monotonic() - started_s)
            attempt.left, attempt.limit = completion.left, completion.limit
            # What is too long to be used is kept just long enough to be refused again.
            reply = Reply(text=completion.text[: MAX_ANSWER_BYTES + 1], paid=made)
        except BaseException as error:
            made = _failed(prompt, error, time.monotonic() - started_s)
            raise
        finally:
            attempt.made = made
            metrics.called(prompt, made)
            entry = Entry(prompt.digest(), reply.model_dump_json().encode()) if reply else None
            await _written(book, prompt, made, entry)
        return reply

    return ask


async def _written(book: ModelCalls, prompt: Prompt, made: ModelCall, entry: Entry | None) -> None:
    """Write a call down, however often that takes: what is in hand was paid for.

    Raises Outage: the book was away for too long.
    """
    give_up_at, tries = time.monotonic() + _PATIENCE_S, 0
    while True:
        try:
            await book.finish(prompt.at.call, made, entry)
            return
        except Outage:
            tries += 1
            if time.monotonic() > give_up_at:
                raise
            if tries == 1:
                _log.warning("a model call waits to be written down: the book is away")
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.1 * 2**tries))


def _answered(prompt: Prompt, completion: Completion, prices: Prices, latency_s: float) -> ModelCall:
    target, hold = prompt.at.target, prompt.at.hold
    known = completion.usage_known
    return ModelCall(
        call_id=completion.call_id,
        step=prompt.call.step,
        tier=prompt.request.tier,
        provider=target.provider_name,
        model=completion.model,
        input_tokens=completion.input_tokens if known else hold.tokens - prompt.request.max_output_tokens,
        output_tokens=completion.output_tokens if known else prompt.request.max_output_tokens,
        cache_read_tokens=completion.cache_read_tokens,
        cache_write_tokens=completion.cache_write_tokens,
        cost_usd=prices.cost_usd(target.provider_name, target.model, completion) if known else hold.usd,
        latency_s=round(latency_s, 6),
        outcome="ok" if usable(completion.text, prompt.request.answer) else "malformed",
        estimated=not known,
    )


def _failed(prompt: Prompt, error: BaseException, latency_s: float) -> ModelCall:
    attempt = prompt.at
    unknown = isinstance(error, UsageUnknown | asyncio.CancelledError)
    return ModelCall(
        call_id=attempt.call.id,
        step=prompt.call.step,
        tier=prompt.request.tier,
        provider=attempt.target.provider_name,
        model=attempt.target.model,
        input_tokens=attempt.hold.tokens - prompt.request.max_output_tokens if unknown else 0,
        output_tokens=prompt.request.max_output_tokens if unknown else 0,
        cost_usd=attempt.hold.usd if unknown else Decimal(0),
        latency_s=round(latency_s, 6),
        outcome=_outcome(error),
        estimated=unknown,
    )


def _outcome(error: BaseException) -> str:
    match error:
        case ModelOverloaded():
            return "overloaded"
        case ModelUnavailable():
            return "unavailable"
        case ModelRefused():
            return "refused"
        case asyncio.CancelledError():
            return "cancelled"
    return "failed"
