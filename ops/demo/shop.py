"""The demo shop: customers, products and orders of our own invention, the same for the same seed."""

import random
from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib import resources

from contracts.shop import (
    Address,
    Customer,
    Fulfillment,
    Order,
    OrderItem,
    Payment,
    PaymentMethod,
    PersonName,
    Product,
    Variant,
)
from state.shop_files import ShopExport

CUSTOMERS = 300
ORDERS = 420
_FIRST_ORDER = 3_100_000
_STATUSES = ("pending",) * 8 + ("processed",) * 3 + ("delivered",) * 8 + ("cancelled",) * 2

_FIRST_NAMES = "Ada Bela Cato Dora Edda Falk Gesa Hugo Iris Jonas Kaja Lotte Milo Nora Ole Pia Quint Runa Sven Tilda"
_LAST_NAMES = "Ashdown Birkett Crowe Dunmore Elling Farrow Gately Hollin Ivers Jessop Kettle Larkin Marlow Norrby Orme"
_STREETS = ("Alder Way", "Bramble Row", "Cooper Street", "Dovecote Lane", "Elm Rise", "Ferry Road", "Gable Court")
_CITIES = (("Portland", "OR", "97201"), ("Madison", "WI", "53703"), ("Ithaca", "NY", "14850"), ("Boise", "ID", "83702"))
_PRODUCTS: tuple[tuple[str, str, Sequence[str], str], ...] = (
    ("Watering Can", "color", ("moss", "slate", "copper"), "34.50"),
    ("Wool Blanket", "size", ("single", "double"), "89.00"),
    ("Reading Lamp", "color", ("brass", "black"), "64.90"),
    ("Oak Stool", "finish", ("oiled", "raw"), "119.00"),
    ("Garden Shears", "length", ("short", "long"), "27.80"),
    ("Enamel Teapot", "color", ("cream", "blue", "green"), "42.00"),
    ("Linen Apron", "size", ("S", "M", "L"), "31.20"),
    ("Seed Box", "kind", ("herbs", "flowers", "vegetables"), "18.40"),
    ("Beeswax Candles", "pieces", ("4", "8"), "22.60"),
    ("Bird Feeder", "wood", ("cedar", "larch"), "38.70"),
    ("Cast Iron Pan", "diameter", ("9 inch", "11 inch"), "58.30"),
    ("Wall Clock", "color", ("white", "walnut"), "74.10"),
    ("Canvas Hammock", "color", ("sand", "olive"), "139.00"),
    ("Clay Planter", "size", ("small", "large"), "29.90"),
    ("Writing Desk", "wood", ("ash", "walnut"), "640.00"),
    ("Potting Bench", "wood", ("cedar", "pine"), "480.00"),
)


def demo_shop(seed: int = 7) -> ShopExport:
    """A shop with customers of none, one and several orders, in every state, paid in every way."""
    dice = random.Random(seed)
    products = tuple(_products(dice))
    variants = [(product, variant) for product in products for variant in product.variants.values()]
    customers = [_customer(dice, number) for number in range(CUSTOMERS)]
    buyers = [customer for number, customer in enumerate(customers) if number % 8]  # every eighth has no order
    owners = [*buyers, *dice.choices(buyers, k=ORDERS - len(buyers))]
    orders = tuple(_order(dice, _FIRST_ORDER + 13 * n, owner, variants) for n, owner in enumerate(owners))
    return ShopExport(
        customers=tuple(_with_orders(customer, orders) for customer in customers),
        orders=orders,
        products=products,
        policy_markdown=resources.files("ops.demo").joinpath("policy.md").read_text(encoding="utf-8"),
    )


def _products(dice: random.Random) -> Iterable[Product]:
    for place, (name, option, values, price) in enumerate(_PRODUCTS):
        product_id = f"{5_000_000_000 + 7_919 * place}"
        variants = {}
        for step, value in enumerate(values):
            item_id = f"{6_000_000_000 + 104_729 * place + step}"
            cost = Decimal(price) + step * Decimal("4.50")
            variants[item_id] = Variant(
                item_id=item_id, options={option: value}, available=dice.random() < 0.9, price=cost
            )
        yield Product(product_id=product_id, name=name, variants=variants)


def _customer(dice: random.Random, number: int) -> Customer:
    first, last = dice.choice(_FIRST_NAMES.split()), dice.choice(_LAST_NAMES.split())
    methods = _payment_methods(dice, number)
    return Customer(
        user_id=f"{first}_{last}_{number:03}".lower(),
        email=f"{first}.{last}{number:03}@post.example".lower(),
        name=PersonName(first_name=first, last_name=last),
        address=_address(dice),
        payment_methods={method.id: method for method in methods},
    )


def _address(dice: random.Random) -> Address:
    city, state, zip_code = dice.choice(_CITIES)
    street = f"{dice.randint(1, 240)} {dice.choice(_STREETS)}"
    return Address(address1=street, city=city, state=state, country="USA", zip=zip_code)


def _payment_methods(dice: random.Random, number: int) -> list[PaymentMethod]:
    card = PaymentMethod(
        id=f"credit_card_{number:05}", source="credit_card", brand="visa", last_four=f"{dice.randint(0, 9999):04}"
    )
    paypal = PaymentMethod(id=f"paypal_{number:05}", source="paypal")
    gift_card = PaymentMethod(id=f"gift_card_{number:05}", source="gift_card", balance=Decimal(dice.randint(0, 80)))
    return [[card], [paypal], [card, gift_card], [gift_card, paypal]][number % 4]


def _order(dice: random.Random, number: int, owner: Customer, variants: Sequence[tuple[Product, Variant]]) -> Order:
    status = dice.choice(_STATUSES)
    chosen = dice.choices(variants, k=dice.randint(1, 4))
    items = tuple(
        OrderItem(name=p.name, product_id=p.product_id, item_id=v.item_id, price=v.price, options=v.options)
        for p, v in chosen
    )
    method_id = next(iter(owner.payment_methods))
    return Order(
        order_id=f"#W{number}",
        user_id=owner.user_id,
        address=owner.address or _address(dice),
        items=items,
        status=status,
        fulfillments=_fulfillments(dice, status, items),
        payment_history=_payments(status, method_id, sum((item.price for item in items), Decimal(0))),
    )


def _fulfillments(dice: random.Random, status: str, items: Sequence[OrderItem]) -> tuple[Fulfillment, ...]:
    if status not in ("processed", "delivered"):
        return ()
    tracking_id = f"FF{dice.randint(10**9, 10**10 - 1)}"
    return (Fulfillment(tracking_id=(tracking_id,), item_ids=tuple(item.item_id for item in items)),)


def _payments(status: str, method_id: str, total: Decimal) -> tuple[Payment, ...]:
    paid = Payment(transaction_type="payment", amount=total, payment_method_id=method_id)
    refunded = Payment(transaction_type="refund", amount=total, payment_method_id=method_id)
    return (paid, refunded) if status == "cancelled" else (paid,)


def _with_orders(customer: Customer, orders: Iterable[Order]) -> Customer:
    own = tuple(sorted(order.order_id for order in orders if order.user_id == customer.user_id))
    return customer.model_copy(update={"orders": own})
