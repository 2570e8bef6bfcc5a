"""What a command does to an order, and when the shop's own rows forbid it: pure functions."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import assert_never

from contracts.errors import EffectRefused
from contracts.events import CancelOrder, ChangeAddress, ReturnItems, ShopCommand
from contracts.shop import Customer, Order, OrderItem, Payment
from contracts.values import Money

PENDING, DELIVERED, CANCELLED, RETURN_REQUESTED = "pending", "delivered", "cancelled", "return requested"
GIFT_CARD = "gift_card"


@dataclass(frozen=True, slots=True)
class Change:
    """The rows as they are after a command, and the money it moves."""

    order: Order
    customer: Customer
    amount: Money = Decimal(0)


def change_for(command: ShopCommand, order: Order | None, customer: Customer | None) -> Change:
    """The change that a customer's command makes to the order of its id.

    Raises EffectRefused, naming the rule: the order is unknown or another customer's (the two look the same),
    or its state does not allow the command.
    """
    if order is None or customer is None or order.user_id != customer.user_id:
        raise EffectRefused("the order is not one of this customer's")
    match command:
        case CancelOrder():
            return _cancelled(command, order, customer)
        case ReturnItems():
            return _returned(command, order, customer)
        case ChangeAddress():
            _require(order, PENDING, "only a pending order's address can be changed")
            return Change(order.model_copy(update={"address": command.address}), customer)
        case _:
            assert_never(command)


def email_key(email: str) -> str:
    """An e-mail address as it is compared: without regard to case and surrounding space."""
    return email.strip().casefold()


def paid_by_method(order: Order) -> dict[str, Money]:
    """What was paid and not refunded yet, per payment method, in the order the methods were used."""
    sums: dict[str, Money] = {}
    for entry in order.payment_history:
        sign = {"payment": 1, "refund": -1}.get(entry.transaction_type, 0)
        sums[entry.payment_method_id] = sums.get(entry.payment_method_id, Decimal(0)) + sign * entry.amount
    return {method: paid for method, paid in sums.items() if paid > 0}


def _cancelled(command: CancelOrder, order: Order, customer: Customer) -> Change:
    _require(order, PENDING, "only a pending order can be cancelled")
    paid = paid_by_method(order)
    refunds = tuple(
        Payment(transaction_type="refund", amount=amount, payment_method_id=method) for method, amount in paid.items()
    )
    cancelled = order.model_copy(
        update={
            "status": CANCELLED,
            "cancel_reason": command.reason,
            "payment_history": (*order.payment_history, *refunds),
        }
    )
    return Change(cancelled, _with_gift_cards_refilled(customer, paid), sum(paid.values(), Decimal(0)))


def _returned(command: ReturnItems, order: Order, customer: Customer) -> Change:
    _require(order, DELIVERED, "only items of a delivered order can be returned")
    items = _pieces(command.item_ids, order)
    method = customer.payment_methods.get(command.payment_method_id)
    is_gift_card = method is not None and method.source == GIFT_CARD
    if command.payment_method_id not in paid_by_method(order) and not is_gift_card:
        raise EffectRefused("a refund goes to the original payment method or to one of the customer's gift cards")
    asked_back = order.model_copy(
        update={
            "status": RETURN_REQUESTED,
            "return_items": tuple(sorted(command.item_ids)),
            "return_payment_method_id": command.payment_method_id,
        }
    )
    return Change(asked_back, customer, sum((item.price for item in items), Decimal(0)))


def _pieces(item_ids: tuple[str, ...], order: Order) -> list[OrderItem]:
    """The order's pieces of these ids, one for each time an id is named."""
    wanted = Counter(item_ids)
    pieces = []
    for item in order.items:
        if wanted[item.item_id] > 0:
            wanted[item.item_id] -= 1
            pieces.append(item)
    if len(pieces) < len(item_ids):
        raise EffectRefused("only items that are in the order can be returned, each as often as it was bought")
    return pieces


def _with_gift_cards_refilled(customer: Customer, refunds: dict[str, Money]) -> Customer:
    """Refunds to a gift card are there at once; those to other methods are the payment provider's to make."""
    methods = {
        key: method.model_copy(update={"balance": (method.balance or Decimal(0)) + refunds[key]})
        if key in refunds and method.source == GIFT_CARD
        else method
        for key, method in customer.payment_methods.items()
    }
    return customer.model_copy(update={"payment_methods": methods})


def _require(order: Order, status: str, rule: str) -> None:
    if order.status != status:
        raise EffectRefused(rule)
