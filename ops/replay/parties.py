"""Which tickets may see each other's changes: those of one customer of one shop."""

from collections.abc import Callable, Hashable, Iterator, Sequence

from ops.replay.inputs import Plan
from state.shop_rules import email_key


def parties(plans: Sequence[Plan], shop_of: Callable[[str], str]) -> Callable[[Plan], Hashable]:
    """Tells whose turn a ticket takes; a ticket in which several customers wrote makes theirs one.

    An agent reads and changes the rows of whoever wrote, and of another's order no more than that it is another's.
    """
    joined: dict[Hashable, Hashable] = {}

    def first(one: Hashable) -> Hashable:
        while one in joined:
            one = joined[one]
        return one

    for plan in plans:
        own, *others = _who(plan, shop_of)
        for other in others:
            if first(other) != first(own):
                joined[first(other)] = first(own)
    return lambda plan: first(next(_who(plan, shop_of)))


def _who(plan: Plan, shop_of: Callable[[str], str]) -> Iterator[Hashable]:
    """The ticket, then the customers who wrote in it."""
    ticket = plan.life.ticket
    yield "ticket", ticket.ticket_id
    for round_ in ticket.rounds:
        if round_.from_email:
            yield "customer", shop_of(ticket.tenant_id), email_key(round_.from_email)
