"""Variants: finds the new items a customer means among what the shop has of the same products."""

from collections.abc import Mapping, Sequence

from agents.answers import ItemChange
from contracts.shop import Order, OrderItem, Product, Variant


def new_items(
    order: Order, products: Mapping[str, Product], changes: Sequence[ItemChange]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pieces to change, one a change, and the variants to take their places.

    Where one variant does not stand out the second is empty, and where a name fits no piece left, both are.
    """
    free, pieces, variants = list(order.items), list[OrderItem](), list[Variant | None]()
    for change in changes:
        piece = next((item for item in free if _names(change.item, item)), None)
        if piece is None:
            return (), ()
        free.remove(piece)
        pieces.append(piece)
        variants.append(_meant(products.get(piece.product_id), piece, change.options))
    chosen = tuple(variant.item_id for variant in variants if variant)
    return tuple(piece.item_id for piece in pieces), chosen if len(chosen) == len(pieces) else ()


def _names(named: str, item: OrderItem) -> bool:
    return named.strip() == item.item_id or named.strip().casefold() == item.name.casefold()


def _meant(product: Product | None, piece: OrderItem, options: Sequence[str]) -> Variant | None:
    """The variant with all the values wanted that keeps most of what the piece has; None when two keep as much."""
    wanted = {option.strip().casefold() for option in options}
    to_be_had = [v for v in product.variants.values() if v.available] if product else []
    fitting = [v for v in to_be_had if wanted <= _values(v) and v.options != piece.options]
    ranked = sorted(fitting, key=lambda variant: -_kept(variant, piece))
    if not wanted or not ranked:
        return None
    is_alone = len(ranked) == 1 or _kept(ranked[0], piece) > _kept(ranked[1], piece)
    return ranked[0] if is_alone else None


def _values(variant: Variant) -> set[str]:
    return {value.casefold() for value in variant.options.values()}


def _kept(variant: Variant, piece: OrderItem) -> int:
    return len(variant.options.items() & piece.options.items())
