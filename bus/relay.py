"""The relay: publishes what a worker stored and did not live to publish."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bus.publisher import Publish
from contracts.errors import Permanent, Transient
from contracts.ports import Published, StoredRecord, TicketStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Relay:
    """Sweeps the outbox. Several may run: a lease keeps each row with one of them at a time.

    `older_than_s` leaves a living worker time to publish its own rows, also through a short outage.
    """

    store: TicketStore
    publish: Publish
    interval_s: float = 5.0
    older_than_s: float = 30.0
    lease_s: float = 60.0
    limit: int = 200  # rows a sweep

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            try:
                swept = await self.sweep()
            except Transient as error:
                _log.warning("the outbox could not be swept: %s", error)
                swept = 0
            if swept < self.limit:
                await asyncio.sleep(self.interval_s)

    async def sweep(self) -> int:
        """Publish one claim of rows, oldest first; returns how many there were.

        Raises BusUnavailable or StoreUnavailable: the rest of the claim comes back when its lease ends.
        """
        rows = await self.store.claim_unpublished(
            older_than_s=self.older_than_s, lease_s=self.lease_s, limit=self.limit
        )
        published: list[Published] = []
        try:
            await self._publish(rows, published)
        finally:
            if published:
                _log.info("published %d records that a worker left", len(published))
                await self.store.mark_published(published)
        return len(rows)

    async def _publish(self, rows: Sequence[StoredRecord], published: list[Published]) -> None:
        for row in rows:
            try:
                [position] = await self.publish([row.record])
            except Permanent as error:  # it stays in the outbox: nothing is dropped, and the others go on
                _log.error("outbox row %d cannot be published: %s", row.outbox_id, error)
            else:
                published.append(Published(row.outbox_id, position))
