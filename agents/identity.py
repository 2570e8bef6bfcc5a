"""Identity: whether a message is taken to come from whose address it bears."""

from dataclasses import dataclass

from contracts.ticket import Round, Ticket

EVERY_TENANT = "*"


@dataclass(frozen=True, slots=True)
class Senders:
    """What it means when a producer does not say whether the sender is verified.

    `unsaid_is_unverified`: the tenants (or `*`) for which silence means no; for all others the producer vouches for
    `from_email` by naming it. Who is not verified is told nothing of an account and moves nothing.
    """

    unsaid_is_unverified: frozenset[str] = frozenset()

    def is_verified(self, ticket: Ticket, round_: Round) -> bool:
        """Whether the round's sender is who the address says."""
        if round_.sender_verified is not None:
            return round_.sender_verified
        return not self.unsaid_is_unverified & {ticket.tenant_id, EVERY_TENANT}
