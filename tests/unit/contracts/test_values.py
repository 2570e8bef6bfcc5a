"""The small value types: what they take, what they turn it into, and what they refuse."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from contracts.errors import (
    ModelAnswerUnusable,
    ModelOverloaded,
    Outage,
    Permanent,
    StoreUnavailable,
    SupportError,
    Transient,
    UnknownSchemaVersion,
    VersionConflict,
)
from contracts.facts import TakenAction
from contracts.shop import ActionKind, Fulfillment, Order
from contracts.values import FreeText, Identifier, Money

IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
FREE_TEXT: TypeAdapter[str] = TypeAdapter(FreeText)


@given(st.text(max_size=200))
def test_free_text_loses_nothing_but_nul(text: str) -> None:
    read = FREE_TEXT.validate_python(text)
    assert "\x00" not in read
    assert read == text.replace("\x00", "\ufffd")
    assert len(read) == len(text)


def test_nul_becomes_the_replacement_character() -> None:
    assert FREE_TEXT.validate_json('"a\\u0000b"') == "a\ufffdb"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=210))
def test_an_identifier_is_short_and_free_of_control_characters(text: str) -> None:
    fits = 1 <= len(text) <= 200 and not any(ord(c) < 32 or ord(c) == 127 for c in text)
    try:
        assert IDENTIFIER.validate_python(text) == text
        assert fits
    except ValidationError:
        assert not fits


@pytest.mark.parametrize("bad", ["", "a\x00", "a\n", "\ta", "a\x7f", "x" * 201, 7, None])
def test_what_is_no_identifier_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        IDENTIFIER.validate_python(bad)


@pytest.mark.parametrize("good", ["a", "t-1", "Bestellung Nr. 5", "#W123", "ü/漢字", "x" * 200])
def test_what_strangers_call_their_tickets_is_an_identifier(good: str) -> None:
    assert IDENTIFIER.validate_python(good) == good


@given(st.decimals(-(10**9), 10**9, places=2))
def test_money_is_exact_in_python_and_a_plain_number_in_json(amount: Decimal) -> None:
    action = TakenAction(kind=ActionKind.CANCEL_PENDING_ORDER, order_id="#1", amount=amount)
    told = json.loads(action.model_dump_json())["amount"]
    assert isinstance(told, float)
    assert action.amount == amount
    assert TypeAdapter(Money).validate_json(json.dumps(told)).quantize(Decimal("0.01")) == amount


def test_values_cannot_be_changed() -> None:
    action = TakenAction(kind=ActionKind.CANCEL_PENDING_ORDER, order_id="#1", amount=Decimal(1))
    with pytest.raises(ValidationError, match="frozen"):
        action.order_id = "#2"  # type: ignore[misc]


def test_tracking_ids_come_in_order_each_once() -> None:
    parcels = (Fulfillment(tracking_id=("2", "1")), Fulfillment(tracking_id=("1", "3")))
    order = Order.model_validate(
        {"order_id": "#1", "user_id": "u", "address": {"address1": "a", "city": "c"}, "items": (), "status": "x"}
    )
    assert order.model_copy(update={"fulfillments": parcels}).tracking_ids == ("2", "1", "3")


def test_the_class_of_an_error_says_what_happens_next() -> None:
    assert issubclass(StoreUnavailable, Outage)
    assert issubclass(Outage, Transient)
    assert issubclass(VersionConflict, Transient)
    assert not issubclass(VersionConflict, Outage)
    assert issubclass(UnknownSchemaVersion, Permanent)
    assert not issubclass(Permanent, Transient)
    assert issubclass(Permanent, SupportError)


def test_an_overloaded_model_says_when_to_come_back() -> None:
    assert ModelOverloaded("busy", retry_after_s=2.5).retry_after_s == 2.5
    assert ModelOverloaded("busy").retry_after_s is None


def test_an_unusable_answer_keeps_what_was_paid_for() -> None:
    assert ModelAnswerUnusable("nonsense", calls=[]).calls == ()
