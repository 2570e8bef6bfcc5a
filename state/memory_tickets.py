"""Tickets and inbox in memory: the same promises, kept by doing each step without a pause."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from contracts.errors import ContractBroken, TenantMismatch, VersionConflict
from contracts.ports import Known, Settled, Settlement, Stored, TimelineEntry, Wanted
from contracts.ticket import Ticket
from state import timeline
from state.documents import from_json, to_json
from state.effects import MemoryEffects
from state.outbox import MemoryOutbox
from state.reviews import MemoryReviews
from state.settling import require_one_a_ticket


@dataclass(frozen=True, slots=True)
class _Handled:
    settlement: Settlement
    version: int
    at: datetime


def _none_parked(_group: str) -> Collection[str]:
    return ()


@dataclass(slots=True)
class MemoryTickets:
    """TicketStore and Timelines; the timeline also tells of `effects` and `reviews` where they are given."""

    effects: MemoryEffects | None = None
    reviews: MemoryReviews | None = None
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    parked_of: Callable[[str], Collection[str]] = _none_parked  # the ids of a group's parked tickets
    _tickets: dict[str, tuple[int, str]] = field(default_factory=dict)  # version and document, as a row holds them
    _inbox: dict[tuple[str, str], _Handled] = field(default_factory=dict)

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""
        return self._load(ticket_id)

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        """What is known of many records."""
        handled = frozenset(one.event_id for one in wanted if (group, one.event_id) in self._inbox)
        found = (self._load(ticket_id) for ticket_id in {one.ticket_id for one in wanted if one.with_ticket})
        parked = self.parked_of(group)
        return Known(
            handled,
            {ticket.ticket_id: ticket for ticket in found if ticket is not None},
            frozenset(one.ticket_id for one in wanted if one.ticket_id in parked),
        )

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        """Store inbox row, ticket and outbox rows of each, or nothing; see the port."""
        require_one_a_ticket(settlements)
        return [self._settle(settlement, owner) for settlement in settlements]

    async def overdue(self, *, grace_s: float, limit: int) -> Sequence[Ticket]:
        """Tickets with an open round whose deadline passed more than `grace_s` ago, longest ago first."""
        latest = datetime.now(UTC) - timedelta(seconds=grace_s)
        tickets = (ticket for ticket_id in self._tickets if (ticket := self._load(ticket_id)) is not None)
        late = [(ticket.deadline, ticket) for ticket in tickets if ticket.deadline and ticket.deadline < latest]
        return [ticket for _, ticket in sorted(late, key=lambda pair: pair[0])[:limit]]

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Everything known of the ticket, oldest first."""
        handled = [
            TimelineEntry(row.at, timeline.HANDLED, timeline.handled(row.settlement, row.version))
            for row in self._inbox.values()
            if row.settlement.ticket.ticket_id == ticket_id
        ]
        effects = self.effects.entries_of(ticket_id) if self.effects else []
        decided = self.reviews.entries_of(ticket_id) if self.reviews else []
        return sorted([*handled, *self.outbox.entries_of(ticket_id), *effects, *decided], key=lambda entry: entry.at)

    def _load(self, ticket_id: str) -> Ticket | None:
        if ticket_id not in self._tickets:
            return None
        version, document = self._tickets[ticket_id]
        return from_json(Ticket, document).model_copy(update={"version": version})

    def _settle(self, settlement: Settlement, owner: str) -> Settled:
        ticket = settlement.ticket
        try:
            document = to_json(ticket, exclude={"version"})
        except ContractBroken as error:
            return error
        unchanged = self._holds(ticket.ticket_id, document)
        key = (settlement.group, settlement.event.id)
        if key in self._inbox:
            left = self.outbox.left_of(settlement, owner or None)
            version = self._tickets[ticket.ticket_id][0] if unchanged else 0
            return Stored(version, tuple(left)) if left else None
        stale = self._stale(ticket)
        if stale is not None:
            return stale
        version = ticket.version + (0 if unchanged else 1)
        self._tickets[ticket.ticket_id] = (version, document)
        self._inbox[key] = _Handled(settlement, version, datetime.now(UTC))
        return Stored(version, tuple(self.outbox.store(settlement, owner or None)))

    def _stale(self, ticket: Ticket) -> VersionConflict | TenantMismatch | None:
        stored = self._load(ticket.ticket_id)
        if stored is not None and stored.tenant_id != ticket.tenant_id:
            return TenantMismatch(f"ticket {ticket.ticket_id} is another tenant's")
        if (stored.version if stored else 0) != ticket.version:
            return VersionConflict(f"ticket {ticket.ticket_id} is no longer at version {ticket.version}")
        return None

    def _holds(self, ticket_id: str, document: str) -> bool:
        stored = self._tickets.get(ticket_id)
        return stored is not None and json.loads(stored[1]) == json.loads(document)
