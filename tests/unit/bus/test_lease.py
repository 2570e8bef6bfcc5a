"""A lease that is kept: renewed while it is wanted, whatever happens in between, then given back."""

import asyncio

from bus.lease import Lease
from contracts.errors import StoreUnavailable
from state.leases import MemoryLeases
from tests.unit.bus.kit import WithoutStalls, until

LEASE_S = 1.0


class Shaky(MemoryLeases):
    """Every third time the store is away."""

    asked = 0

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        Shaky.asked += 1
        if Shaky.asked % 3 == 0:
            raise StoreUnavailable("PostgreSQL is away")
        return await MemoryLeases.hold(self, name, owner, lease_s=lease_s)


async def test_a_lease_is_ours_for_as_long_as_it_is_kept_and_free_at_once_afterwards() -> None:
    clock = WithoutStalls()
    leases = Shaky(clock=clock)
    lease = Lease(leases, "rewind/triage", "mia", lease_s=LEASE_S)
    assert await lease.held()
    async with lease.kept():
        while clock() < 3 * LEASE_S:
            assert await leases.holder("rewind/triage") == "mia"
            await asyncio.sleep(0.01)
        await until(lambda: lease.is_ours)
    assert await leases.holder("rewind/triage") is None
    assert not lease.is_ours
