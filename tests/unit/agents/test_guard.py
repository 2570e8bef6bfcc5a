"""The policy's rules in code."""

from dataclasses import replace
from decimal import Decimal

import pytest

from agents import guard
from agents.rules import ABOUT_NO_ORDER, RULES, Check
from contracts.shop import ActionKind, Address, Customer, Order, Product, Variant
from contracts.ticket import Proposal
from state.policy_text import passages_of
from tests.unit.agents.kit import ANN, CUSTOMERS, DELIVERED, HOME, ORDERS, PENDING, POLICY

ANNS, BENS_ROW = CUSTOMERS[0], CUSTOMERS[1]
PENDING_ORDER, DELIVERED_ORDER, PROCESSED_ORDER, BENS_ORDER = ORDERS
PASSAGES = passages_of(POLICY)


def proposal(action: ActionKind, order_id: str, **details: object) -> Proposal:
    asked = {"action": action, "order_id": order_id, "asked_in_round": 1, "asked_of": ANN}
    return Proposal.model_validate(asked | details)


CANCEL = proposal(ActionKind.CANCEL_PENDING_ORDER, PENDING, reason="no longer needed")
RETURN = proposal(
    ActionKind.RETURN_DELIVERED_ORDER_ITEMS,
    DELIVERED,
    item_ids=[item.item_id for item in DELIVERED_ORDER.items],
    payment_method_id="card",
)
AWAY = HOME.model_copy(update={"address1": "2 New Lane"})
MOVE = proposal(ActionKind.MODIFY_PENDING_ORDER_ADDRESS, PENDING, address=AWAY)
MOVE_HOME = proposal(ActionKind.MODIFY_USER_ADDRESS, "", address=AWAY)
SWAP = {"item_ids": [f"{PENDING}-0"], "new_item_ids": ["big-lamp"], "payment_method_id": "card"}
MODIFY = proposal(ActionKind.MODIFY_PENDING_ORDER_ITEMS, PENDING, **SWAP)
EXCHANGE = proposal(ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS, DELIVERED, **(SWAP | {"item_ids": [f"{DELIVERED}-1"]}))
PAY = proposal(ActionKind.MODIFY_PENDING_ORDER_PAYMENT, PENDING, payment_method_id="gift")
PRODUCTS = {
    "p-Lamp": Product(
        product_id="p-Lamp",
        name="Lamp",
        variants={
            "big-lamp": Variant(item_id="big-lamp", price=Decimal("25.00")),
            "old-lamp": Variant(item_id="old-lamp", price=Decimal("20.00"), available=False),
            f"{PENDING}-0": Variant(item_id=f"{PENDING}-0", price=Decimal("20.00")),
        },
    ),
    "p-Rug": Product(product_id="p-Rug", name="Rug", variants={"rug": Variant(item_id="rug", price=Decimal("20.00"))}),
}


def with_gift_card(customer: Customer, balance: str) -> Customer:
    card = customer.payment_methods["gift"].model_copy(update={"balance": Decimal(balance)})
    return customer.model_copy(update={"payment_methods": {**customer.payment_methods, "gift": card}})


RICH = with_gift_card(ANNS, "40.00")


def objection(given: Proposal, customer: Customer | None, order: Order | None, confirmed: bool = True) -> str | None:
    """What the guard says to the proposal, with the money of the rows where it names none."""
    if given.amount is None:
        given = guard.priced(given, order, PRODUCTS)
    return guard.objection(given, customer, order, confirmed=confirmed, products=PRODUCTS)


@pytest.mark.parametrize("action", list(ActionKind))
@pytest.mark.parametrize("order", ORDERS)
def test_an_action_is_eligible_exactly_in_the_status_its_name_says(action: ActionKind, order: Order) -> None:
    assert guard.assess(action, order, PASSAGES).eligible == (order.status in action)


def test_an_order_whose_items_were_modified_is_no_longer_plainly_pending() -> None:
    order = PENDING_ORDER.model_copy(update={"status": "pending (item modified)"})
    assert not guard.assess(ActionKind.CANCEL_PENDING_ORDER, order, PASSAGES).eligible


@pytest.mark.parametrize("action", list(ActionKind))
def test_the_rule_is_a_sentence_of_the_policy(action: ActionKind) -> None:
    rule = guard.assess(action, PENDING_ORDER, PASSAGES).rule
    assert rule in POLICY
    assert rule.startswith("An order can only be ") == (action not in ABOUT_NO_ORDER)


