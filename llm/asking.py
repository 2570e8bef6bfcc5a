"""Asks until the answer is usable, at most twice: the one repair shows the model its mistake."""

from dataclasses import replace
from datetime import UTC, datetime

from contracts.errors import ModelAnswerUnusable, ModelRefused
from contracts.models import AnswerT, CallContext, ModelAnswer, ModelCall, ModelRequest
from llm.chain import Ask, Reply
from llm.judge import Rejected, accept
from llm.provider import Prompt, Repair

_MIN_TIMEOUT_S = 1.0
_MAX_SHOWN_CHARS = 2_000  # of a bad answer: enough to see the mistake, and a cheap repair


async def ask_and_repair(
    ask: Ask, request: ModelRequest[AnswerT], call: CallContext, *, default_timeout_s: float
) -> ModelAnswer[AnswerT]:
    """A valid answer with every paid call behind it.

    Raises ModelAnswerUnusable, with those calls: the repair was no better, or was refused.
    """
    first = await ask(Prompt(request, call, _timeout_s(call, default_timeout_s)))
    try:
        return ModelAnswer(accept(first.text, request.answer), _paid(first))
    except Rejected as rejected:
        repair = Repair(first.text[:_MAX_SHOWN_CHARS], str(rejected))
    try:
        second = await ask(Prompt(request, call, _timeout_s(call, default_timeout_s), repair))
        return ModelAnswer(accept(second.text, request.answer), _paid(first, second))
    except Rejected as error:
        raise ModelAnswerUnusable(_UNUSABLE, calls=_paid(first, second)) from error
    except ModelRefused as error:
        raise ModelAnswerUnusable(_UNUSABLE, calls=_paid(first)) from error


_UNUSABLE = "the model's answer is unusable, also after one repair"


def seconds_left(prompt: Prompt) -> Prompt:
    """The prompt with a time-out that the deadline still allows: it may have waited since it was made."""
    left_s = _timeout_s(prompt.call, prompt.timeout_s)
    return prompt if left_s == prompt.timeout_s else replace(prompt, timeout_s=left_s)


def _paid(*replies: Reply) -> tuple[ModelCall, ...]:
    return tuple(reply.paid for reply in replies if reply.paid is not None)


def _timeout_s(call: CallContext, default_s: float) -> float:
    """What is left until the deadline, but no less than a second and no more than the default."""
    if call.deadline is None:
        return default_s
    left_s = (call.deadline - datetime.now(UTC)).total_seconds()
    return min(default_s, max(_MIN_TIMEOUT_S, left_s))
