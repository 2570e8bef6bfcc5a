"""A relay's tenure: the names under which outbox rows are its own, each for as long as its lease holds."""

import time
from dataclasses import dataclass, field

from contracts.ports import Leases, worker_lease


@dataclass(slots=True)
class Tenure:
    """Holds two leases: for the rows of steps its worker stores (`owner`), and for rows taken over (`sweeper`).

    Two, so that a step which is stored while a take-over is on its way cannot overtake what that brings: rows in
    the sweeper's hands are in other hands than the owner's. A name that was given up is never used again, so a
    row that comes under it, however late, is known to be nobody's.
    """

    leases: Leases
    owner: str
    lease_s: float
    sweeper: str = field(init=False)
    _first_owner: str = field(init=False)
    _owners: int = 0
    _sweepers: int = 0
    _until: float | None = None  # by our own clock: the database's leases end no earlier

    def __post_init__(self) -> None:
        self._first_owner = self.owner
        self._name_sweeper()

    def is_sure(self) -> bool:
        """Whether nobody else can have taken our rows over: False after we were frozen for too long."""
        return self._until is not None and time.monotonic() < self._until

    async def renew(self) -> bool:
        """Take or renew both leases; False: one is lost, or may have been for a while. Raises StoreUnavailable."""
        if self._until is not None and not self.is_sure():
            return False
        asked = time.monotonic()
        for name in (self.owner, self.sweeper):
            if not await self.leases.hold(worker_lease(name), name, lease_s=self.lease_s):
                return False
        self._until = asked + self.lease_s
        return self.is_sure()

    async def replace_sweeper(self) -> None:
        """Sweep under a new name: what a take-over without an answer brought is free when the old lease ends.

        Raises StoreUnavailable.
        """
        self._name_sweeper()
        await self.leases.hold(worker_lease(self.sweeper), self.sweeper, lease_s=self.lease_s)

    async def replace(self) -> None:
        """Give both names up, so that their rows are anybody's, and go on under new ones.

        Raises StoreUnavailable: the old ones are given up all the same, when their leases end.
        """
        old = (self.owner, self.sweeper)
        self._owners += 1
        self.owner = f"{self._first_owner}.{self._owners}"
        self._name_sweeper()
        self._until = None
        await self._release(old)
        await self.renew()

    async def end(self) -> None:
        """Give both leases back: what is unpublished is free at once. Raises StoreUnavailable."""
        self._until = None
        await self._release((self.owner, self.sweeper))

    def _name_sweeper(self) -> None:
        self._sweepers += 1
        self.sweeper = f"{self.owner}/sweeper-{self._sweepers}"

    async def _release(self, names: tuple[str, ...]) -> None:
        for name in names:
            await self.leases.release(worker_lease(name), name)
