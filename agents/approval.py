"""Approval: what a person is asked to approve, as they change it, and whether the rules allow it now."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from agents import guard
from contracts.errors import ContractBroken
from contracts.events import ReviewRequested
from contracts.ports import Shop
from contracts.ticket import Proposal, Round, Ticket

_FIXED = frozenset({"action", "order_id", "asked_in_round", "asked_of"})  # who asked for what is not a person's to say


class Standing(NamedTuple):
    """How a proposal stands at one moment: what the guard has against it, and else the money it would move, in USD."""

    objection: str | None
    amount: Decimal | None


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
        return Proposal.model_validate(proposal.model_dump() | dict(changes))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractBroken(f"{where} of the proposal cannot be changed so: {first['msg']}") from error


async def standing(shop: Shop, ticket: Ticket, round_: Round, proposal: Proposal) -> Standing:
    """How the proposal stands on the rows as they are now."""
    customer = await shop.customer(ticket.tenant_id, round_.from_email) if round_.from_email else None
    order = await shop.order(ticket.tenant_id, proposal.order_id)
    objection = guard.objection(proposal, customer, order)
    return Standing(objection, guard.money_moved(proposal, order) if order and objection is None else None)
