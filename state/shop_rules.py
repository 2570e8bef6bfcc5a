"""What a command does to the shop's rows, and when these rows forbid it: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import assert_never

from contracts.errors import EffectRefused
from contracts.events import (
    CancelOrder,
    ChangeAddress,
    ChangeDefaultAddress,
    ChangePayment,
    ExchangeItems,
    ModifyItems,
    OrderCommand,
    ReturnItems,
    ShopCommand,
)
from contracts.order_rows import Swap, difference_of, paid_by_method, places_of, price_of, swaps_of
from contracts.shop import Customer, Order, Payment, PaymentMethod, Product
from contracts.values import Money

PENDING, DELIVERED, CANCELLED = "pending", "delivered", "cancelled"
RETURN_REQUESTED, EXCHANGE_REQUESTED = "return requested", "exchange requested"
ITEMS_MODIFIED = "pending (item modified)"
GIFT_CARD = "gift_card"

Products = Mapping[str, Product]
NO_PRODUCTS: Products = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Change:
    """The rows as they are after a command, and the money it moves. `order`: None where it is about none."""

    order: Order | None
    customer: Customer
    amount: Money = Decimal(0)


def change_for(
    command: ShopCommand, order: Order | None, customer: Customer | None, products: Products = NO_PRODUCTS
) -> Change:
    """The change that a customer's command makes to the order of its id, or to the customer's account.

    `products`: those of the order's pieces. Raises EffectRefused, naming the rule: the order is unknown or another
    customer's (the two look the same), its state does not allow the command, or the money is not what was agreed.
    """
    if isinstance(command, ChangeDefaultAddress):
        if customer is None:
            raise EffectRefused("no customer has this account any more")
        return Change(None, customer.model_copy(update={"address": command.address}))
    if order is None or customer is None or order.user_id != customer.user_id:
        raise EffectRefused("the order is not one of this customer's")
    return _change_of_order(command, order, customer, products)


def _change_of_order(command: OrderCommand, order: Order, customer: Customer, products: Products) -> Change:
    match command:
        case CancelOrder():
            return _cancelled(command, order, customer)
        case ReturnItems():
            return _returned(command, order, customer)
        case ExchangeItems():
            return _exchanged(command, order, customer, products)
        case ModifyItems():
            return _modified(command, order, customer, products)
        case ChangePayment():
            return _paid_otherwise(command, order, customer)
        case ChangeAddress():
            _require(order, PENDING, "only a pending order's address can be changed")
            return Change(order.model_copy(update={"address": command.address}), customer)
        case _:
            assert_never(command)


def email_key(email: str) -> str:
    """An e-mail address as it is compared: without regard to case and surrounding space."""
    return email.strip().casefold()


def product_ids_of(order: Order | None) -> list[str]:
    """The products whose rows decide about new variants for the order's pieces."""
    return sorted({item.product_id for item in order.items}) if order else []


def _cancelled(command: CancelOrder, order: Order, customer: Customer) -> Change:
    _require(order, PENDING, "only a pending order can be cancelled")
    paid = paid_by_method(order)
    amount = sum(paid.values(), Decimal(0))
    _require_agreed(command.amount, amount)
    refunds = tuple(_entry("refund", amount, method) for method, amount in paid.items())
    cancelled = order.model_copy(
        update={
            "status": CANCELLED,
            "cancel_reason": command.reason,
            "payment_history": (*order.payment_history, *refunds),
        }
    )
    return Change(cancelled, _with_gift_cards(customer, paid), amount)


def _returned(command: ReturnItems, order: Order, customer: Customer) -> Change:
    _require(order, DELIVERED, "only items of a delivered order can be returned")
    if places_of(order, command.item_ids) is None:
        raise EffectRefused("only items that are in the order can be returned, each as often as it was bought")
    amount = price_of(order, command.item_ids)
    _require_agreed(command.amount, amount)
    method = customer.payment_methods.get(command.payment_method_id)
    if command.payment_method_id not in paid_by_method(order) and not _is_gift_card(method):
        raise EffectRefused("a refund goes to the original payment method or to one of the customer's gift cards")
    asked_back = order.model_copy(
        update={
            "status": RETURN_REQUESTED,
            "return_items": tuple(sorted(command.item_ids)),
            "return_payment_method_id": command.payment_method_id,
        }
    )
    return Change(asked_back, customer, amount)


