"""The shop as the agents see it: customers, orders, products and the policy in force.

The shapes fit the retail export format (`orders.jsonl`, `users.jsonl`, `products.jsonl`, `policy.md`), so that
a real shop's export can be loaded as it is. Unknown fields of an export are ignored by the loader.
"""

import hashlib
from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from contracts.values import Money, Value


class ActionKind(StrEnum):
    """The policy's vocabulary of actions: on an order, and on the customer's own account."""

    CANCEL_PENDING_ORDER = "cancel_pending_order"
    MODIFY_PENDING_ORDER_ITEMS = "modify_pending_order_items"
    MODIFY_PENDING_ORDER_ADDRESS = "modify_pending_order_address"
    MODIFY_PENDING_ORDER_PAYMENT = "modify_pending_order_payment"
    RETURN_DELIVERED_ORDER_ITEMS = "return_delivered_order_items"
    EXCHANGE_DELIVERED_ORDER_ITEMS = "exchange_delivered_order_items"
    MODIFY_USER_ADDRESS = "modify_user_address"  # the default address; about no order


class Address(Value):
    """A postal address."""

    address1: str
    address2: str = ""
    city: str
    state: str = ""
    country: str = ""
    zip: str = ""


class OrderItem(Value):
    """One ordered piece; the same product may stand in an order twice."""

    name: str
    product_id: str
    item_id: str
    price: Money
    options: dict[str, str] = Field(default_factory=dict)


class Fulfillment(Value):
    """A parcel: its tracking ids and the items in it."""

    tracking_id: tuple[str, ...] = ()
    item_ids: tuple[str, ...] = ()


class Payment(Value):
    """One entry of an order's payment history."""

    transaction_type: str  # payment | refund
    amount: Money
    payment_method_id: str


class Order(Value):
    """An order and its present status, e.g. pending, processed, delivered, cancelled, return requested."""

    order_id: str
    user_id: str
    address: Address
    items: tuple[OrderItem, ...]
    status: str
    fulfillments: tuple[Fulfillment, ...] = ()
    payment_history: tuple[Payment, ...] = ()
    cancel_reason: str | None = None
    return_items: tuple[str, ...] = ()  # item ids a return was asked for
    return_payment_method_id: str | None = None
    exchange_items: tuple[str, ...] = ()  # item ids an exchange was asked for
    exchange_new_items: tuple[str, ...] = ()
    exchange_payment_method_id: str | None = None
    exchange_price_difference: Money | None = None  # above 0: the customer pays it

    @property
    def tracking_ids(self) -> tuple[str, ...]:
        """Every parcel's tracking ids, in order, each once."""
        return tuple(dict.fromkeys(t for parcel in self.fulfillments for t in parcel.tracking_id))


class PaymentMethod(Value):
    """How a customer can pay: source is gift_card, paypal or credit_card."""

    id: str
    source: str
    brand: str | None = None
    last_four: str | None = None
    balance: Money | None = None  # gift cards only


class PersonName(Value):
    """A customer's name."""

    first_name: str = ""
    last_name: str = ""


class Customer(Value):
    """A customer of the shop; the e-mail address identifies who writes."""

    user_id: str
    email: str
    name: PersonName = PersonName()
    address: Address | None = None
    payment_methods: dict[str, PaymentMethod] = Field(default_factory=dict)
    orders: tuple[str, ...] = ()


class Variant(Value):
    """A buyable variant of a product."""

    item_id: str
    options: dict[str, str] = Field(default_factory=dict)
    available: bool = True
    price: Money


class Product(Value):
    """A product type and its variants by item id."""

    product_id: str
    name: str
    variants: dict[str, Variant] = Field(default_factory=dict)


class Passage(Value):
    """One citable piece of the policy in force. `id` is stable while the text is unchanged."""

    id: str
    heading: str
    text: str


def version_of(policy: Iterable[Passage]) -> str:
    """SHA-256 over the passages' ids in order; an id tells its passage's heading and text."""
    return hashlib.sha256("\n".join(passage.id for passage in policy).encode()).hexdigest()
