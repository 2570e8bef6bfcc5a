"""Leases: a right that one holder has for a while, by the clock of the database."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg

from state.pool import borrowed

_HOLD = """
INSERT INTO leases AS held (name, owner, expires_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
WHERE held.owner = excluded.owner OR held.expires_at <= clock_timestamp()
RETURNING true
"""

# It ends rather than disappears: a worker that left is told apart from one that has no lease yet.
_RELEASE = "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND owner = $2"

HOLDER = "SELECT owner FROM leases WHERE name = $1 AND expires_at > clock_timestamp()"


@dataclass(frozen=True, slots=True)
class PostgresLeases:
    """Leases on a migrated database."""

    pool: asyncpg.Pool

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        """Take or renew a lease; False while another owner has it."""
        async with borrowed(self.pool) as connection:
            return bool(await connection.fetchval(_HOLD, name, owner, lease_s))

    async def release(self, name: str, owner: str) -> None:
        """Give a lease back; nothing when it is not this owner's."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_RELEASE, name, owner)

    async def holder(self, name: str) -> str | None:
        """Who has the lease now, if anybody."""
        async with borrowed(self.pool) as connection:
            owner: str | None = await connection.fetchval(HOLDER, name)
        return owner


@dataclass(slots=True)
class MemoryLeases:
    """Leases in memory; `clock` counts seconds and stands for the database's."""

    clock: Callable[[], float] = time.monotonic
    _held: dict[str, tuple[str, float]] = field(default_factory=dict)  # owner, end

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        """Take or renew a lease; False while another owner has it."""
        if self.is_held(name) and self._held[name][0] != owner:
            return False
        self._held[name] = (owner, self.clock() + lease_s)
        return True

    async def release(self, name: str, owner: str) -> None:
        """Give a lease back; nothing when it is not this owner's."""
        if self.is_known(name) and self._held[name][0] == owner:
            self._held[name] = (owner, self.clock())

    async def holder(self, name: str) -> str | None:
        """Who has the lease now, if anybody."""
        return self.holder_now(name)

    def holder_now(self, name: str) -> str | None:
        """The same, for stores in memory."""
        return self._held[name][0] if self.is_held(name) else None

    def is_held(self, name: str) -> bool:
        """Whether somebody has the lease now."""
        return name in self._held and self._held[name][1] > self.clock()

    def is_known(self, name: str) -> bool:
        """Whether somebody has the lease, or had it once."""
        return name in self._held