def test_without_a_policy_the_rule_is_our_own_statement() -> None:
    rule = guard.assess(ActionKind.CANCEL_PENDING_ORDER, PENDING_ORDER, ()).rule
    assert rule == "An order can only be cancelled while it is pending."


def test_money_back_for_a_pending_order_names_cancelling_as_the_alternative() -> None:
    asked, other = guard.assessments(ActionKind.RETURN_DELIVERED_ORDER_ITEMS, PENDING_ORDER, PASSAGES)
    assert not asked.eligible
    assert (other.action, other.eligible) == (ActionKind.CANCEL_PENDING_ORDER, True)
    assert len(guard.assessments(ActionKind.RETURN_DELIVERED_ORDER_ITEMS, PROCESSED_ORDER, PASSAGES)) == 1
    assert len(guard.assessments(ActionKind.CANCEL_PENDING_ORDER, DELIVERED_ORDER, PASSAGES)) == 1


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (CANCEL, PENDING_ORDER),
        (RETURN, DELIVERED_ORDER),
        (MOVE, PENDING_ORDER),
        (MODIFY, PENDING_ORDER),
        (EXCHANGE, DELIVERED_ORDER),
        (PAY, PENDING_ORDER),
        (MOVE_HOME, None),
    ],
)
def test_a_complete_proposal_on_the_customers_own_rows_meets_no_objection(given: Proposal, order: Order | None) -> None:
    assert objection(given, RICH, order) is None
    assert objection(given, RICH, order, confirmed=False) == "the customer has not said yes to this"
    assert guard.objection(given, RICH, order, confirmed=True, products=PRODUCTS, rules={}) is not None


@pytest.mark.parametrize(
    ("given", "customer", "order"),
    [
        (CANCEL, None, PENDING_ORDER),
        (CANCEL, ANNS, None),
        (CANCEL, BENS_ROW, PENDING_ORDER),
        (CANCEL, ANNS, PENDING_ORDER.model_copy(update={"order_id": "#W1000009"})),
        (CANCEL, ANNS, PENDING_ORDER.model_copy(update={"status": "processed"})),
        (CANCEL.model_copy(update={"reason": None}), ANNS, PENDING_ORDER),
        (CANCEL.model_copy(update={"reason": "found it cheaper"}), ANNS, PENDING_ORDER),
        (RETURN.model_copy(update={"item_ids": ()}), ANNS, DELIVERED_ORDER),
        (RETURN.model_copy(update={"item_ids": ("#W2000001-0",)}), ANNS, DELIVERED_ORDER),
        (RETURN.model_copy(update={"item_ids": RETURN.item_ids * 2}), ANNS, DELIVERED_ORDER),
        (RETURN.model_copy(update={"payment_method_id": "somebody's"}), ANNS, DELIVERED_ORDER),
        (RETURN, ANNS, DELIVERED_ORDER.model_copy(update={"return_items": ("x",)})),
        (MOVE.model_copy(update={"address": Address(address1="", city="X", zip="1")}), ANNS, PENDING_ORDER),
        (MOVE.model_copy(update={"address": HOME}), ANNS, PENDING_ORDER),
        (MOVE_HOME, None, None),
        (MOVE_HOME, ANNS, PENDING_ORDER),
        (MOVE_HOME.model_copy(update={"order_id": PENDING}), ANNS, None),
        (MOVE_HOME, ANNS.model_copy(update={"address": AWAY}), None),
    ],
)
def test_anything_else_meets_an_objection(given: Proposal, customer: Customer | None, order: Order | None) -> None:
    assert objection(given, customer, order)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"item_ids": (), "new_item_ids": ()}, "has not given: items, new_items"),
        ({"new_item_ids": ("big-lamp", "rug")}, "has not given: new_items"),
        ({"payment_method_id": None}, "has not given: pay_with"),
        ({"item_ids": ("nothing",)}, "not in the order"),
        ({"item_ids": (f"{PENDING}-0",) * 2, "new_item_ids": ("big-lamp",) * 2}, "not that often"),
        ({"new_item_ids": ("rug",)}, "same product"),
        ({"new_item_ids": ("old-lamp",)}, "not available"),
        ({"payment_method_id": "somebody's"}, "not the customer's"),
        ({"amount": Decimal("4.99")}, "amount"),
        ({"amount": Decimal("5.01")}, "amount"),
    ],
)
def test_new_items_are_held_against_the_products_and_the_customers_methods(change: dict[str, object], why: str) -> None:
    assert objection(MODIFY.model_copy(update={"amount": Decimal("5.00")}), ANNS, PENDING_ORDER) is None
    assert why in (objection(MODIFY.model_copy(update=change), ANNS, PENDING_ORDER) or "")


