"""What a model is shown of a case."""

import pytest

from agents.case import OrderCase
from contracts.shop import Product, Variant


def product(product_id: str, name: str) -> Product:
    variant = Variant(item_id=f"{product_id}-1", options={"colour": "red"}, available=True, price=1)
    return Product(product_id=product_id, name=name, variants={variant.item_id: variant})


@pytest.mark.parametrize("ids", ["12", "21"])
def test_products_are_shown_in_one_order_whatever_order_the_shop_gives_them_in(ids: str) -> None:
    case = OrderCase.__new__(OrderCase)
    products = {id_: product(id_, {"1": "Lamp", "2": "Chair"}[id_]) for id_ in ids}
    object.__setattr__(case, "products", products)
    assert case._variants() == ['<variants>{"Lamp": {"colour": ["red"]}, "Chair": {"colour": ["red"]}}</variants>']
