"""Tickets, inbox and outbox in memory: the same promises, kept by doing each step without a pause."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from contracts.errors import TenantMismatch, VersionConflict
from contracts.ports import OutgoingRecord, Position, Published, Settlement, StoredRecord, TimelineEntry
from contracts.ticket import Ticket
from state import timeline
from state.documents import from_json, to_json
from state.effects import MemoryEffects


@dataclass(frozen=True, slots=True)
class _Handled:
    settlement: Settlement
    version: int
    at: datetime


@dataclass(slots=True)
class _Waiting:
    stored: StoredRecord
    group: str
    caused_by: str
    at: datetime
    claimed_until: datetime
    published: Position | None = None

    @property
    def record(self) -> OutgoingRecord:
        return self.stored.record


@dataclass(slots=True)
class MemoryTickets:
    """TicketStore and Timelines; the timeline also tells of `effects` where they are given."""

    effects: MemoryEffects | None = None
    _tickets: dict[str, tuple[int, str]] = field(default_factory=dict)  # version and document, as a row holds them
    _inbox: dict[tuple[str, str], _Handled] = field(default_factory=dict)
    _outbox: list[_Waiting] = field(default_factory=list)

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""
        return self._load(ticket_id)

    async def handled(self, group: str, event_id: str) -> bool:
        """Whether the group has settled this event."""
        return (group, event_id) in self._inbox

    async def settle(self, settlement: Settlement) -> Sequence[StoredRecord] | None:
        """Store inbox row, ticket and outbox rows, or nothing; see the port."""
        ticket = settlement.ticket
        document = to_json(ticket, exclude={"version"})
        key = (settlement.group, settlement.event.id)
        if key in self._inbox:
            return None
        self._refuse_stale(ticket)
        version = ticket.version + (0 if self._holds(ticket.ticket_id, document) else 1)
        self._tickets[ticket.ticket_id] = (version, document)
        self._inbox[key] = _Handled(settlement, version, _now())
        return [self._store(record, settlement) for record in settlement.outgoing]

    async def claim_unpublished(self, *, older_than_s: float, lease_s: float, limit: int) -> Sequence[StoredRecord]:
        """Lease what lies unpublished, oldest first; a ticket's records go to one claimant at a time."""
        now = _now()
        unpublished = [row for row in self._outbox if row.published is None]
        in_hands = {row.record.ticket_id for row in unpublished if row.claimed_until > now}
        mine = [
            row
            for row in unpublished
            if row.at <= now - timedelta(seconds=older_than_s) and row.record.ticket_id not in in_hands
        ][:limit]
        for row in mine:
            row.claimed_until = now + timedelta(seconds=lease_s)
        return [row.stored for row in mine]

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that outbox rows were acknowledged by Kafka; the first note on a row stays."""
        for one in published:
            row = self._outbox[one.outbox_id - 1]
            row.published = row.published or one.position

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Everything known of the ticket, oldest first."""
        handled = [
            TimelineEntry(row.at, timeline.HANDLED, timeline.handled(row.settlement, row.version))
            for row in self._inbox.values()
            if row.settlement.ticket.ticket_id == ticket_id
        ]
        emitted = [
            TimelineEntry(
                row.at, timeline.EMITTED, timeline.emitted(row.record, row.group, row.caused_by, row.published)
            )
            for row in self._outbox
            if row.record.ticket_id == ticket_id
        ]
        effects = self.effects.entries_of(ticket_id) if self.effects else []
        return sorted([*handled, *emitted, *effects], key=lambda entry: entry.at)

    def _load(self, ticket_id: str) -> Ticket | None:
        if ticket_id not in self._tickets:
            return None
        version, document = self._tickets[ticket_id]
        return from_json(Ticket, document).model_copy(update={"version": version})

    def _refuse_stale(self, ticket: Ticket) -> None:
        stored = self._load(ticket.ticket_id)
        if stored is not None and stored.tenant_id != ticket.tenant_id:
            raise TenantMismatch(f"ticket {ticket.ticket_id} is another tenant's")
        if (stored.version if stored else 0) != ticket.version:
            raise VersionConflict(f"ticket {ticket.ticket_id} is no longer at version {ticket.version}")

    def _holds(self, ticket_id: str, document: str) -> bool:
        stored = self._tickets.get(ticket_id)
        return stored is not None and json.loads(stored[1]) == json.loads(document)

    def _store(self, record: OutgoingRecord, settlement: Settlement) -> StoredRecord:
        stored = StoredRecord(len(self._outbox) + 1, record)
        now = _now()
        self._outbox.append(_Waiting(stored, settlement.group, settlement.event.id, now, claimed_until=now))
        return stored


def _now() -> datetime:
    return datetime.now(UTC)
