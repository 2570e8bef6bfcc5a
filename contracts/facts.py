"""What the order database says about a round, and what the policy allows: the evidence behind an outcome."""

from enum import StrEnum

from contracts.shop import ActionKind
from contracts.values import Money, Value


class LookupOutcome(StrEnum):
    """How the search for the customer's order ended. Someone else's order is NOT_FOUND."""

    FOUND = "found"
    AMBIGUOUS = "ambiguous"
    NOT_FOUND = "not_found"
    NO_ORDERS = "no_orders"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNVERIFIED = "unverified"  # nothing was looked up: the sender may be anybody


class OrderFacts(Value):
    """The public facts of one of the customer's own orders."""

    order_id: str
    status: str
    tracking_ids: tuple[str, ...] = ()
    items: tuple[str, ...] = ()  # product names, sorted, one a piece


class Facts(Value):
    """What lookup found; `orders`: those meant when found, mostly one; all candidates when ambiguous; else none."""

    outcome: LookupOutcome
    orders: tuple[OrderFacts, ...] = ()


class Assessment(Value):
    """Whether the policy allows an action on an order, by the rule quoted."""

    action: ActionKind
    order_id: str
    eligible: bool
    rule: str  # the policy's own sentence where it was found, ours else


class TakenAction(Value):
    """An action that was carried out, with the money it moved (0 where none)."""

    kind: ActionKind
    order_id: str  # "" when it is about no order
    amount: Money  # a price difference is above 0 where the customer pays it
    currency: str = "USD"
