"""Facts: finds the orders a customer writes about, among the customer's own and no others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.identity import Senders
from agents.order_refs import same_order
from contracts.facts import Facts, LookupOutcome, OrderFacts
from contracts.ports import Shop
from contracts.shop import Customer, Order
from contracts.ticket import Round, Ticket


@dataclass(frozen=True, slots=True)
class Found:
    """The facts of a round, and the rows they come from for code that decides on them."""

    facts: Facts
    customer: Customer | None = None
    orders: tuple[Order, ...] = ()

    @property
    def only_order(self) -> Order | None:
        """The one order meant, when there is one."""
        found = self.facts.outcome is LookupOutcome.FOUND and len(self.orders) == 1
        return self.orders[0] if found else None


async def find(shop: Shop, ticket: Ticket, round_: Round, senders: Senders) -> Found:
    """Search the orders of the customer who wrote the round, and those alone.

    Only their own orders are ever read, so somebody else's order and an unknown one cannot be told apart. Of a sender
    who is not verified nothing is read at all, so nothing tells whether there is such a customer.
    """
    if not senders.is_verified(ticket, round_):
        return Found(Facts(outcome=LookupOutcome.UNVERIFIED))
    tenant_id, email, refs = ticket.tenant_id, round_.from_email, round_.order_refs
    customer = await shop.customer(tenant_id, email) if email else None
    if customer is None:
        return Found(Facts(outcome=LookupOutcome.UNKNOWN_CUSTOMER))
    own = await shop.orders_of(tenant_id, customer.user_id)
    orders = tuple(order for order in own if not refs or _is_meant(order, refs))
    outcome = _outcome(own, orders, by_reference=bool(refs))
    return Found(Facts(outcome=outcome, orders=tuple(map(order_facts, orders))), customer, orders)


def order_facts(order: Order) -> OrderFacts:
    """What a customer may be told about their order."""
    items = tuple(sorted(item.name for item in order.items))
    return OrderFacts(order_id=order.order_id, status=order.status, tracking_ids=order.tracking_ids, items=items)


def _is_meant(order: Order, refs: Iterable[str]) -> bool:
    return any(same_order(ref, order.order_id) or ref in order.tracking_ids for ref in refs)


def _outcome(own: Sequence[Order], meant: Sequence[Order], *, by_reference: bool) -> LookupOutcome:
    if by_reference:
        return LookupOutcome.FOUND if meant else LookupOutcome.NOT_FOUND
    if not own:
        return LookupOutcome.NO_ORDERS
    return LookupOutcome.FOUND if len(own) == 1 else LookupOutcome.AMBIGUOUS
