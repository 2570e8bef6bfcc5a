"""What is an answer and what is not."""

import pytest
from pydantic import BaseModel

from llm.judge import MAX_ANSWER_BYTES, Rejected, accept
from tests.unit.llm.kit import Verdict


class Loose(BaseModel):
    number: float
    text: str = ""


def test_a_valid_answer_is_taken() -> None:
    assert accept('{"label": "account", "confidence": 1}', Verdict).confidence == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("sorry", "Invalid JSON"),
        ("```json\n{}\n```", "Invalid JSON"),
        ("[]", "object"),
        ("null", "object"),
        ("{}", "label"),
        ('{"label": "refund_everything", "confidence": 1}', "label"),
        ('{"label": "account", "confidence": 1.5}', "confidence"),
        ('{"label": "account", "confidence": NaN}', "confidence"),
        ('{"label": "account", "confidence": 1, "tool": "issue_refund"}', "tool"),
        ('{"label": ' + "[" * 10_000, "Invalid JSON"),
        ('{"label": "account", "confidence": 1, "note": "\\ud800"}', "Invalid JSON"),
    ],
)
def test_anything_else_is_rejected_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        accept(text, Verdict)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_finite_number_is_rejected_where_the_schema_sets_no_bounds(number: str) -> None:
    with pytest.raises(Rejected):
        accept(f'{{"number": {number}}}', Loose)


def test_length_is_measured_in_bytes() -> None:
    def answer(characters: int) -> str:
        return '{"number": 1, "text": "' + "é" * characters + '"}'

    around = len(answer(0))
    assert accept(answer((MAX_ANSWER_BYTES - around) // 2), Loose)
    with pytest.raises(Rejected, match="longer"):
        accept(answer((MAX_ANSWER_BYTES - around) // 2 + 1), Loose)


def test_the_complaint_quotes_nothing_the_model_said() -> None:
    with pytest.raises(Rejected) as caught:
        accept('{"label": "secret-4711", "confidence": "secret-4711"}', Verdict)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None
