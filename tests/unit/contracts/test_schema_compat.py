"""The rules by which a change of a schema is refused or let through, one test each."""

from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ops.schema_compat import breaks


def event(required: tuple[str, ...] = (), /, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


TEXT = {"type": "string"}
NUMBER = {"type": "number"}
WHOLE = {"type": "integer"}

REFUSED = {
    "a removed field": (event(a=TEXT, b=TEXT), event(a=TEXT), ["`b` is gone or renamed"]),
    "a renamed field": (event(a=TEXT), event(b=TEXT), ["`a` is gone or renamed"]),
    "a new required field": (event(), event(("a",), a=TEXT), ["`a` is newly required"]),
    "an optional field made required": (event(a=TEXT), event(("a",), a=TEXT), ["`a` is newly required"]),
    "a required field made optional": (event(("a",), a=TEXT), event(a=TEXT), ["`a` is no longer always there"]),
    "another type": (event(a=TEXT), event(a=WHOLE), ["`a` may no longer be string"]),
    "a number made whole": (event(a=NUMBER), event(a=WHOLE), ["`a` may no longer be number"]),
    "anything made text": (event(a={}), event(a=TEXT), ["`a` may no longer be of any type"]),
    "null taken away": (
        event(a={"anyOf": [TEXT, {"type": "null"}]}),
        event(a=TEXT),
        ["`a` may no longer be null"],
    ),
    "a value taken from a closed set": (
        event(a={"type": "string", "enum": ["x", "y"]}),
        event(a={"type": "string", "enum": ["x"]}),
        ["`a` may no longer be 'y'"],
    ),
    "free text made a closed set": (
        event(a=TEXT),
        event(a={"type": "string", "enum": ["x"]}),
        ["`a` may now be only 'x'"],
    ),
    "another constant": (event(a={"const": "x"}), event(a={"const": "y"}), ["`a` may no longer be 'x'"]),
    "a higher lower bound": (
        event(a=WHOLE | {"minimum": 0}),
        event(a=WHOLE | {"minimum": 1}),
        ["`a` has a tighter minimum"],
    ),
    "a new lower bound": (event(a=TEXT), event(a=TEXT | {"minLength": 1}), ["`a` has a tighter minLength"]),
    "a lower upper bound": (
        event(a=TEXT | {"maxLength": 9}),
        event(a=TEXT | {"maxLength": 8}),
        ["`a` has a tighter maxLength"],
    ),
    "another pattern": (
        event(a=TEXT | {"pattern": "^a"}),
        event(a=TEXT | {"pattern": "^b"}),
        ["`a` has another pattern"],
    ),
    "a new format": (event(a=TEXT), event(a=TEXT | {"format": "date-time"}), ["`a` has another format"]),
    "another default": (
        event(a=TEXT | {"default": "x"}),
        event(a=TEXT | {"default": "y"}),
        ["`a` means something else when it is absent"],
    ),
    "narrower items": (
        event(a={"type": "array", "items": NUMBER}),
        event(a={"type": "array", "items": WHOLE}),
        ["each of `a` may no longer be number"],
    ),
    "items that were anything": (
        event(a={"type": "array"}),
        event(a={"type": "array", "items": TEXT}),
        ["each of `a` may no longer be of any type"],
    ),
    "narrower values of a map": (
        event(a={"type": "object", "additionalProperties": NUMBER}),
        event(a={"type": "object", "additionalProperties": TEXT}),
        ["each value of `a` may no longer be integer or number"],
    ),
    "a closed object": (
        event(a=TEXT),
        event(a=TEXT) | {"additionalProperties": False},
        ["the event may no longer hold more than what is named"],
    ),
    "a keyword that is not judged": (
        event(a={"type": "array"}),
        event(a={"type": "array", "prefixItems": [TEXT]}),
        ["`a` has another `prefixItems`, which this check cannot judge"],
    ),
    "a form taken from a union": (
        event(a={"anyOf": [TEXT, WHOLE, {"type": "null"}]}),
        event(a={"anyOf": [TEXT, {"type": "null"}]}),
        ["`a` may no longer be integer"],
    ),
}
WELCOME = {
    "nothing": (event(("a",), a=TEXT), event(("a",), a=TEXT)),
    "a new optional field": (event(a=TEXT), event(a=TEXT, b=WHOLE)),
    "a wider number": (event(a=WHOLE), event(a=NUMBER)),
    "null allowed": (event(a=TEXT), event(a={"anyOf": [TEXT, {"type": "null"}]})),
    "a further value of a closed set": (
        event(a={"type": "string", "enum": ["x"]}),
        event(a={"type": "string", "enum": ["x", "y"]}),
    ),
    "a closed set opened": (event(a={"type": "string", "enum": ["x"]}), event(a=TEXT)),
    "a lower lower bound": (event(a=WHOLE | {"minimum": 1}), event(a=WHOLE | {"minimum": 0})),
    "a bound dropped": (event(a=TEXT | {"maxLength": 9}), event(a=TEXT)),
    "another description and title": (
        event(a=TEXT | {"description": "old", "title": "A"}),
        event(a=TEXT | {"description": "new", "title": "An a"}),
    ),
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_would_break_a_reader_is_named(change: str) -> None:
    old, new, complaints = REFUSED[change]
    assert breaks(old, new) == complaints


@pytest.mark.parametrize("change", WELCOME)
def test_what_breaks_nobody_passes(change: str) -> None:
    old, new = WELCOME[change]
    assert breaks(old, new) == []


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    colour: Colour = Colour.RED
    parts: "list[Part]" = Field(default_factory=list)
    inside: "Part | None" = None


def part_schema(**changed: Any) -> dict[str, Any]:
    schema: dict[str, Any] = Part.model_json_schema(mode="serialization")
    schema["$defs"]["Part"]["properties"].update(changed)
    return schema


def test_a_type_that_holds_itself_is_compared_once() -> None:
    assert breaks(part_schema(), part_schema()) == []


def test_a_change_deep_inside_a_shared_type_is_found() -> None:
    assert breaks(part_schema(), part_schema(name={"type": "integer"})) == ["`name` may no longer be string"]


def test_a_change_inside_one_form_of_a_union_is_told_where_it_is() -> None:
    class Holder(BaseModel):
        part: Part | None = None

    old, new = Holder.model_json_schema(), Holder.model_json_schema()
    del new["$defs"]["Part"]["properties"]["colour"]
    assert breaks(old, new) == ["`colour` of `part` is gone or renamed"]


FIELDS = st.sampled_from([TEXT, NUMBER, WHOLE, {"type": "array", "items": TEXT}, event(("x",), x=TEXT)])
NAMES = st.sampled_from("abcdefgh")


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    fields = draw(st.dictionaries(NAMES, FIELDS))
    return event(tuple(sorted(draw(st.sets(st.sampled_from(sorted(fields)))) if fields else ())), **fields)


@given(events())
def test_a_schema_is_compatible_with_itself(schema: dict[str, Any]) -> None:
    assert breaks(schema, schema) == []


@given(events(), FIELDS)
def test_an_optional_field_may_always_be_added_and_never_be_taken_away(
    schema: dict[str, Any], addition: dict[str, Any]
) -> None:
    longer = schema | {"properties": schema["properties"] | {"new": addition}}
    assert breaks(schema, longer) == []
    assert breaks(longer, schema) == ["`new` is gone or renamed"]
