"""Lookup: what a customer is told about their orders, and what nobody is told."""

import pytest

from contracts.facts import LookupOutcome, OrderFacts
from contracts.shop import Fulfillment
from contracts.ticket import Step
from contracts.values import Disposition, Label
from state.shop_files import ShopExport
from tests.unit.agents.kit import (
    BEN,
    BENS,
    CLEO,
    CUSTOMERS,
    DAN,
    DELIVERED,
    ORDERS,
    PENDING,
    POLICY,
    PROCESSED,
    Desks,
    event_of,
)


async def test_a_named_order_is_told_with_status_tracking_and_items() -> None:
    outcome = await Desks().write(f"where is order {DELIVERED}?")
    facts = OrderFacts(order_id=DELIVERED, status="delivered", tracking_ids=("TRACK1000002",), items=("Lamp", "Rug"))
    assert outcome.lookup is not None
    assert (outcome.lookup.outcome, outcome.lookup.orders) == (LookupOutcome.FOUND, (facts,))
    assert outcome.disposition is Disposition.ANSWERED
    assert outcome.orders == (DELIVERED,)
    for told in (DELIVERED, "delivered", "TRACK1000002", "Lamp, Rug"):
        assert told in outcome.reply


async def test_a_tracking_number_finds_its_order_too() -> None:
    sent = ORDERS[1].model_copy(update={"fulfillments": (Fulfillment(tracking_id=("802347023880",)),)})
    export = ShopExport(customers=CUSTOMERS, orders=(ORDERS[0], sent))
    outcome = await Desks(export=export).write("track 802347023880 please")
    assert outcome.orders == (DELIVERED,)


async def test_an_only_order_needs_no_number() -> None:
    assert (await Desks().write("where is my order?", BEN)).orders == (BENS,)


async def test_several_orders_lead_to_a_question_that_lists_them_and_the_answer_to_one() -> None:
    desks = Desks()
    outcome = await desks.write("where is my order?")
    assert outcome.disposition is Disposition.NEEDS_CUSTOMER
    assert outcome.lookup is not None
    assert outcome.lookup.outcome is LookupOutcome.AMBIGUOUS
    assert all(order_id in outcome.reply for order_id in (PENDING, DELIVERED, PROCESSED))
    assert desks.ticket.question is not None
    answered = await desks.write("the third: w1000003")
    assert (answered.round, answered.agent, answered.orders) == (2, "lookup", (PROCESSED,))
    assert answered.label is Label.ORDER_STATUS


async def test_two_named_orders_are_both_told() -> None:
    outcome = await Desks().write(f"where are orders {PENDING} and {DELIVERED}?")
    assert outcome.orders == (PENDING, DELIVERED)
    assert outcome.disposition is Disposition.ANSWERED


async def test_somebody_elses_order_and_an_unknown_one_get_the_same_answer() -> None:
    foreign = await Desks().write(f"where is order {BENS}?")
    unknown = await Desks().write("where is order #W9999999?")
    elsewhere = await Desks().write("where is order 732201349959?")
    assert foreign == unknown == elsewhere
    assert foreign.lookup is not None
    assert (foreign.lookup.outcome, foreign.lookup.orders) == (LookupOutcome.NOT_FOUND, ())
    assert foreign.disposition is Disposition.NEEDS_CUSTOMER


async def test_somebody_elses_order_beside_ones_own_is_passed_over() -> None:
    outcome = await Desks().write(f"where are orders {BENS} and {PENDING}?")
    assert outcome.orders == (PENDING,)
    assert "Secret Diary" not in outcome.model_dump_json()


@pytest.mark.parametrize("sender", [DAN, ""])
async def test_who_is_not_a_customer_is_asked_to_write_from_the_right_address(sender: str) -> None:
    desks = Desks()
    outcome = await desks.write("where is my order?", sender)
    assert outcome.lookup is not None
    assert outcome.lookup.outcome is LookupOutcome.UNKNOWN_CUSTOMER
    assert outcome.disposition is Disposition.NEEDS_CUSTOMER
    assert desks.sent() == ([outcome.reply] if sender else [])


async def test_a_customer_without_orders_is_told_so() -> None:
    outcome = await Desks().write("where is my order?", CLEO)
    assert outcome.lookup is not None
    assert outcome.lookup.outcome is LookupOutcome.NO_ORDERS
    assert outcome.disposition is Disposition.ANSWERED


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("Guten Tag, wo ist meine Bestellung {}? Danke", "zugestellt"),
        ("Hola, ¿dónde está mi pedido {}? Gracias", "entregado"),
        ("Bonjour, où est ma commande {} ? Merci", "livrée"),
    ],
)
async def test_the_answer_is_in_the_customers_language(body: str, told: str) -> None:
    assert told in (await Desks().write(body.format(DELIVERED))).reply


async def test_a_general_question_about_shipping_is_answered_in_the_policys_words() -> None:
    words = "We ship to Canada and to the moon."
    export = ShopExport(customers=CUSTOMERS, orders=ORDERS, policy_markdown=f"{POLICY}\n## Shipping\n\n{words}\n")
    outcome = await Desks(export=export).write("Do you ship to Canada?")
    assert outcome.reply == words
    assert outcome.disposition is Disposition.ANSWERED


async def test_a_round_that_is_elsewhere_or_closed_stays_as_it_is() -> None:
    desks = Desks()
    await desks.write(f"where is order {DELIVERED}?")
    for payload in list(desks.emitted):
        for agent in (desks.lookup, desks.reasoning):
            assert await agent.handle(desks.ticket, event_of(payload)) == Step(desks.ticket)
