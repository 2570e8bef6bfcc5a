"""Which variant a customer means."""

import pytest

from agents.answers import ItemChange
from agents.variants import new_items
from contracts.shop import Order
from tests.unit.agents.kit import ORDERS, PENDING, PRODUCTS

PRODUCTS_BY_ID = {product.product_id: product for product in PRODUCTS}
ORDER = ORDERS[0]
LAMP, TEAPOT = f"{PENDING}-0", f"{PENDING}-1"


def found(*changes: tuple[str, list[str]], order: Order = ORDER) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return new_items(order, PRODUCTS_BY_ID, [ItemChange(item=item, options=options) for item, options in changes])


@pytest.mark.parametrize("options", [["blue"], ["BLUE "], ["blue", "small"]])
def test_the_variant_with_what_is_wanted_keeps_most_of_what_the_piece_has(options: list[str]) -> None:
    assert found(("Lamp", options)) == ((LAMP,), ("Lamp-blue-small",))


def test_what_changes_twice_is_found_too() -> None:
    assert found((LAMP, ["large"])) == ((LAMP,), ("Lamp-blue-large",))


def test_each_piece_gets_its_own_variant_in_the_order_named() -> None:
    assert found(("teapot", ["large"]), ("lamp", ["blue"])) == (
        (TEAPOT, LAMP),
        ("Teapot-blue-large", "Lamp-blue-small"),
    )


def test_two_equal_pieces_are_told_apart_by_being_named_twice() -> None:
    twice = ORDER.model_copy(update={"items": (ORDER.items[0], ORDER.items[0])})
    assert found(("lamp", ["blue"]), ("lamp", ["large"]), order=twice) == (
        (LAMP, LAMP),
        ("Lamp-blue-small", "Lamp-blue-large"),
    )
    assert found(("lamp", ["blue"]), ("lamp", ["large"])) == ((), ())


@pytest.mark.parametrize("options", [[], ["green"], ["black"], ["blue", "red"]])
def test_what_no_variant_has_leaves_the_piece_without_one(options: list[str]) -> None:
    assert found(("lamp", options)) == ((LAMP,), ())


def test_two_variants_that_keep_as_much_are_no_answer() -> None:
    lamp = ORDER.items[0].model_copy(update={"options": {"color": "white", "size": "tiny"}})
    assert found(("lamp", ["blue"]), order=ORDER.model_copy(update={"items": (lamp,)})) == ((LAMP,), ())


def test_a_piece_that_is_not_in_the_order_changes_nothing() -> None:
    assert found(("lamp", ["blue"]), ("diary", ["blue"])) == ((), ())
