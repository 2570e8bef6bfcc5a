"""Details: turns what a model read in the customer's words into a proposal made of the customer's own rows."""

from collections import Counter
from collections.abc import Sequence

from agents import guard
from agents.answers import AddressParts, ReasoningProposal
from agents.case import OrderCase
from agents.claims import claims
from agents.followups import cancel_reason
from agents.variants import new_items
from contracts.order_rows import paid_by_method
from contracts.shop import ActionKind, Address, Order
from contracts.ticket import Proposal

_SPELLED_OTHERWISE = ("state", "country")
_MAX_SPELLED_CHARS = 20


def proposed(case: OrderCase, action: ActionKind, wish: ReasoningProposal) -> Proposal:
    """The proposal as far as the customer's words and rows go, beginning from the one that the round answers."""
    before = case.answered if case.answered and case.answered.action is action else _empty(case, action)
    details: dict[str, object] = {"asked_in_round": case.round_.number}
    match action:
        case ActionKind.CANCEL_PENDING_ORDER:
            stated = cancel_reason(case.round_.body) or cancel_reason(case.said)
            details["reason"] = stated or before.reason or wish.cancel_reason
        case ActionKind.RETURN_DELIVERED_ORDER_ITEMS:
            details["item_ids"] = _item_ids(case.order, wish.items, before.item_ids)
            details["payment_method_id"] = _refund_to(case, wish.refund_to, before.payment_method_id)
        case ActionKind.MODIFY_PENDING_ORDER_ITEMS | ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS:
            if wish.changes:
                details["item_ids"], details["new_item_ids"] = new_items(case.order, case.products, wish.changes)
            details["payment_method_id"] = _pay_with(case, wish.pay_with, before.payment_method_id or _original(case))
        case ActionKind.MODIFY_PENDING_ORDER_PAYMENT:
            details["payment_method_id"] = _pay_with(case, wish.pay_with, before.payment_method_id)
        case ActionKind.MODIFY_PENDING_ORDER_ADDRESS:
            details["address"] = _address(case, wish.new_address, before.address)
        case _:
            pass
    return before.model_copy(update=details)


def alternative(case: OrderCase) -> Proposal | None:
    """The eligible action that the guard named beside the one asked for."""
    others = [assessment.action for assessment in case.round_.assessment[1:] if assessment.eligible]
    return _empty(case, others[0]) if others else None


def plainly_proposed(case: OrderCase) -> Proposal | None:
    """What no model is needed to read: a first wish to cancel, with a reason that the policy knows."""
    if case.answered or case.round_.assessment[0].action is not ActionKind.CANCEL_PENDING_ORDER:
        return None
    proposal = with_stated_reason(_empty(case, ActionKind.CANCEL_PENDING_ORDER), case.said)
    return proposal if proposal.reason else None


def with_stated_reason(proposal: Proposal, text: str) -> Proposal:
    """The proposal with the reason for cancelling that the text gives, if it gives one."""
    stated = cancel_reason(text) if proposal.action is ActionKind.CANCEL_PENDING_ORDER else None
    return proposal.model_copy(update={"reason": stated or proposal.reason})


def _empty(case: OrderCase, action: ActionKind) -> Proposal:
    asked = {"asked_in_round": case.round_.number, "asked_of": case.round_.from_email}
    return Proposal.model_validate({"action": action, "order_id": case.order.order_id, **asked})


def _item_ids(order: Order, named: Sequence[str], before: tuple[str, ...]) -> tuple[str, ...]:
    """The pieces named, each as often as named; all when none is; none when a name fits no piece left."""
    if not named:
        return before or tuple(item.item_id for item in order.items)
    left = Counter(item.item_id for item in order.items)
    chosen = list[str]()
    for name in named:
        fits = [i.item_id for i in order.items if _names(name, i.item_id, i.name) and left[i.item_id] > 0]
        if not fits:
            return ()
        left[fits[0]] -= 1
        chosen.append(fits[0])
    return tuple(chosen)


def _names(named: str, item_id: str, name: str) -> bool:
    return named.strip() == item_id or named.strip().casefold() == name.casefold()


def _refund_to(case: OrderCase, wanted: str | None, before: str | None) -> str | None:
    methods = guard.refund_methods(case.order, case.customer)
    if wanted == "gift_card":
        cards = [key for key, method in case.customer.payment_methods.items() if method.source == wanted]
        return cards[0] if cards else None
    if wanted is None and before in methods:
        return before
    return methods[0] if methods else None


def _original(case: OrderCase) -> str | None:
    """What paid the order, if it can pay again."""
    return next((method for method in paid_by_method(case.order) if method in case.customer.payment_methods), None)


def _pay_with(case: OrderCase, wanted: str | None, before: str | None) -> str | None:
    """The customer's one method of that kind; none when they have several and did not pay with one of them."""
    if wanted is None:
        return before
    if wanted == "original":
        return _original(case)
    of_kind = [key for key, method in case.customer.payment_methods.items() if method.source == wanted]
    return of_kind[0] if len(of_kind) == 1 else None


def _address(case: OrderCase, parts: AddressParts | None, before: Address | None) -> Address | None:
    if parts is None:
        return before
    given = {name: part for name, part in parts.model_dump().items() if part and _is_theirs(name, part, case.said)}
    known = before or Address(address1="", city="", country=case.order.address.country)
    return known.model_copy(update=given)


def _is_theirs(name: str, part: str, said: str) -> bool:
    """Whether the customer wrote this part of an address. States and countries may be spelled otherwise."""
    if any(claims(part)):
        return False
    spelled = name in _SPELLED_OTHERWISE and len(part) <= _MAX_SPELLED_CHARS and part.replace(" ", "").isalpha()
    return spelled or _plain(part) in _plain(said)


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
