"""The guard: the policy's rules on orders in code. Whatever a model or a customer says, this decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from agents.policy import stating
from contracts.events import ACTION_OF_COMMAND
from contracts.facts import Assessment
from contracts.shop import ActionKind, Address, Customer, Order, Passage
from contracts.ticket import Proposal
from contracts.values import Label

CANCEL_REASONS = ("no longer needed", "ordered by mistake")


class Detail(StrEnum):
    """What the customer has to say before an action can be carried out."""

    CANCEL_REASON = "cancel_reason"
    ITEMS = "items"
    REFUND_TO = "refund_to"
    ADDRESS = "address"
    CHANGES = "changes"  # in free words: a person carries it out


@dataclass(frozen=True, slots=True)
class Rule:
    """What one action needs, and how the policy's own sentence about it is found."""

    status: str  # the only status of an order that permits it
    needs: tuple[Detail, ...]
    words: tuple[str, ...]
    statement: str  # ours, where the policy says nothing


def _rule(status: str, verb: str, stated: str, *needs: Detail) -> Rule:
    return Rule(status, needs, (verb, status), f"An order can only be {stated} while it is {status}.")


RULES: Mapping[ActionKind, Rule] = MappingProxyType(
    {
        ActionKind.CANCEL_PENDING_ORDER: _rule("pending", "cancel", "cancelled", Detail.CANCEL_REASON),
        ActionKind.MODIFY_PENDING_ORDER_ITEMS: _rule("pending", "modif", "modified", Detail.CHANGES),
        ActionKind.MODIFY_PENDING_ORDER_ADDRESS: _rule("pending", "modif", "modified", Detail.ADDRESS),
        ActionKind.MODIFY_PENDING_ORDER_PAYMENT: _rule("pending", "modif", "modified", Detail.CHANGES),
        ActionKind.RETURN_DELIVERED_ORDER_ITEMS: _rule(
            "delivered", "return", "returned", Detail.ITEMS, Detail.REFUND_TO
        ),
        ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS: _rule("delivered", "exchang", "exchanged", Detail.CHANGES),
    }
)
_HINTS = ("only", "status", "if", "order")

ACTIONS_OF_LABEL: Mapping[Label, tuple[ActionKind, ...]] = MappingProxyType(
    {
        Label.CANCEL_ORDER: (ActionKind.CANCEL_PENDING_ORDER,),
        Label.CHANGE_ORDER: (
            ActionKind.MODIFY_PENDING_ORDER_ITEMS,
            ActionKind.MODIFY_PENDING_ORDER_PAYMENT,
            ActionKind.MODIFY_PENDING_ORDER_ADDRESS,
        ),
        Label.ADDRESS_CHANGE: (ActionKind.MODIFY_PENDING_ORDER_ADDRESS,),
        Label.RETURN_REFUND: (ActionKind.RETURN_DELIVERED_ORDER_ITEMS, ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS),
    }
)
"""The actions a label may lead to, the usual one first; all of one label need the same status."""


def assess(action: ActionKind, order: Order, passages: Sequence[Passage]) -> Assessment:
    """Whether the order's status permits the action, and the policy's sentence that says so."""
    rule = RULES[action]
    return Assessment(
        action=action,
        order_id=order.order_id,
        eligible=_status(order) == rule.status,
        rule=stating(passages, rule.words, _HINTS) or rule.statement,
    )


def assessments(action: ActionKind, order: Order, passages: Sequence[Passage]) -> tuple[Assessment, ...]:
    """The action's assessment; where it fails on a pending order, cancelling that order as the alternative."""
    asked = assess(action, order, passages)
    cancelling = assess(ActionKind.CANCEL_PENDING_ORDER, order, passages)
    wants_money_back = action in ACTIONS_OF_LABEL[Label.RETURN_REFUND]
    return (asked, cancelling) if wants_money_back and cancelling.eligible else (asked,)


def missing(proposal: Proposal) -> tuple[Detail, ...]:
    """The details the customer still has to give."""
    given = {
        Detail.CANCEL_REASON: proposal.reason in CANCEL_REASONS,
        Detail.ITEMS: bool(proposal.item_ids),
        Detail.REFUND_TO: proposal.payment_method_id is not None,
        Detail.ADDRESS: proposal.address is not None and is_complete(proposal.address),
        Detail.CHANGES: False,
    }
    return tuple(detail for detail in RULES[proposal.action].needs if not given[detail])


def is_complete(address: Address) -> bool:
    """Whether a parcel could be sent there."""
    return all(part.strip() for part in (address.address1, address.city, address.zip))


def refund_methods(order: Order, customer: Customer) -> tuple[str, ...]:
    """Where a refund of the order may go: the way it was paid, then the customer's gift cards."""
    gift_cards = [key for key, method in customer.payment_methods.items() if method.source == "gift_card"]
    return tuple(dict.fromkeys([*_unrefunded(order), *gift_cards]))


def money_moved(proposal: Proposal, order: Order) -> Decimal:
    """What carrying out the proposal would refund, in USD."""
    if proposal.action is ActionKind.CANCEL_PENDING_ORDER:
        return sum(_unrefunded(order).values(), Decimal(0))
    if proposal.action is ActionKind.RETURN_DELIVERED_ORDER_ITEMS:
        left = Counter(proposal.item_ids)
        return sum((i.price for i in order.items if _take(left, i.item_id)), Decimal(0))
    return Decimal(0)


def objection(proposal: Proposal, customer: Customer | None, order: Order | None) -> str | None:
    """Why the proposal must not be carried out on these rows; None when it may."""
    if customer is None or order is None or order.user_id != customer.user_id:
        return "the order is not the customer's"
    if proposal.order_id != order.order_id:
        return "the proposal is about another order"
    if proposal.action not in ACTION_OF_COMMAND.values():
        return "a person carries out this action"
    if _status(order) != RULES[proposal.action].status:
        return f"the order is {order.status}"
    if lacking := missing(proposal):
        return f"the customer has not given: {', '.join(lacking)}"
    return _objection_to_return(proposal, customer, order)


def _objection_to_return(proposal: Proposal, customer: Customer, order: Order) -> str | None:
    if proposal.action is not ActionKind.RETURN_DELIVERED_ORDER_ITEMS:
        return None
    if order.return_items:
        return "a return of this order was asked for before"
    if Counter(proposal.item_ids) - Counter(item.item_id for item in order.items):
        return "an item is not in the order"
    if proposal.payment_method_id not in refund_methods(order, customer):
        return "the refund would go neither to the way it was paid nor to the customer's gift card"
    return None


def _status(order: Order) -> str:
    return order.status.strip().casefold()


def _unrefunded(order: Order) -> dict[str, Decimal]:
    """What was paid and not given back yet, by payment method."""
    sums: dict[str, Decimal] = {}
    for entry in order.payment_history:
        sign = {"payment": 1, "refund": -1}.get(entry.transaction_type, 0)
        sums[entry.payment_method_id] = sums.get(entry.payment_method_id, Decimal(0)) + sign * entry.amount
    return {method: paid for method, paid in sums.items() if paid > 0}


def _take(left: Counter[str], item_id: str) -> bool:
    left[item_id] -= 1
    return left[item_id] >= 0
