"""Mutations: a proposal that may be carried out, changed in one way that must make the guard refuse it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from types import MappingProxyType
from typing import Any

from agents import guard
from agents.rules import RULES, Amount
from contracts.order_rows import paid_by_method
from contracts.shop import ActionKind, Customer, Order, Product
from contracts.ticket import Proposal
from state.shop_files import ShopExport

CENT = Decimal("0.01")
STATUSES = (
    "pending",
    "pending (item modified)",
    "processed",
    "delivered",
    "cancelled",
    "return requested",
    "exchange requested",
)
_GIFT_CARD = "gift_card"


@dataclass(frozen=True)
class Claim:
    """A proposal, the rows it is held against, and whether the customer said yes to it."""

    proposal: Proposal
    customer: Customer
    order: Order | None
    products: Mapping[str, Product]
    confirmed: bool = True

    def proposing(self, **changed: Any) -> Claim:
        """The same with other details, and with the money that these rows then say: as we would have asked."""
        return replace(self, proposal=self.proposal.model_copy(update=changed)).with_amount_of_rows()

    def with_amount_of_rows(self) -> Claim:
        """The same, asking for exactly the money that the rows say."""
        return replace(self, proposal=guard.priced(self.proposal, self.order, self.products))


@dataclass(frozen=True)
class World:
    """The shop at large: other customers' rows, and what else could be ordered."""

    export: ShopExport

    def orders_of_others(self, claim: Claim) -> Iterator[Order]:
        """Orders of others that the action would be right for, were they one's own."""
        rule = RULES[claim.proposal.action]
        return (o for o in self.export.orders if o.user_id != claim.customer.user_id and o.status in rule.statuses)

    def other_customers(self, claim: Claim) -> Iterator[Customer]:
        """Customers with payment methods, none of them the claim's."""
        own = claim.customer
        return (c for c in self.export.customers if c.user_id != own.user_id and c.payment_methods)


Mutation = Callable[[Claim, World], Iterator[Claim]]


def _other_customers_order(claim: Claim, world: World) -> Iterator[Claim]:
    if claim.order is None:
        return
    for others in islice(world.orders_of_others(claim), 1):
        yield replace(claim, order=others).proposing(order_id=others.order_id)
    for customer in islice(world.other_customers(claim), 1):
        yield replace(claim, customer=customer)


def _wrong_state(claim: Claim, world: World) -> Iterator[Claim]:
    permitted = RULES[claim.proposal.action].statuses
    if claim.order is not None:
        for status in STATUSES:
            if status not in permitted:
                yield replace(claim, order=claim.order.model_copy(update={"status": status}))


def _method_not_theirs(claim: Claim, world: World) -> Iterator[Claim]:
    if claim.proposal.payment_method_id is not None:
        for customer in islice(world.other_customers(claim), 1):
            yield from (claim.proposing(payment_method_id=method_id) for method_id in customer.payment_methods)


def _method_not_allowed(claim: Claim, world: World) -> Iterator[Claim]:
    """A method of the customer's own that the policy does not let this action use."""
    if claim.order is None:
        return
    paid = paid_by_method(claim.order)
    if claim.proposal.action is ActionKind.MODIFY_PENDING_ORDER_PAYMENT:
        yield from (claim.proposing(payment_method_id=method_id) for method_id in paid)
    if claim.proposal.action is ActionKind.RETURN_DELIVERED_ORDER_ITEMS:
        for method_id, method in claim.customer.payment_methods.items():
            if method_id not in paid and method.source != _GIFT_CARD:
                yield claim.proposing(payment_method_id=method_id)


def _amount_raised(claim: Claim, world: World) -> Iterator[Claim]:
    """More money for the customer than the rows say: a larger refund, or a smaller difference to pay."""
    kind, amount = RULES[claim.proposal.action].amount, claim.proposal.amount
    if kind is Amount.NOTHING or amount is None:
        return
    for more in (CENT, Decimal(100)):
        told = amount - more if kind is Amount.DIFFERENCE else amount + more
        yield replace(claim, proposal=claim.proposal.model_copy(update={"amount": told}))


