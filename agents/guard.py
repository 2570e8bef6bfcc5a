"""The guard: holds a proposal against the rules and the shop's rows. Whatever a model or a customer says, this decides.

The rules are data (`agents.rules`); this is the one small interpreter of them. What no rule permits is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from agents.policy import stating
from agents.rules import ABOUT_NO_ORDER, ALWAYS, RULES, Amount, Check, Detail, Rule, Rules
from contracts.facts import Assessment
from contracts.order_rows import Swap, difference_of, paid_by_method, places_of, price_of, swaps_of, total_paid
from contracts.shop import ActionKind, Address, Customer, Order, Passage, PaymentMethod, Product
from contracts.ticket import Proposal
from contracts.values import Label

CANCEL_REASONS = ("no longer needed", "ordered by mistake")

Products = Mapping[str, Product]
NO_PRODUCTS: Products = MappingProxyType({})
_PRICED = frozenset(
    {
        ActionKind.MODIFY_PENDING_ORDER_ITEMS,
        ActionKind.MODIFY_PENDING_ORDER_PAYMENT,
        ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS,
    }
)
"""What a customer may pay for: never without having been told how much."""
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


def assess(action: ActionKind, order: Order, passages: Sequence[Passage], rules: Rules = RULES) -> Assessment:
    """Whether the order's status permits the action, and the policy's sentence that says so."""
    rule = rules[action]
    return Assessment(
        action=action,
        order_id=order.order_id,
        eligible=_status(order) in rule.statuses,
        rule=stating(passages, rule.words, _HINTS) or rule.statement,
    )


def assessments(
    action: ActionKind, order: Order, passages: Sequence[Passage], rules: Rules = RULES
) -> tuple[Assessment, ...]:
    """The action's assessment; where it fails on a pending order, cancelling that order as the alternative."""
    asked = assess(action, order, passages, rules)
    cancelling = assess(ActionKind.CANCEL_PENDING_ORDER, order, passages, rules)
    wants_money_back = action in ACTIONS_OF_LABEL[Label.RETURN_REFUND]
    return (asked, cancelling) if wants_money_back and cancelling.eligible else (asked,)


def missing(proposal: Proposal, rules: Rules = RULES) -> tuple[Detail, ...]:
    """The details the customer still has to give."""
    pairs = len(proposal.item_ids) == len(proposal.new_item_ids)
    given = {
        Detail.CANCEL_REASON: proposal.reason in CANCEL_REASONS,
        Detail.ITEMS: bool(proposal.item_ids),
        Detail.NEW_ITEMS: bool(proposal.new_item_ids) and pairs,
        Detail.REFUND_TO: proposal.payment_method_id is not None,
        Detail.PAY_WITH: proposal.payment_method_id is not None,
        Detail.ADDRESS: proposal.address is not None and is_complete(proposal.address),
    }
    return tuple(detail for detail in rules[proposal.action].needs if not given[detail])


def is_complete(address: Address) -> bool:
    """Whether a parcel could be sent there."""
    return all(part.strip() for part in (address.address1, address.city, address.zip))


def refund_methods(order: Order, customer: Customer) -> tuple[str, ...]:
    """Where a refund of the order may go: the way it was paid, then the customer's gift cards."""
    gift_cards = [key for key, method in customer.payment_methods.items() if _is_gift_card(method)]
    return tuple(dict.fromkeys([*paid_by_method(order), *gift_cards]))


def money_moved(proposal: Proposal, order: Order, products: Products = NO_PRODUCTS, rules: Rules = RULES) -> Decimal:
    """What carrying out the proposal moves by the order's own rows, in USD; a price difference may be below 0."""
    match rules[proposal.action].amount:
        case Amount.PAID:
            return total_paid(order)
        case Amount.ITEMS:
            return price_of(order, proposal.item_ids)
        case Amount.DIFFERENCE:
            return difference_of(swaps_of(order, proposal.item_ids, proposal.new_item_ids, products) or ())
        case Amount.NOTHING:
            return Decimal(0)


def priced(proposal: Proposal, order: Order | None, products: Products = NO_PRODUCTS, rules: Rules = RULES) -> Proposal:
    """The proposal with the money that the rows say now: what the customer is told, and held to."""
    amount = money_moved(proposal, order, products, rules) if order else None
    return proposal.model_copy(update={"amount": amount})


def objection(
    proposal: Proposal,
    customer: Customer | None,
    order: Order | None,
    *,
    confirmed: bool,
    products: Products = NO_PRODUCTS,
    rules: Rules = RULES,
    passages: Sequence[Passage] = (),
) -> str | None:
    """Why the proposal must not be carried out on these rows, with the policy's sentence; None when it may.

    `order`: None where the proposal is about none. `products`: those of the order's pieces.
    `confirmed`: whether the customer said yes to exactly this.
    """
    rule = rules.get(proposal.action)
    if rule is None:
        return "no rule permits this action"
    claim = _Claim(proposal, rule, customer, order, products, confirmed)
    first = next(_objections(claim, rules), None)
    if first is None:
        return None
    reason, words = first
    sentence = stating(passages, words) if words else None
    return f"{reason}; the policy says: {sentence}" if sentence else reason


