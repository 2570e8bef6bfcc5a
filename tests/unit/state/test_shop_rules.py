"""The shop's rules, one by one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import EffectRefused
from contracts.events import ShopCommand
from contracts.shop import Order, OrderItem, Payment
from state.shop_rules import change_for, email_key, paid_by_method
from tests.contract.samples import THERE, cancel, customer, give_back, move, order

ADA = customer("ada", "ada@example.com", "#W1")
PENDING = order("#W1", "ada", "pending", "12.30", "0.05")
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
    ("command", "allowed"), [(cancel("k"), "pending"), (move("k"), "pending"), (give_back("k", "i1"), "delivered")]
)
@pytest.mark.parametrize(
    "status", ["pending", "pending (items modifed)", "processed", "delivered", "cancelled", "return requested", ""]
)
def test_the_state_decides(command: ShopCommand, allowed: str, status: str) -> None:
    there = PENDING.model_copy(update={"status": status})
    if status == allowed:
        assert change_for(command, there, ADA).order != there
    else:
        with pytest.raises(EffectRefused, match=allowed):
            change_for(command, there, ADA)


@pytest.mark.parametrize("command", [cancel("k"), move("k"), give_back("k", "i1")])
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
