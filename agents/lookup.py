"""Lookup: answers what the order database can answer, for the customer who asks only. No model."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agents.facts import Found, find
from agents.identity import Senders
from agents.replies import tell_orders
from agents.which_order import ask_for_the_order
from contracts.events import Event, LookupRequested
from contracts.facts import LookupOutcome
from contracts.ports import Shop
from contracts.shop import Passage
from contracts.ticket import Desk, Round, Signature, Step, Ticket, close
from contracts.values import Disposition, Label

_SHIPPING = re.compile(r"\b(?:shipping|delivery|deliveries)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Tells a customer where their orders stand, or asks which one they mean.

    Consumes LookupRequested. Emits the round's outcome and the reply. Somebody else's order and an unknown one
    get the same answer. A general question about shipping is answered with the policy's own words, if it has any.
    """

    shop: Shop
    version: str
    senders: Senders = field(default_factory=Senders)
    name: str = field(default="lookup", init=False)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Answer the round if it is still at this desk."""
        if not isinstance(event.data, LookupRequested):
            return Step(ticket)
        round_ = ticket.round(event.data.round)
        if round_.desk is not Desk.LOOKUP:
            return Step(ticket)
        found = await find(self.shop, ticket, round_, self.senders)
        round_ = round_.model_copy(update={"lookup": found.facts})
        reply = await self._reply(ticket, round_, found)
        by = Signature(self.name, self.version)
        if reply is None:
            return ask_for_the_order(ticket, round_, found.facts, Desk.LOOKUP, by)
        return close(ticket, round_, Disposition.ANSWERED, by, reply=reply)

    async def _reply(self, ticket: Ticket, round_: Round, found: Found) -> str | None:
        is_found = found.facts.outcome is LookupOutcome.FOUND
        told = [tell_orders(found.facts.orders, round_.language)] if is_found else []
        if round_.label is Label.SHIPPING_INFO and not round_.order_refs:
            terms = shipping_terms(await self.shop.policy(ticket.tenant_id))
            return "\n\n".join([*terms, *told]) or None
        return told[0] if told else None


def shipping_terms(passages: Iterable[Passage]) -> Sequence[str]:
    """What the policy says under its headings about shipping; empty when it has none."""
    return [p.text for p in passages if _SHIPPING.search(p.heading.rsplit(" > ", 1)[-1])]
