"""The policy's rules in code."""

from decimal import Decimal

import pytest

from agents import guard
from contracts.shop import ActionKind, Address, Customer, Order
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
MOVE = proposal(ActionKind.MODIFY_PENDING_ORDER_ADDRESS, PENDING, address=HOME)


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
    assert rule.startswith("An order can only be ")


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
    ("given", "order"), [(CANCEL, PENDING_ORDER), (RETURN, DELIVERED_ORDER), (MOVE, PENDING_ORDER)]
)
def test_a_complete_proposal_on_the_customers_own_order_meets_no_objection(given: Proposal, order: Order) -> None:
    assert guard.objection(given, ANNS, order) is None


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
        (proposal(ActionKind.MODIFY_PENDING_ORDER_ITEMS, PENDING), ANNS, PENDING_ORDER),
    ],
)
def test_anything_else_meets_an_objection(given: Proposal, customer: Customer | None, order: Order | None) -> None:
    assert guard.objection(given, customer, order)


def test_the_money_is_what_was_paid_or_the_price_of_the_pieces() -> None:
    assert guard.money_moved(CANCEL, PENDING_ORDER) == Decimal("40.00")
    assert guard.money_moved(RETURN, DELIVERED_ORDER) == Decimal("40.00")
    one = RETURN.model_copy(update={"item_ids": RETURN.item_ids[:1]})
    assert guard.money_moved(one, DELIVERED_ORDER) == Decimal("20.00")
    assert guard.money_moved(MOVE, PENDING_ORDER) == 0


def test_a_refund_goes_the_way_it_was_paid_or_to_the_customers_gift_card() -> None:
    assert guard.refund_methods(DELIVERED_ORDER, ANNS) == ("card", "gift")
    assert guard.refund_methods(BENS_ORDER, BENS_ROW) == ("card",)
