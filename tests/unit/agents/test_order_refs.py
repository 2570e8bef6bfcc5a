"""Order references in the shapes people write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.order_refs import order_refs, same_order


@pytest.mark.parametrize(
    "text",
    [
        "where is #W1234567",
        "w1234567 pls",
        "W 1234567",
        "W-1234567",
        "order 1234567",
        "roder #W1234567",
        "purchaes w1234567!",
        "order#w1234567",
        "Bestellung Nr. 1234567",
        "my order number is 1234567",
        "order\u00a0#W１２３４５６７",
    ],
)
def test_the_shops_own_shape_is_recognised_however_it_is_written(text: str) -> None:
    assert order_refs(text) == ("#W1234567",)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("track purchase 732201349959", "732201349959"),
        ("checking ETA of order 00123842", "00123842"),
        ("purchase113542617735902?", "113542617735902"),
        ("order ABC-12345", "ABC-12345"),
        ("order no. 4711", "4711"),
        ("pedido número 4711-22", "4711-22"),
        ("purchase W12345678", "W12345678"),
    ],
)
def test_other_shops_numbers_are_kept_as_written(text: str, reference: str) -> None:
    assert order_refs(text) == (reference,)


@pytest.mark.parametrize(
    "text",
    [
        "refunding 1499 dollars",
        "refunding$160",
        "reimburse 100000 dollars",
        "$1,000,000 for an order",
        "call me at +49 170 1234567",
        "write to emma.silva6593123@example.com",
        "I ordered 500ml, 20 pieces, 2 weeks ago",
        "order from 2023, placed 2023-11-02",
        "my order is 2023-11-02",
        "invoice #85632",
        "check order number",
    ],
)
def test_money_telephones_dates_and_amounts_are_no_references(text: str) -> None:
    assert order_refs(text) == ()


def test_the_form_field_counts_in_any_shape_and_comes_first() -> None:
    assert order_refs("and #W7654321?", " w 1234567 ") == ("#W1234567", "#W7654321")
    assert order_refs("", "1234567") == ("#W1234567",)
    assert order_refs("", "ABC-1") == ("ABC-1",)
    assert order_refs("", "n/a") == ()


def test_each_reference_is_named_once() -> None:
    assert order_refs("order #W1234567, yes w1234567", "1234567") == ("#W1234567",)


def test_references_are_compared_without_case_spaces_and_number_signs() -> None:
    assert same_order("w1234567", "#W1234567")
    assert not same_order("#W1234567", "#W1234568")


@given(st.text(max_size=300), st.none() | st.text(max_size=40))
def test_no_text_breaks_it(text: str, field: str | None) -> None:
    assert all(order_refs(text, field))


@pytest.mark.parametrize("piece", ["order ", "1.,", "+1 ", "#", "a@", "order no # : ", "1-", "www."])
def test_long_texts_take_no_time(piece: str) -> None:
    started = time.perf_counter()
    order_refs(piece * (16_000 // len(piece)))
    assert time.perf_counter() - started < 2