def test_what_a_customer_may_have_to_pay_is_never_done_without_having_been_told() -> None:
    for given, order in ((MODIFY, PENDING_ORDER), (EXCHANGE, DELIVERED_ORDER), (PAY, PENDING_ORDER)):
        told = guard.objection(given, RICH, order, confirmed=True, products=PRODUCTS)
        assert told == "the amount is not what the order's own rows say"
    assert guard.objection(CANCEL, ANNS, PENDING_ORDER, confirmed=True) is None


def test_a_gift_card_must_cover_what_is_to_be_paid_to_the_cent() -> None:
    modify = MODIFY.model_copy(update={"payment_method_id": "gift"})
    exchange = EXCHANGE.model_copy(update={"payment_method_id": "gift"})
    for given, order, enough, short in (
        (modify, PENDING_ORDER, "5.00", "4.99"),
        (exchange, DELIVERED_ORDER, "5.00", "4.99"),
        (PAY, PENDING_ORDER, "40.00", "39.99"),
    ):
        assert objection(given, with_gift_card(ANNS, enough), order) is None
        assert objection(given, with_gift_card(ANNS, short), order) == "the gift card does not hold enough"


def test_a_payment_changes_once_to_another_method_of_the_customers_own() -> None:
    paid = PENDING_ORDER.payment_history[0]
    moved = PENDING_ORDER.model_copy(
        update={
            "payment_history": (
                paid,
                paid.model_copy(update={"payment_method_id": "gift"}),
                paid.model_copy(update={"transaction_type": "refund"}),
            )
        }
    )
    back = PAY.model_copy(update={"payment_method_id": "card"})
    assert objection(back, RICH, PENDING_ORDER) == "the payment method is the one that paid the order"
    assert objection(back, RICH, moved) == "the same was done to this order before"
    assert objection(PAY.model_copy(update={"payment_method_id": "other"}), RICH, PENDING_ORDER)


def test_the_policys_own_sentence_is_quoted_with_the_objection() -> None:
    order = DELIVERED_ORDER.model_copy(update={"status": "processed"})
    told = guard.objection(RETURN, ANNS, order, confirmed=True, passages=PASSAGES)
    assert told == (
        "the order is processed; the policy says: An order can only be returned if its status is 'delivered'."
    )


def test_a_stricter_rule_of_the_same_form_refuses_an_item_that_stays_what_it_is() -> None:
    same = MODIFY.model_copy(update={"new_item_ids": (f"{PENDING}-0",)})
    assert objection(same, ANNS, PENDING_ORDER) is None
    rule = RULES[ActionKind.MODIFY_PENDING_ORDER_ITEMS]
    strict = replace(rule, checks={**rule.checks, Check.OTHER_OPTION: ("different",)})
    told = guard.objection(
        guard.priced(same, PENDING_ORDER, PRODUCTS),
        ANNS,
        PENDING_ORDER,
        confirmed=True,
        products=PRODUCTS,
        rules={**RULES, rule.action: strict},
    )
    assert told == "a new item is the one it would replace"


def test_the_money_is_what_was_paid_or_the_price_of_the_pieces() -> None:
    assert guard.money_moved(CANCEL, PENDING_ORDER) == Decimal("40.00")
    assert guard.money_moved(RETURN, DELIVERED_ORDER) == Decimal("40.00")
    one = RETURN.model_copy(update={"item_ids": RETURN.item_ids[:1]})
    assert guard.money_moved(one, DELIVERED_ORDER) == Decimal("20.00")
    assert guard.money_moved(MOVE, PENDING_ORDER) == 0
    assert guard.money_moved(PAY, PENDING_ORDER) == Decimal("40.00")
    assert guard.money_moved(MODIFY, PENDING_ORDER, PRODUCTS) == Decimal("5.00")
    assert guard.money_moved(MODIFY, PENDING_ORDER) == 0


def test_a_refund_goes_the_way_it_was_paid_or_to_the_customers_gift_card() -> None:
    assert guard.refund_methods(DELIVERED_ORDER, ANNS) == ("card", "gift")
    assert guard.refund_methods(BENS_ORDER, BENS_ROW) == ("card",)
