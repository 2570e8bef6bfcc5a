"""Approval: what a person is asked to approve, as they change it, and whether the rules allow it now."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from agents import guard
from agents.rules import RULES, Rules
from contracts.errors import ContractBroken
from contracts.events import ReviewRequested
from contracts.ports import Shop
from contracts.ticket import Proposal, Round, Ticket

_FIXED = frozenset({"action", "order_id", "asked_in_round", "asked_of", "amount"})  # said by customer and rows


class Standing(NamedTuple):
    """How a proposal stands at one moment: with its money, and what the guard has against it."""

    proposal: Proposal
    objection: str | None


def proposal_in(asked: ReviewRequested) -> Proposal | None:
    """The action that the evidence proposes, if it does."""
    proposed = asked.evidence.get("proposal")
    return Proposal.model_validate(proposed, extra="ignore") if proposed else None


def draft_in(asked: ReviewRequested) -> str:
    """The reply that the evidence drafts; empty when there is none."""
    return str(asked.evidence.get("draft") or "")


def changed(proposal: Proposal | None, changes: Mapping[str, Any]) -> Proposal | None:
    """The proposal with a person's changes. Raises ContractBroken: it has no such field, or the value does not fit."""
    if not changes:
        return proposal
    if proposal is None:
        raise ContractBroken("no action is proposed that could be changed")
    if wrong := _FIXED & set(changes):
        raise ContractBroken(f"{', '.join(sorted(wrong))} of a proposal cannot be changed")
    try:
        return Proposal.model_validate(proposal.model_dump() | {"amount": None} | dict(changes))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractBroken(f"{where} of the proposal cannot be changed so: {first['msg']}") from error


async def standing(shop: Shop, ticket: Ticket, round_: Round, proposal: Proposal, rules: Rules = RULES) -> Standing:
    """How the proposal stands on the rows as they are now, once a person vouches for the customer's yes.

    Money that the proposal names must still be what the rows say; where it names none, it is put in.
    """
    customer = await shop.customer(ticket.tenant_id, round_.from_email) if round_.from_email else None
    order = await shop.order(ticket.tenant_id, proposal.order_id) if proposal.order_id else None
    products = await shop.products(ticket.tenant_id, {item.product_id for item in order.items} if order else ())
    if proposal.amount is None:
        proposal = guard.priced(proposal, order, products, rules)
    passages = await shop.policy(ticket.tenant_id)
    objection = guard.objection(
        proposal, customer, order, confirmed=True, products=products, rules=rules, passages=passages
    )
    return Standing(proposal, objection)
