"""What both forms of the ticket store ask of what is settled together."""

from collections.abc import Sequence

from contracts.ports import Settlement


def require_one_a_ticket(settlements: Sequence[Settlement]) -> None:
    """Raise ValueError: two are of one ticket, so the second was decided on a state that will not be there."""
    if len({settlement.ticket.ticket_id for settlement in settlements}) < len(settlements):
        raise ValueError("two settlements of one ticket cannot be stored together")
