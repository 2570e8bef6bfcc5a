"""Commands: what carries a proposal out, filled with those of its details that the action has."""

from contracts.events import ACTION_OF_COMMAND, ShopCommand
from contracts.ticket import Proposal, Round, Ticket, effect_key


def command_for(proposal: Proposal, ticket: Ticket, round_: Round) -> ShopCommand:
    """The command of a proposal that the guard accepted."""
    kind = next(kind for kind, action in ACTION_OF_COMMAND.items() if action is proposal.action)
    details: dict[str, object] = {
        "ticket_id": ticket.ticket_id,
        "tenant_id": ticket.tenant_id,
        "effect_key": effect_key(ticket, round_.number, proposal.action),
        "round": round_.number,
        "order_id": proposal.order_id,
        "reason": proposal.reason,
        "item_ids": proposal.item_ids,
        "new_item_ids": proposal.new_item_ids,
        "payment_method_id": proposal.payment_method_id,
        "address": proposal.address,
        "amount": proposal.amount,
        "difference": proposal.amount,
    }
    return kind.model_validate({name: details[name] for name in kind.model_fields if name in details})
