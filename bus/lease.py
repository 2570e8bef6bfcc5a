"""A lease, kept: taken where it is free, renewed in time, given back."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from contracts.errors import Outage
from contracts.ports import Leases

_log = logging.getLogger(__name__)
_GIVE_BACK_TIMEOUT_S = 1.0


class Lease:
    """One name that this owner wants. Ask `held` again and again; a lease that nobody asks for ends."""

    def __init__(self, leases: Leases, name: str, owner: str, *, lease_s: float) -> None:
        self._leases = leases
        self._name = name
        self._owner = owner
        self._lease_s = lease_s
        self._ends_at = 0.0  # by our clock, and no later than by the database's
        self._ask_at = 0.0

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have it at this moment."""
        return time.monotonic() < self._ends_at

    async def held(self) -> bool:
        """Whether we have it; asks for it where it is time to. Raises StoreUnavailable: it may end meanwhile."""
        asked_at = time.monotonic()
        if asked_at >= self._ask_at:
            had = await self._leases.hold(self._name, self._owner, lease_s=self._lease_s)
            self._ends_at = asked_at + self._lease_s if had else 0.0
            self._ask_at = asked_at + self._lease_s / 4
        return self.is_ours

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep a lease that we have while inside, then give it back. `is_ours` tells when that did not succeed."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await self.give_back()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            try:
                await self.held()
            except Outage as error:
                _log.info("the lease %s could not be renewed: %s", self._name, error)

    async def give_back(self) -> None:
        """Let others have it at once; where the store is away, when it ends."""
        self._ends_at = self._ask_at = 0.0
        try:
            async with asyncio.timeout(_GIVE_BACK_TIMEOUT_S):
                await self._leases.release(self._name, self._owner)
        except (Outage, TimeoutError) as error:
            _log.info("the lease %s was not given back: %s", self._name, error)
