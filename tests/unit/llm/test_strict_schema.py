"""Answer schemas as strict modes want them."""

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from contracts.errors import ContractBroken
from contracts.values import Identifier, Label, Money, Value
from llm.schema import strict_schema

ALLOWED = {"type", "title", "description", "enum", "anyOf", "items", "properties", "required", "additionalProperties"}


class Citation(Value):
    passage: Identifier
    quote: str | None = Field(default=None, max_length=200)


class Cancel(Value):
    kind: Literal["cancel"]
    order_id: str


class Refund(Value):
    kind: Literal["refund"]
    amount: Money


class Decision(Value):
    """What to do."""

    label: Label = Field(description="what it is about")
    confidence: float = Field(ge=0, le=1)
    action: Cancel | Refund = Field(discriminator="kind")
    citations: tuple[Citation, ...] = ()


def objects_in(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for inner in schema for found in objects_in(inner)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for inner in schema.values() for found in objects_in(inner))]


def test_every_object_is_closed_and_all_its_fields_are_required() -> None:
    objects = [s for s in objects_in(strict_schema(Decision)) if s.get("type") == "object"]
    assert len(objects) == 4
    for schema in objects:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])


def test_only_keywords_that_strict_modes_know_are_left() -> None:
    def keywords(schema: dict[str, Any]) -> set[str]:
        nested = [schema.get("items"), *schema.get("anyOf", []), *schema.get("properties", {}).values()]
        return set(schema).union(*(keywords(inner) for inner in nested if inner is not None))

    assert keywords(strict_schema(Decision)) <= ALLOWED


def test_the_title_stays_and_bounds_are_told_in_words() -> None:
    schema = strict_schema(Decision)
    assert schema["title"] == "Decision"
    assert schema["description"] == "What to do."
    assert schema["properties"]["confidence"]["description"] == "(minimum: 0, maximum: 1)"
    assert schema["properties"]["label"]["description"] == "what it is about"
    assert schema["properties"]["label"]["enum"] == [label.value for label in Label]


def test_a_single_allowed_value_is_a_closed_set_of_one() -> None:
    variants = strict_schema(Decision)["properties"]["action"]["anyOf"]
    assert [variant["properties"]["kind"]["enum"] for variant in variants] == [["cancel"], ["refund"]]


def test_an_answer_that_fills_the_strict_schema_is_valid() -> None:
    filled = {
        "label": "complaint",
        "confidence": 0.5,
        "action": {"kind": "refund", "amount": 2.5},
        "citations": [{"passage": "p1", "quote": None}],
    }
    assert set(filled) == set(strict_schema(Decision)["required"])
    Decision.model_validate_json(json.dumps(filled))


class FreeKeys(BaseModel):
    scores: dict[str, float]


class Anything(BaseModel):
    value: Any


class Tree(BaseModel):
    children: list["Tree"]


@pytest.mark.parametrize("answer", [FreeKeys, Anything, Tree])
def test_an_answer_that_cannot_be_closed_is_refused(answer: type[BaseModel]) -> None:
    with pytest.raises(ContractBroken, match=answer.__name__):
        strict_schema(answer)
