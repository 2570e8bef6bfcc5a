"""Expiry: a round whose deadline passed while nothing moved on its ticket gets its outcome all the same."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from bus.backoff import outlast
from bus.lease import Lease
from bus.outgoing import outgoing_of
from contracts.errors import Permanent, VersionConflict
from contracts.events import Event, RoundExpired, caused_id
from contracts.ports import Position, Settled, Settlement, Stored, StoredRecord, Stores
from contracts.ticket import Round, Signature, Ticket, time_out

_log = logging.getLogger(__name__)
_GROUP = "expiry"
_NOWHERE = Position("", -1, -1)  # the event was on no topic


class Sweep:
    """Ends overdue rounds, each once: the event it settles has an id of the round's own. One sweep works at a time.

    What it stores under the name that `owner` gives at that moment is handed to `publish`, with the name.
    """

    def __init__(
        self,
        stores: Stores,
        owner: Callable[[], str],
        by: Signature,
        publish: Callable[[Sequence[StoredRecord], str], None],
        *,
        grace_s: float = 5.0,  # past the deadline, left to whoever has the round
        interval_s: float = 2.0,
        limit: int = 200,  # tickets in one statement
        lease_s: float = 10.0,
    ) -> None:
        self._tickets = stores.tickets
        self._owner = owner
        self._by = Signature(_GROUP, by.version)
        self._publish = publish
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._limit = limit
        self._lease = Lease(stores.leases, _GROUP, owner(), lease_s=lease_s)

    async def run(self) -> None:
        """Sweep again and again while the lease is ours, until cancelled. An outage of the store is waited out."""
        try:
            while True:
                while await outlast(self._lease.held) and await self.sweep():
                    pass  # there may be more tickets, or more rounds of one
                await asyncio.sleep(self._interval_s)
        finally:
            await self._lease.give_back()

    async def sweep(self) -> int:
        """End the most overdue round of each ticket found; returns how many were ended.

        A ticket that moves on at the same moment is looked at again in the next sweep. An outage is waited out with
        the settlements in hand: whether they are stored is known only then, and what they emit is ours to publish.
        """
        tickets = await outlast(lambda: self._tickets.overdue(grace_s=self._grace_s, limit=self._limit))
        settlements = [settlement for ticket in tickets if (settlement := self._expired(ticket)) is not None]
        if not settlements:
            return 0
        owner, results = await outlast(lambda: self._settle(settlements))
        return sum([self._finish(*one, owner) for one in zip(settlements, results, strict=True)])

    async def _settle(self, settlements: Sequence[Settlement]) -> tuple[str, Sequence[Settled]]:
        owner = self._owner()
        return owner, await self._tickets.settle(settlements, owner)

    def _expired(self, ticket: Ticket) -> Settlement | None:
        round_ = _most_overdue(ticket)
        event = _expiry_of(ticket, round_)
        step = time_out(ticket, event, self._by)
        try:
            return Settlement(_GROUP, event, _NOWHERE, step.ticket, outgoing_of(step, event, self._by))
        except Permanent as error:
            _log.error("the round %d of ticket %s cannot expire: %s", round_.number, ticket.ticket_id, error)
            return None

    def _finish(self, settlement: Settlement, result: Settled, owner: str) -> bool:
        match result:
            case Stored():
                _log.info("the deadline of ticket %s had passed", settlement.ticket.ticket_id)
                self._publish(result.records, owner)
                return True
            case Permanent():
                _log.error("ticket %s cannot expire: %s", settlement.ticket.ticket_id, result)
            case VersionConflict() | None:
                pass  # it has moved on, or another sweep was faster
        return False


def _most_overdue(ticket: Ticket) -> Round:
    timed = [(one.deadline, one) for one in ticket.rounds if one.can_time_out and one.deadline is not None]
    return min(timed, key=lambda pair: pair[0])[1]


def _expiry_of(ticket: Ticket, round_: Round) -> Event:
    return Event(
        id=caused_id(round_.event_id, _GROUP, 0),
        source=f"urn:switchyard:{_GROUP}",
        time=datetime.now(UTC),
        data=RoundExpired(ticket_id=ticket.ticket_id, tenant_id=ticket.tenant_id, round=round_.number),
        deadline=round_.deadline,
        causation_id=round_.event_id,
    )
