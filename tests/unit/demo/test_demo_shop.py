"""The demo shop and its letters: the same every time, whole, and answered as they are labelled."""

import json
from collections import Counter

import pytest

from agents import guard
from contracts.events import TicketSubmitted
from contracts.shop import ActionKind
from contracts.ticket import Ticket
from contracts.values import Disposition
from ops.demo.shop import demo_shop
from ops.demo.tickets import DemoTicket, sample_tickets
from state.policy_text import passages_of
from state.shop_files import ShopExport
from tests.unit.agents.kit import Desks


@pytest.fixture(scope="module")
def shop() -> ShopExport:
    return demo_shop()


@pytest.fixture(scope="module")
def letters(shop: ShopExport) -> list[DemoTicket]:
    return sample_tickets(shop)


def test_the_same_seed_makes_the_same_shop_and_letters(shop: ShopExport, letters: list[DemoTicket]) -> None:
    assert demo_shop() == shop
    assert sample_tickets() == letters
    assert demo_shop(seed=8) != shop


def test_the_shop_is_whole(shop: ShopExport) -> None:
    owners = {customer.user_id: customer for customer in shop.customers}
    assert len(owners) == len({c.email for c in shop.customers}) == len(shop.customers)
    assert len({order.order_id for order in shop.orders}) == len(shop.orders)
    variants = {item_id: v for product in shop.products for item_id, v in product.variants.items()}
    for order in shop.orders:
        assert order.order_id in owners[order.user_id].orders
        assert all(variants[item.item_id].price == item.price for item in order.items)
        assert order.payment_history[0].payment_method_id in owners[order.user_id].payment_methods
        assert bool(order.tracking_ids) == (order.status in ("processed", "delivered"))


def test_every_state_way_to_pay_and_number_of_orders_is_there(shop: ShopExport) -> None:
    assert {order.status for order in shop.orders} == {"pending", "processed", "delivered", "cancelled"}
    assert {m.source for c in shop.customers for m in c.payment_methods.values()} == {
        "credit_card",
        "paypal",
        "gift_card",
    }
    assert {0, 1, 2} <= {len(customer.orders) for customer in shop.customers}


def test_the_policy_states_every_rule_the_guard_knows(shop: ShopExport) -> None:
    passages = passages_of(shop.policy_markdown)
    for action in ActionKind:
        assert guard.assess(action, shop.orders[0], passages).rule in shop.policy_markdown


def test_each_letter_is_plain_json_a_ticket_of_its_own(letters: list[DemoTicket]) -> None:
    assert len({letter.first["ticket_id"] for letter in letters}) == len(letters) >= 40
    for letter in letters:
        for record in (letter.first, *letter.then):
            assert TicketSubmitted.model_validate_json(json.dumps(record)).ticket_id == letter.first["ticket_id"]


async def test_the_letters_end_in_every_way_a_letter_can_end(shop: ShopExport, letters: list[DemoTicket]) -> None:
    at = Desks(export=shop, money_limit_usd=1_000)
    ends, labels, lookups, last = Counter[Disposition](), set[str](), set[str](), dict[str, Disposition]()
    for letter in letters:
        at.ticket = Ticket(ticket_id=letter.first["ticket_id"], tenant_id="default")
        for record in (letter.first, *letter.then):
            more = {"subject": record.get("subject", ""), "order_ref": record.get("order_ref")}
            outcome = await at.write(record["body"], record["from_email"], **more)
            ends[outcome.disposition] += 1
            labels |= {outcome.label} if outcome.label else set()
            lookups |= {outcome.lookup.outcome} if outcome.lookup else set()
            last[letter.about] = outcome.disposition
    assert set(ends) == set(Disposition) - {Disposition.TIMED_OUT}
    assert len(labels) == 12
    assert len(lookups) == 5
    for about, end in last.items():
        if "confirmed" in about or "then the customer" in about:
            assert end is Disposition.ACTED, about
