"""Replies about actions on an order: refusals, proposals to confirm, and requests for what is missing."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from agents.claims import plain_name
from agents.guard import CANCEL_REASONS, RULES, Detail
from contracts.facts import Assessment
from contracts.shop import ActionKind, Address, Customer, Order, PaymentMethod
from contracts.ticket import Proposal

CONFIRM = 'Please answer "yes" to confirm, or "no" to leave everything as it is.'

_VERBS: Mapping[ActionKind, str] = MappingProxyType(
    {
        ActionKind.CANCEL_PENDING_ORDER: "cancel",
        ActionKind.MODIFY_PENDING_ORDER_ITEMS: "change the items of",
        ActionKind.MODIFY_PENDING_ORDER_ADDRESS: "change the address of",
        ActionKind.MODIFY_PENDING_ORDER_PAYMENT: "change the payment of",
        ActionKind.RETURN_DELIVERED_ORDER_ITEMS: "return items of",
        ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS: "exchange items of",
    }
)
_REQUESTS: Mapping[Detail, str] = MappingProxyType(
    {
        Detail.CANCEL_REASON: f'Please answer "yes" together with the reason: {" or ".join(CANCEL_REASONS)}.',
        Detail.ITEMS: "Please tell us which of these items it is about.",
        Detail.REFUND_TO: "You have no gift card with us, and we do not know how you paid: please tell us how you did.",
        Detail.ADDRESS: "Please send us the complete new address: street, city, state and postal code.",
        Detail.CHANGES: "Please tell us in one message everything you want changed, and into what.",
    }
)
_METHODS: Mapping[str, str] = MappingProxyType(
    {"gift_card": "gift card", "paypal": "PayPal account", "credit_card": "credit card"}
)
NOTHING_CHANGED = "All right, we have changed nothing. Write to us whenever you need anything else."


def refusal(order: Order, assessments: Sequence[Assessment]) -> str:
    """Why the action is not possible, in the policy's words, and what is possible instead."""
    refused, *others = assessments
    lines = [
        f"We cannot {_VERBS[refused.action]} your order {order.order_id}, because it is {order.status}.",
        f"Our policy says: {refused.rule}",
    ]
    return "\n".join([*lines, *(_offer(other.action) for other in others if other.eligible)])


def _offer(action: ActionKind) -> str:
    asked = [_REQUESTS[detail] for detail in RULES[action].needs]
    return " ".join([f"You can {_VERBS[action]} it instead, and get back what you paid.", *asked])


def confirmation(proposal: Proposal, order: Order, customer: Customer, amount: Decimal) -> str:
    """Everything the customer says yes to."""
    return f"{details(proposal, order, customer, amount)}\n{CONFIRM}"


def request(missing: Sequence[Detail], proposal: Proposal, order: Order, customer: Customer, amount: Decimal) -> str:
    """What is known so far, and the question for the rest."""
    asked = [_REQUESTS[detail] for detail in missing]
    return "\n".join([details(proposal, order, customer, amount), *asked])


def details(proposal: Proposal, order: Order, customer: Customer, amount: Decimal) -> str:
    """The action with its order, items, money and address."""
    verb = _VERBS[proposal.action]
    lines = [f"You would like to {verb} your order {order.order_id} ({', '.join(_names(proposal, order))})."]
    if proposal.reason:
        lines.append(f"Reason: {proposal.reason}.")
    if proposal.action is ActionKind.CANCEL_PENDING_ORDER:
        lines.append(f"We would refund ${amount:.2f} to the way you paid.")
    if proposal.payment_method_id:
        lines.append(f"We would refund ${amount:.2f} to your {_method(customer, proposal.payment_method_id)}.")
    if proposal.address:
        lines.append(f"New address: {_line(proposal.address)}.")
    return "\n".join(lines)


def _names(proposal: Proposal, order: Order) -> list[str]:
    name_of = {item.item_id: plain_name(item.name) for item in order.items}
    chosen = proposal.item_ids or [item.item_id for item in order.items]
    return sorted(name_of[item_id] for item_id in chosen if item_id in name_of)


def _method(customer: Customer, method_id: str) -> str:
    method = customer.payment_methods.get(method_id)
    return _described(method) if method else "original payment method"


def _described(method: PaymentMethod) -> str:
    kind = _METHODS.get(method.source, method.source)
    return f"{kind} ending in {method.last_four}" if method.last_four else kind


def _line(address: Address) -> str:
    parts = (address.address1, address.address2, address.city, address.state, address.zip, address.country)
    return ", ".join(part for part in parts if part)
