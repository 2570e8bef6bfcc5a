"""The shop's rules, one by one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import EffectRefused
from contracts.events import ShopCommand
from contracts.order_rows import paid_by_method
from contracts.shop import Customer, Order, OrderItem, Payment, PaymentMethod
from state.shop_rules import change_for, email_key
from tests.contract.samples import (
    EXPORT,
    THERE,
    cancel,
    customer,
    exchange,
    give_back,
    modify,
    move,
    move_home,
    order,
    pay_with,
)

ADA = customer("ada", "ada@example.com", "#W1")
PENDING = order("#W1", "ada", "pending", "12.30", "0.05")
PRODUCTS = {product.product_id: product for product in EXPORT.products}
DELIVERED = order("#W2", "ada", "delivered", "5.10", "7.20")


def payment(kind: str, amount: str, method: str) -> Payment:
    return Payment(transaction_type=kind, amount=Decimal(amount), payment_method_id=method)


def with_payments(order: Order, *payments: Payment) -> Order:
    return order.model_copy(update={"payment_history": payments})


def test_cancelling_refunds_each_method_what_it_paid() -> None:
    mixed = with_payments(PENDING, payment("payment", "10.00", "card_1"), payment("payment", "2.35", "gift_1"))
    change = change_for(cancel("k"), mixed, ADA)
    assert change.order.payment_history == (
        *mixed.payment_history,
        payment("refund", "10.00", "card_1"),
        payment("refund", "2.35", "gift_1"),
    )
    assert change.amount == Decimal("12.35")


def test_a_refund_to_a_gift_card_is_on_it_at_once_and_other_methods_stay() -> None:
    mixed = with_payments(PENDING, payment("payment", "10.00", "card_1"), payment("payment", "2.35", "gift_1"))
    refunded = change_for(cancel("k"), mixed, ADA).customer.payment_methods
    assert refunded["gift_1"].balance == Decimal("12.35")
    assert refunded["card_1"] == ADA.payment_methods["card_1"]


def test_what_was_refunded_before_is_not_refunded_again() -> None:
    moved = with_payments(
        PENDING,
        payment("payment", "12.35", "card_1"),
        payment("payment", "12.35", "gift_1"),
        payment("refund", "12.35", "card_1"),
    )
    change = change_for(cancel("k"), moved, ADA)
    assert change.order.payment_history[-1] == payment("refund", "12.35", "gift_1")
    assert change.amount == Decimal("12.35")


def test_an_order_nobody_paid_for_is_cancelled_without_a_refund() -> None:
    change = change_for(cancel("k"), with_payments(PENDING), ADA)
    assert (change.order.status, change.order.payment_history, change.amount) == ("cancelled", (), 0)


def test_a_return_leaves_the_payments_to_the_day_the_items_are_back() -> None:
    change = change_for(give_back("k", "i2", "i1"), DELIVERED, ADA)
    assert change.amount == Decimal("12.30")
    assert change.order.return_items == ("i1", "i2")
    assert change.order.payment_history == DELIVERED.payment_history
    assert change.customer == ADA


def test_an_item_bought_twice_may_come_back_twice_at_both_prices() -> None:
    twice = DELIVERED.model_copy(
        update={
            "items": tuple(
                OrderItem(name="Mug", product_id="p", item_id="mug", price=Decimal(price)) for price in ("3", "4")
            )
        }
    )
    assert change_for(give_back("k", "mug"), twice, ADA).amount == 3
    assert change_for(give_back("k", "mug", "mug"), twice, ADA).amount == 7
    with pytest.raises(EffectRefused, match="as often as it was bought"):
        change_for(give_back("k", "mug", "mug", "mug"), twice, ADA)


def test_a_refund_of_a_return_goes_to_a_gift_card_or_to_what_paid() -> None:
    assert change_for(give_back("k", "i1", method="gift_1"), DELIVERED, ADA).order.return_payment_method_id == "gift_1"
    paid_by_paypal = with_payments(DELIVERED, payment("payment", "12.30", "paypal_9"))
    assert change_for(give_back("k", "i1", method="paypal_9"), paid_by_paypal, ADA).amount == Decimal("5.10")
    for method in ("card_1", "gift_of_another"):
        with pytest.raises(EffectRefused, match="original payment method"):
            change_for(give_back("k", "i1", method=method), paid_by_paypal, ADA)


def test_an_address_change_changes_nothing_else() -> None:
    change = change_for(move("k"), PENDING, ADA)
    assert change.order == PENDING.model_copy(update={"address": THERE})
    assert (change.customer, change.amount) == (ADA, 0)


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (cancel("k"), "pending"),
        (move("k"), "pending"),
        (modify("k", "7.70", "i1", new=["dear"]), "pending"),
        (pay_with("k", "paypal_1"), "pending"),
        (give_back("k", "i1"), "delivered"),
        (exchange("k", "7.70", "i1", new=["dear"]), "delivered"),
    ],
)
@pytest.mark.parametrize(
    "status", ["pending", "pending (item modified)", "processed", "delivered", "cancelled", "return requested", ""]
)
def test_the_state_decides(command: ShopCommand, allowed: str, status: str) -> None:
    there = PENDING.model_copy(update={"status": status})
    if status == allowed:
        assert change_for(command, there, ADA, PRODUCTS).order != there
    else:
        with pytest.raises(EffectRefused, match=allowed):
            change_for(command, there, ADA, PRODUCTS)


@pytest.mark.parametrize(
    ("item_ids", "new", "why"),
    [
        (("i1",), ("dear", "cheap"), "variant of the same product"),
        (("i9",), ("dear",), "variant of the same product"),
        (("i1", "i1"), ("dear", "cheap"), "variant of the same product"),
        (("i2",), ("dear",), "variant of the same product"),  # the dear one is of another product
        (("i1",), ("gone",), "not available"),
    ],
)
def test_pieces_change_only_for_available_variants_of_their_product(
    item_ids: tuple[str, ...], new: tuple[str, ...], why: str
) -> None:
    for command, there in (
        (modify("k", "0", *item_ids, new=new), PENDING),
        (exchange("k", "0", *item_ids, new=new), DELIVERED),
    ):
        with pytest.raises(EffectRefused, match=why):
            change_for(command, there, ADA, PRODUCTS)


def test_two_equal_pieces_are_changed_one_by_one() -> None:
    mug = PENDING.items[0]
    twice = PENDING.model_copy(update={"items": (mug, PENDING.items[1], mug)})
    one = change_for(modify("k", "7.70", "i1", new=["dear"]), twice, ADA, PRODUCTS)
    both = change_for(modify("k", "-0.60", "i1", "i1", new=["dear", "cheap"]), twice, ADA, PRODUCTS)
    assert one.order is not None
    assert both.order is not None
    assert [item.item_id for item in one.order.items] == ["dear", "i2", "i1"]
    assert [item.item_id for item in both.order.items] == ["dear", "i2", "cheap"]


def test_one_new_item_that_is_not_available_stops_the_others_too() -> None:
    twice = PENDING.model_copy(update={"items": (PENDING.items[0], PENDING.items[0])})
    with pytest.raises(EffectRefused, match="not available"):
        change_for(modify("k", "7.70", "i1", "i1", new=["dear", "gone"]), twice, ADA, PRODUCTS)


def test_a_payment_is_changed_once_and_not_back() -> None:
    moved = change_for(pay_with("k", "paypal_1"), PENDING, ADA).order
    assert moved is not None
    assert list(paid_by_method(moved)) == ["paypal_1"]
    with pytest.raises(EffectRefused, match="once only"):
        change_for(pay_with("k", "card_1"), moved, ADA)


def test_a_price_that_is_not_what_was_agreed_changes_nothing() -> None:
    agreed_less = {"amount": Decimal("12.36")}
    for command, there in (
        (modify("k", "7.69", "i1", new=["dear"]), PENDING),
        (exchange("k", "14.91", "i1", new=["dear"]), DELIVERED),
        (pay_with("k", "paypal_1", "12.34"), PENDING),
        (cancel("k").model_copy(update=agreed_less), PENDING),
        (give_back("k", "i1").model_copy(update=agreed_less), DELIVERED),
    ):
        with pytest.raises(EffectRefused, match="agreed"):
            change_for(command, there, ADA, PRODUCTS)


def test_a_gift_card_pays_what_it_holds_to_the_cent_and_no_more() -> None:
    def with_gift(balance: str) -> Customer:
        card = PaymentMethod(id="gift_1", source="gift_card", balance=Decimal(balance))
        return ADA.model_copy(update={"payment_methods": {**ADA.payment_methods, "gift_1": card}})

    for command, there, needed, left in (
        (modify("k", "7.70", "i1", new=["dear"], method="gift_1"), PENDING, "7.70", "0.00"),
        (exchange("k", "14.90", "i1", new=["dear"], method="gift_1"), DELIVERED, "14.90", "14.90"),
        (pay_with("k", "gift_1"), PENDING, "12.35", "0.00"),
    ):
        change = change_for(command, there, with_gift(needed), PRODUCTS)
        assert change.customer.payment_methods["gift_1"].balance == Decimal(left)
        with pytest.raises(EffectRefused, match="does not hold enough"):
            change_for(command, there, with_gift(str(Decimal(needed) - Decimal("0.01"))), PRODUCTS)


def test_only_the_customers_own_other_method_pays_an_order() -> None:
    with pytest.raises(EffectRefused, match="another than the original"):
        change_for(pay_with("k", "card_1"), PENDING, ADA)
    for command, there in (
        (pay_with("k", "gift_of_another"), PENDING),
        (modify("k", "7.70", "i1", new=["dear"], method="gift_of_another"), PENDING),
        (exchange("k", "14.90", "i1", new=["dear"], method="gift_of_another"), DELIVERED),
    ):
        with pytest.raises(EffectRefused, match="this customer's"):
            change_for(command, there, ADA, PRODUCTS)


def test_money_paid_with_a_gift_card_is_back_on_it_when_another_method_pays() -> None:
    by_gift = with_payments(PENDING, payment("payment", "12.35", "gift_1"))
    change = change_for(pay_with("k", "card_1"), by_gift, ADA)
    assert change.customer.payment_methods["gift_1"].balance == Decimal("22.35")


def test_a_variant_of_the_same_price_leaves_no_payment() -> None:
    change = change_for(modify("k", "0", "i1", new=["i1"]), PENDING, ADA, PRODUCTS)
    assert change.order is not None
    assert change.order.payment_history == PENDING.payment_history


def test_an_account_gets_its_new_address_and_no_order_is_touched() -> None:
    change = change_for(move_home("k"), None, ADA)
    assert (change.order, change.customer.address) == (None, THERE)


@pytest.mark.parametrize(
    "command",
    [
        cancel("k"),
        move("k"),
        give_back("k", "i1"),
        modify("k", "7.70", "i1", new=["dear"]),
        exchange("k", "7.70", "i1", new=["dear"]),
        pay_with("k", "paypal_1"),
    ],
)
def test_anothers_an_unknown_and_an_unowned_order_are_refused_alike(command: ShopCommand) -> None:
    refusals = []
    for order_, who in ((PENDING.model_copy(update={"user_id": "bo"}), ADA), (None, ADA), (PENDING, None)):
        with pytest.raises(EffectRefused) as caught:
            change_for(command, order_, who)
        refusals.append(str(caught.value))
    assert set(refusals) == {"the order is not one of this customer's"}


amounts = st.decimals("0.01", "9999.99", places=2)


@given(st.lists(st.tuples(st.sampled_from(["payment", "refund"]), amounts, st.sampled_from("abc")), max_size=8))
def test_after_a_cancellation_nothing_is_left_to_refund(entries: list[tuple[str, Decimal, str]]) -> None:
    paid = with_payments(PENDING, *(payment(kind, str(amount), method) for kind, amount, method in entries))
    change = change_for(cancel("k"), paid, ADA)
    assert paid_by_method(change.order) == {}
    assert change.amount == sum(paid_by_method(paid).values())


def test_addresses_are_compared_without_case_and_outer_space() -> None:
    assert email_key(" Ada@EXAMPLE.com\n") == email_key("ada@example.COM")
    assert email_key("ada@example.com") != email_key("ad a@example.com")
