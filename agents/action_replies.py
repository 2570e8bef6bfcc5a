"""Replies about actions on an order: refusals, proposals to confirm, and requests for what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from agents.claims import plain_name
from agents.guard import CANCEL_REASONS
from agents.replies import difference
from agents.rules import RULES, Detail
from contracts.facts import Assessment
from contracts.order_rows import Swap, swaps_of
from contracts.shop import ActionKind, Address, Customer, Order, PaymentMethod, Product
from contracts.ticket import Proposal

_ALL_AT_ONCE = "Please check that this is all you want to change: it can be done once, and the order stays so then."
CONFIRM = 'Please answer "yes" to confirm, or "no" to leave everything as it is.'

_VERBS: Mapping[ActionKind, str] = MappingProxyType(
    {
        ActionKind.CANCEL_PENDING_ORDER: "cancel",
        ActionKind.MODIFY_PENDING_ORDER_ITEMS: "change the items of",
        ActionKind.MODIFY_PENDING_ORDER_ADDRESS: "change the address of",
        ActionKind.MODIFY_PENDING_ORDER_PAYMENT: "change the payment of",
        ActionKind.RETURN_DELIVERED_ORDER_ITEMS: "return items of",
        ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS: "exchange items of",
        ActionKind.MODIFY_USER_ADDRESS: "change the default address instead of that of",
    }
)
_REQUESTS: Mapping[Detail, str] = MappingProxyType(
    {
        Detail.CANCEL_REASON: f'Please answer "yes" together with the reason: {" or ".join(CANCEL_REASONS)}.',
        Detail.ITEMS: "Please tell us which of these items it is about.",
        Detail.REFUND_TO: "You have no gift card with us, and we do not know how you paid: please tell us how you did.",
        Detail.PAY_WITH: "Please tell us which of your payment methods pays, or gets money back.",
        Detail.ADDRESS: "Please send us the complete new address: street, city, state and postal code.",
        Detail.NEW_ITEMS: "Please tell us in one message everything you want changed, and into what.",
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


@dataclass(frozen=True, slots=True)
class Known:
    """A proposal, the rows it is about, and the money it moves."""

    proposal: Proposal
    order: Order
    customer: Customer
    products: Mapping[str, Product]
    amount: Decimal


def confirmation(known: Known) -> str:
    """Everything the customer says yes to."""
    return f"{details(known)}\n{CONFIRM}"


def request(missing: Sequence[Detail], known: Known) -> str:
    """What is known so far, and the question for the rest."""
    return "\n".join([details(known), *(_REQUESTS[detail] for detail in missing)])


def details(known: Known) -> str:
    """The action with its order, items, money and address."""
    proposal, order = known.proposal, known.order
    verb = _VERBS[proposal.action]
    lines = [f"You would like to {verb} your order {order.order_id} ({', '.join(_names(proposal, order))})."]
    if proposal.reason:
        lines.append(f"Reason: {proposal.reason}.")
    lines.extend(_money(known))
    if proposal.address:
        lines.append(f"New address: {_line(proposal.address)}.")
    return "\n".join(lines)


def _money(known: Known) -> Iterator[str]:
    proposal, amount = known.proposal, known.amount
    method = _method(known.customer, proposal.payment_method_id) if proposal.payment_method_id else None
    match proposal.action:
        case ActionKind.CANCEL_PENDING_ORDER:
            yield f"We would refund ${amount:.2f} to the way you paid."
        case ActionKind.RETURN_DELIVERED_ORDER_ITEMS if method:
            yield f"We would refund ${amount:.2f} to your {method}."
        case ActionKind.MODIFY_PENDING_ORDER_PAYMENT if method:
            yield f"Your {method} would pay the ${amount:.2f}, and the way you paid first would get it back."
        case ActionKind.MODIFY_PENDING_ORDER_ITEMS | ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS:
            swaps = swaps_of(known.order, proposal.item_ids, proposal.new_item_ids, known.products)
            if swaps and method:
                yield from map(_swapped, swaps)
                yield f"{difference(amount)} It is settled with your {method}."
                yield _ALL_AT_ONCE
        case _:
            pass


def _swapped(swap: Swap) -> str:
    new = ", ".join(f"{name} {value}" for name, value in swap.variant.options.items())
    return f"- {swap.piece.name} for ${swap.piece.price:.2f}: instead {new}, for ${swap.variant.price:.2f}."


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