def _item_not_in_order(claim: Claim, world: World) -> Iterator[Claim]:
    """An item of somebody else's order, and an item of the order once more than it was bought."""
    item_ids = claim.proposal.item_ids
    if not item_ids or claim.order is None:
        return
    own = {item.item_id for item in claim.order.items}
    foreign = (i.item_id for order in world.orders_of_others(claim) for i in order.items if i.item_id not in own)
    for item_id in islice(foreign, 1):
        yield claim.proposing(item_ids=(item_id, *item_ids[1:]))
    bought = [item.item_id for item in claim.order.items].count(item_ids[0])
    again = (item_ids[0],) * (bought + 1)
    new = claim.proposal.new_item_ids[:1] * (bought + 1)
    yield claim.proposing(item_ids=again, new_item_ids=new)


def _other_product(claim: Claim, world: World) -> Iterator[Claim]:
    new = claim.proposal.new_item_ids
    if new and claim.order is not None:
        ordered = {item.product_id for item in claim.order.items}
        others = (p for p in world.export.products if p.product_id not in ordered)
        to_be_had = ((p, key) for p in others for key, variant in p.variants.items() if variant.available)
        for product, item_id in islice(to_be_had, 1):
            with_other = replace(claim, products={**claim.products, product.product_id: product})
            yield with_other.proposing(new_item_ids=(item_id, *new[1:]))


def _unavailable_item(claim: Claim, world: World) -> Iterator[Claim]:
    for item_id in claim.proposal.new_item_ids[:1]:
        yield replace(claim, products={key: _sold_out(p, item_id) for key, p in claim.products.items()})


def _sold_out(product: Product, item_id: str) -> Product:
    if item_id not in product.variants:
        return product
    gone = product.variants[item_id].model_copy(update={"available": False})
    return product.model_copy(update={"variants": {**product.variants, item_id: gone}})


def _gift_card_short(claim: Claim, world: World) -> Iterator[Claim]:
    """The same to be paid with a gift card that lacks one cent."""
    amount = claim.proposal.amount
    pays = RULES[claim.proposal.action].amount is Amount.DIFFERENCE or (
        claim.proposal.action is ActionKind.MODIFY_PENDING_ORDER_PAYMENT
    )
    method = claim.customer.payment_methods.get(claim.proposal.payment_method_id or "")
    if method and pays and amount and amount > 0:
        short = method.model_copy(update={"source": _GIFT_CARD, "balance": amount - CENT})
        methods = {**claim.customer.payment_methods, method.id: short}
        yield replace(claim, customer=claim.customer.model_copy(update={"payment_methods": methods}))


def _detail_missing(claim: Claim, world: World) -> Iterator[Claim]:
    empty: Mapping[str, object] = {"reason": None, "item_ids": (), "payment_method_id": None, "address": None}
    for name, nothing in empty.items():
        if getattr(claim.proposal, name):
            yield claim.proposing(**{name: nothing})


def _not_confirmed(claim: Claim, world: World) -> Iterator[Claim]:
    yield replace(claim, confirmed=False)


MUTATIONS: Mapping[str, Mutation] = MappingProxyType(
    {
        "other_customers_order": _other_customers_order,
        "wrong_state": _wrong_state,
        "method_not_theirs": _method_not_theirs,
        "method_not_allowed": _method_not_allowed,
        "amount_raised": _amount_raised,
        "item_not_in_order": _item_not_in_order,
        "other_product": _other_product,
        "unavailable_item": _unavailable_item,
        "gift_card_short": _gift_card_short,
        "detail_missing": _detail_missing,
        "not_confirmed": _not_confirmed,
    }
)
SECOND_TIME = "second_time"
"""The proposal again, on the rows that it left when it was carried out."""


def mutated(claim: Claim, world: World) -> Sequence[tuple[str, Sequence[Claim]]]:
    """Every kind of mutation that the claim can undergo, with what comes of it."""
    kinds = ((kind, list(mutate(claim, world))) for kind, mutate in MUTATIONS.items())
    return [(kind, claims) for kind, claims in kinds if claims]
