"""Rules: what the policy asks of each action, as data. A tenant's own come in the same form."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from contracts.shop import ActionKind


class Detail(StrEnum):
    """What the customer has to say before an action can be carried out."""

    CANCEL_REASON = "cancel_reason"
    ITEMS = "items"
    NEW_ITEMS = "new_items"
    REFUND_TO = "refund_to"
    PAY_WITH = "pay_with"
    ADDRESS = "address"


class Amount(StrEnum):
    """Which of the order's own rows say what money an action moves."""

    NOTHING = "nothing"
    PAID = "paid"  # all that was paid and not refunded
    ITEMS = "items"  # what the pieces named cost
    DIFFERENCE = "difference"  # what the new variants cost more than the pieces named; below 0 it is refunded


class Check(StrEnum):
    """A condition that the guard can tell from the rows."""

    OWNER = "owner"
    CONFIRMED = "confirmed"
    AMOUNT = "amount"
    ITEMS_IN_ORDER = "items_in_order"  # each as often as it was bought
    SAME_PRODUCT = "same_product"
    OTHER_OPTION = "other_option"  # every new item is another than the one it replaces
    AVAILABLE = "available"
    ORIGINAL_OR_GIFT_CARD = "original_or_gift_card"
    OWN_METHOD = "own_method"
    OTHER_METHOD = "other_method"  # than the one that paid
    COVERED = "covered"  # by the gift card, if it is one
    ONCE = "once"
    OTHER_ADDRESS = "other_address"  # than the one it has


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Rule:
    """What one action asks for. Every condition comes with words that the policy's own sentence about it holds."""

    action: ActionKind
    statuses: tuple[str, ...]  # of an order, any of which permits it; none: never
    words: tuple[str, ...]  # of the sentence about the status
    statement: str  # ours, where the policy has no such sentence
    needs: tuple[Detail, ...] = ()
    amount: Amount = Amount.NOTHING
    checks: Mapping[Check, tuple[str, ...]]


Rules = Mapping[ActionKind, Rule]

ALWAYS: Mapping[Check, tuple[str, ...]] = MappingProxyType(
    {Check.OWNER: ("any other user",), Check.CONFIRMED: ("confirmation", "yes"), Check.AMOUNT: ()}
)
"""What every action has to meet. No rule can leave these out."""

ABOUT_NO_ORDER = frozenset({ActionKind.MODIFY_USER_ADDRESS})

_SWAP_NEEDS = (Detail.ITEMS, Detail.NEW_ITEMS, Detail.PAY_WITH)


def _swap_checks(verb: str) -> dict[Check, tuple[str, ...]]:
    # A piece may stay what it is: whoever changes one of a pair often names both, and it costs nobody anything.
    return {
        Check.ONCE: ("modif", "only", "once"),
        Check.ITEMS_IN_ORDER: ("items", "changed", "list"),
        Check.SAME_PRODUCT: (verb, "same product"),
        Check.AVAILABLE: (verb, "available"),
        Check.OWN_METHOD: ("payment method", "difference"),
        Check.COVERED: ("gift card", "enough", "difference"),
    }


_SHIPPED = (
    Rule(
        action=ActionKind.CANCEL_PENDING_ORDER,
        statuses=("pending",),
        words=("cancel", "pending"),
        statement="An order can only be cancelled while it is pending.",
        needs=(Detail.CANCEL_REASON,),
        amount=Amount.PAID,
        checks={},
    ),
    Rule(
        action=ActionKind.MODIFY_PENDING_ORDER_ITEMS,
        statuses=("pending",),
        words=("modif", "pending"),
        statement="An order can only be modified while it is pending.",
        needs=_SWAP_NEEDS,
        amount=Amount.DIFFERENCE,
        checks=_swap_checks("modif"),
    ),
    Rule(
        action=ActionKind.MODIFY_PENDING_ORDER_ADDRESS,
        statuses=("pending",),
        words=("modif", "pending"),
        statement="An order can only be modified while it is pending.",
        needs=(Detail.ADDRESS,),
        checks={Check.OTHER_ADDRESS: ("modif", "shipping address")},
    ),
    Rule(
        action=ActionKind.MODIFY_PENDING_ORDER_PAYMENT,
        statuses=("pending",),
        words=("modif", "pending"),
        statement="An order can only be modified while it is pending.",
        needs=(Detail.PAY_WITH,),
        amount=Amount.PAID,
        checks={
            Check.ONCE: ("modif", "only", "once"),
            Check.OWN_METHOD: ("single payment method",),
            Check.OTHER_METHOD: ("payment method", "different", "original"),
            Check.COVERED: ("gift card", "enough", "total"),
        },
    ),
    Rule(
        action=ActionKind.RETURN_DELIVERED_ORDER_ITEMS,
        statuses=("delivered",),
        words=("return", "delivered"),
        statement="An order can only be returned while it is delivered.",
        needs=(Detail.ITEMS, Detail.REFUND_TO),
        amount=Amount.ITEMS,
        checks={
            Check.ONCE: ("return requested",),
            Check.ITEMS_IN_ORDER: ("items", "returned"),
            Check.ORIGINAL_OR_GIFT_CARD: ("refund", "go", "original payment method", "gift card"),
        },
    ),
    Rule(
        action=ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS,
        statuses=("delivered",),
        words=("exchang", "delivered"),
        statement="An order can only be exchanged while it is delivered.",
        needs=_SWAP_NEEDS,
        amount=Amount.DIFFERENCE,
        checks=_swap_checks("exchang"),
    ),
    Rule(
        action=ActionKind.MODIFY_USER_ADDRESS,
        statuses=(),
        words=("default", "address"),
        statement="Customers can change the default address of their own account.",
        needs=(Detail.ADDRESS,),
        checks={Check.OTHER_ADDRESS: ("default", "address")},
    ),
)
RULES: Rules = MappingProxyType({rule.action: rule for rule in _SHIPPED})
"""The rules in force where a tenant gives none of its own."""