@dataclass(frozen=True, slots=True)
class _Claim:
    """A proposal, and the rows it is held against."""

    proposal: Proposal
    rule: Rule
    customer: Customer | None
    order: Order | None
    products: Products
    confirmed: bool

    @property
    def swaps(self) -> tuple[Swap, ...] | None:
        if self.order is None:
            return None
        return swaps_of(self.order, self.proposal.item_ids, self.proposal.new_item_ids, self.products)

    @property
    def amount(self) -> Decimal:
        rules = {self.rule.action: self.rule}
        return money_moved(self.proposal, self.order, self.products, rules) if self.order else Decimal(0)

    @property
    def method(self) -> PaymentMethod | None:
        return self.customer.payment_methods.get(self.proposal.payment_method_id or "") if self.customer else None


def _objections(claim: _Claim, rules: Rules) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each condition that is not met, with words of the policy's sentence about it: whose it is comes first."""
    if not _is_met(Check.OWNER, claim):
        yield _REASONS[Check.OWNER], ALWAYS[Check.OWNER]
    if claim.order is not None and _status(claim.order) not in claim.rule.statuses:
        yield f"the order is {claim.order.status}", claim.rule.words
    if lacking := missing(claim.proposal, rules):
        yield f"the customer has not given: {', '.join(lacking)}", ()
    for check, words in {**claim.rule.checks, **ALWAYS}.items():
        if not _is_met(check, claim):
            yield _REASONS[check], words


def _is_met(check: Check, claim: _Claim) -> bool:
    return _CHECKS[check](claim)


def _owner(claim: _Claim) -> bool:
    """Whether the rows are the customer's and the proposal's: an account is one's own, an order says whose it is."""
    if claim.customer is None:
        return False
    if claim.proposal.action in ABOUT_NO_ORDER:
        return claim.order is None and not claim.proposal.order_id
    order = claim.order
    return order is not None and (order.user_id, order.order_id) == (claim.customer.user_id, claim.proposal.order_id)


def _amount_agreed(claim: _Claim) -> bool:
    if claim.proposal.amount is None:
        return claim.proposal.action not in _PRICED
    return claim.proposal.amount == claim.amount


def _items_in_order(claim: _Claim) -> bool:
    return claim.order is not None and places_of(claim.order, claim.proposal.item_ids) is not None


def _available(claim: _Claim) -> bool:
    return all(swap.variant.available for swap in claim.swaps or ())


def _other_option(claim: _Claim) -> bool:
    return all(swap.variant.item_id != swap.piece.item_id for swap in claim.swaps or ())


def _original_or_gift_card(claim: _Claim) -> bool:
    if claim.order is None or claim.customer is None:
        return False
    return claim.proposal.payment_method_id in refund_methods(claim.order, claim.customer)


def _other_method(claim: _Claim) -> bool:
    return claim.order is not None and claim.proposal.payment_method_id not in paid_by_method(claim.order)


def _covered(claim: _Claim) -> bool:
    method = claim.method
    return method is None or not _is_gift_card(method) or (method.balance or Decimal(0)) >= claim.amount


def _once(claim: _Claim) -> bool:
    """Whether the order's rows bear no trace of the same having been done; most actions leave another status, too."""
    order = claim.order
    if order is None:
        return False
    if claim.proposal.action is ActionKind.MODIFY_PENDING_ORDER_PAYMENT:
        return len(order.payment_history) == 1
    return not order.return_items and not order.exchange_items


def _other_address(claim: _Claim) -> bool:
    rows = claim.order or claim.customer
    return rows is not None and claim.proposal.address != rows.address


_CHECKS: Mapping[Check, Callable[[_Claim], bool]] = MappingProxyType(
    {
        Check.OWNER: _owner,
        Check.CONFIRMED: lambda claim: claim.confirmed,
        Check.AMOUNT: _amount_agreed,
        Check.ITEMS_IN_ORDER: _items_in_order,
        Check.SAME_PRODUCT: lambda claim: claim.swaps is not None,
        Check.OTHER_OPTION: _other_option,
        Check.AVAILABLE: _available,
        Check.ORIGINAL_OR_GIFT_CARD: _original_or_gift_card,
        Check.OWN_METHOD: lambda claim: claim.method is not None,
        Check.OTHER_METHOD: _other_method,
        Check.COVERED: _covered,
        Check.ONCE: _once,
        Check.OTHER_ADDRESS: _other_address,
    }
)
_REASONS: Mapping[Check, str] = MappingProxyType(
    {
        Check.OWNER: "the order is not the customer's, or not the proposal's",
        Check.CONFIRMED: "the customer has not said yes to this",
        Check.AMOUNT: "the amount is not what the order's own rows say",
        Check.ITEMS_IN_ORDER: "an item is not in the order, or not that often",
        Check.SAME_PRODUCT: "a new item is not of the same product",
        Check.OTHER_OPTION: "a new item is the one it would replace",
        Check.AVAILABLE: "a new item is not available",
        Check.ORIGINAL_OR_GIFT_CARD: "the refund goes neither to the way it was paid nor to the customer's gift card",
        Check.OWN_METHOD: "the payment method is not the customer's",
        Check.OTHER_METHOD: "the payment method is the one that paid the order",
        Check.COVERED: "the gift card does not hold enough",
        Check.ONCE: "the same was done to this order before",
        Check.OTHER_ADDRESS: "the address is the one there is",
    }
)


def _status(order: Order) -> str:
    return order.status.strip().casefold()


def _is_gift_card(method: PaymentMethod) -> bool:
    return method.source == "gift_card"
