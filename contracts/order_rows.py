"""What an order's own rows say: its pieces by id, what was paid, and what other variants would cost."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from contracts.shop import Order, OrderItem, Product, Variant
from contracts.values import Money


class Swap(NamedTuple):
    """A piece of an order, and the variant of the same product that is to take its place."""

    place: int  # among the order's items
    piece: OrderItem
    variant: Variant


def places_of(order: Order, item_ids: Sequence[str]) -> tuple[int, ...] | None:
    """Which of the order's pieces these ids are, each piece once; None: one is not in it, or not that often."""
    free, found = list(range(len(order.items))), list[int]()
    for item_id in item_ids:
        place = next((place for place in free if order.items[place].item_id == item_id), None)
        if place is None:
            return None
        free.remove(place)
        found.append(place)
    return tuple(found)


def swaps_of(
    order: Order, item_ids: Sequence[str], new_item_ids: Sequence[str], products: Mapping[str, Product]
) -> tuple[Swap, ...] | None:
    """The n-th piece with the n-th variant; None: a piece is not in the order, or a variant not of its product."""
    places = places_of(order, item_ids)
    if places is None or len(places) != len(new_item_ids):
        return None
    swaps = list[Swap]()
    for place, new_item_id in zip(places, new_item_ids, strict=True):
        piece = order.items[place]
        product = products.get(piece.product_id)
        variant = product.variants.get(new_item_id) if product else None
        if variant is None:
            return None
        swaps.append(Swap(place, piece, variant))
    return tuple(swaps)


def difference_of(swaps: Iterable[Swap]) -> Money:
    """What the new variants cost more than what was paid for the pieces; below 0 the customer gets it back."""
    return sum((swap.variant.price - swap.piece.price for swap in swaps), Decimal(0))


def price_of(order: Order, item_ids: Sequence[str]) -> Money:
    """What was paid for these pieces; 0 when they are not the order's."""
    return sum((order.items[place].price for place in places_of(order, item_ids) or ()), Decimal(0))


def paid_by_method(order: Order) -> dict[str, Money]:
    """What was paid and not refunded yet, per payment method, in the order the methods were used."""
    sums: dict[str, Money] = {}
    for entry in order.payment_history:
        sign = {"payment": 1, "refund": -1}.get(entry.transaction_type, 0)
        sums[entry.payment_method_id] = sums.get(entry.payment_method_id, Decimal(0)) + sign * entry.amount
    return {method: paid for method, paid in sums.items() if paid > 0}


def total_paid(order: Order) -> Money:
    """What was paid for the order and not refunded yet."""
    return sum(paid_by_method(order).values(), Decimal(0))