def _exchanged(command: ExchangeItems, order: Order, customer: Customer, products: Products) -> Change:
    """Noted only: the difference is settled, and the new pieces are sent, when the old ones are back."""
    _require(order, DELIVERED, "only items of a delivered order can be exchanged")
    _, difference = _swapped(command, order, customer, products)
    asked = order.model_copy(
        update={
            "status": EXCHANGE_REQUESTED,
            "exchange_items": tuple(sorted(command.item_ids)),
            "exchange_new_items": tuple(sorted(command.new_item_ids)),
            "exchange_payment_method_id": command.payment_method_id,
            "exchange_price_difference": difference,
        }
    )
    return Change(asked, customer, difference)


def _modified(command: ModifyItems, order: Order, customer: Customer, products: Products) -> Change:
    """The new pieces stand in the order, and the difference is paid or refunded at once."""
    _require(order, PENDING, "only a pending order's items can be modified, and only once")
    swaps, difference = _swapped(command, order, customer, products)
    items = list(order.items)
    for place, piece, variant in swaps:
        new = {"item_id": variant.item_id, "price": variant.price, "options": variant.options}
        items[place] = piece.model_copy(update=new)
    kind = "payment" if difference > 0 else "refund"
    entries = (_entry(kind, abs(difference), command.payment_method_id),) if difference else ()
    modified = order.model_copy(
        update={
            "status": ITEMS_MODIFIED,
            "items": tuple(items),
            "payment_history": (*order.payment_history, *entries),
        }
    )
    return Change(modified, _with_gift_cards(customer, {command.payment_method_id: -difference}), difference)


def _swapped(
    command: ExchangeItems | ModifyItems, order: Order, customer: Customer, products: Products
) -> tuple[tuple[Swap, ...], Money]:
    """The pieces with their new variants, and the price difference, when everything allows them."""
    swaps = swaps_of(order, command.item_ids, command.new_item_ids, products)
    if swaps is None:
        raise EffectRefused("only items of the order change, each for a variant of the same product")
    if not all(swap.variant.available for swap in swaps):
        raise EffectRefused("a new item is not available any more")
    difference = difference_of(swaps)
    _require_agreed(command.difference, difference)
    _require_covered(customer, command.payment_method_id, difference)
    return swaps, difference


def _paid_otherwise(command: ChangePayment, order: Order, customer: Customer) -> Change:
    _require(order, PENDING, "only a pending order's payment can be changed")
    paid = paid_by_method(order)
    if len(order.payment_history) != 1 or len(paid) != 1:
        raise EffectRefused("the payment of an order can be changed once only")
    [(before, amount)] = paid.items()
    if command.payment_method_id == before:
        raise EffectRefused("the new payment method must be another than the original one")
    _require_agreed(command.amount, amount)
    _require_covered(customer, command.payment_method_id, amount)
    entries = (_entry("payment", amount, command.payment_method_id), _entry("refund", amount, before))
    moved = order.model_copy(update={"payment_history": (*order.payment_history, *entries)})
    return Change(moved, _with_gift_cards(customer, {command.payment_method_id: -amount, before: amount}), amount)


def _entry(kind: str, amount: Money, method_id: str) -> Payment:
    return Payment(transaction_type=kind, amount=amount, payment_method_id=method_id)


def _is_gift_card(method: PaymentMethod | None) -> bool:
    return method is not None and method.source == GIFT_CARD


def _with_gift_cards(customer: Customer, gained: Mapping[str, Money]) -> Customer:
    """What gift cards gain or pay is on them at once; money on other methods is the payment provider's to move."""
    methods = {
        key: method.model_copy(update={"balance": (method.balance or Decimal(0)) + gained[key]})
        if key in gained and _is_gift_card(method)
        else method
        for key, method in customer.payment_methods.items()
    }
    return customer.model_copy(update={"payment_methods": methods})


def _require(order: Order, status: str, rule: str) -> None:
    if order.status != status:
        raise EffectRefused(rule)


def _require_agreed(agreed: Money | None, amount: Money) -> None:
    if agreed is not None and agreed != amount:
        raise EffectRefused("the money is not what the customer agreed to")


def _require_covered(customer: Customer, method_id: str, amount: Money) -> None:
    method = customer.payment_methods.get(method_id)
    if method is None:
        raise EffectRefused("the payment method is not one of this customer's")
    if _is_gift_card(method) and (method.balance or Decimal(0)) < amount:
        raise EffectRefused("the gift card does not hold enough")
