"""Decides whether a model's text is an answer, and says to the model what is wrong with it."""

import json
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from contracts.models import AnswerT

MAX_ANSWER_BYTES = 256 * 1024
_MAX_COMPLAINTS = 5


class Rejected(ValueError):
    """The text is no answer; the message tells the model why and quotes nothing it said."""


def accept(text: str, answer: type[AnswerT]) -> AnswerT:
    """The answer that the text is. Raises Rejected: empty, too long, malformed or outside the closed set."""
    if not text.strip():
        raise Rejected("the answer is empty")
    if len(text.encode("utf-8", "replace")) > MAX_ANSWER_BYTES:
        raise Rejected(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    try:
        value = answer.model_validate_json(text)
        # JSON has no NaN and no infinity, but pydantic lets them through wherever a number has no bounds.
        _NUMBERS.decode(text)
    except ValidationError as error:
        raise Rejected(_complaint(error)) from None  # pydantic's own text quotes the answer
    return value


def usable(text: str, answer: type[BaseModel]) -> bool:
    """Whether the text is an answer."""
    try:
        accept(text, answer)
    except Rejected:
        return False
    return True


def _complaint(error: ValidationError) -> str:
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, m['loc'])) or 'the answer'}: {m['msg']}" for m in mistakes[:_MAX_COMPLAINTS]]
    return "; ".join(lines)


def _refuse_constant(name: str) -> NoReturn:
    raise Rejected(f"{name} is not a JSON number")


def _finite(digits: str) -> Any:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise Rejected("a number is too large")
    return number


_NUMBERS = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
