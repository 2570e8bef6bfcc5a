"""The scheduler of parked tickets on a PostgreSQL that goes away and comes back."""

import asyncio
import time
from collections.abc import Callable

import pytest

from bus.parking import Scheduler
from contracts.ports import ParkedRecord, Record
from state.stores import postgres_stores
from tests.contract.backends import migrated_pool
from tests.services.native import Service
from tests.services.postgres import Postgres
from tests.unit.bus.kit import until

BACK_WITHIN_S = 2.0

Fault = tuple[Callable[[Service], None], Callable[[Service], None]]
KILLED: Fault = (lambda service: service.kill(), lambda service: service.heal())
FROZEN: Fault = (lambda service: service.pause(), lambda service: service.resume())


@pytest.mark.postgres
@pytest.mark.parametrize("fault", [KILLED, FROZEN], ids=["killed", "frozen"])
async def test_what_fell_due_in_an_outage_is_resumed_soon_after_it_and_settled(
    postgres_server: Postgres, postgres_dsn: str, fault: Fault
) -> None:
    begin, end = fault
    resumed: list[ParkedRecord] = []
    async with migrated_pool(postgres_dsn, max_size=4) as pool:
        stores = postgres_stores(pool)
        scheduler = Scheduler(stores.parking, stores.leases, "triage", "a", resumed.append)
        for offset, wait_s in enumerate((0.0, 1.0)):
            record = Record("t", 0, offset, 0, None, b"{}")
            await stores.parking.park("triage", f"t{offset}", record, wait_s=wait_s, attempts=1, error="")
        due_at = time.monotonic() + 1.0
        running = asyncio.create_task(scheduler.run())
        await until(lambda: len(resumed) == 1)
        await asyncio.to_thread(begin, postgres_server.service)
        settling = asyncio.create_task(scheduler.settled(resumed[0]))
        await until(lambda: time.monotonic() > due_at)
        await asyncio.to_thread(end, postgres_server.service)
        back_at = time.monotonic()
        await until(lambda: len(resumed) == 2 and settling.done())
        assert time.monotonic() - back_at < BACK_WITHIN_S
        await scheduler.settled(resumed[1])
        assert [parked.record.offset for parked in resumed] == [0, 1]
        assert await stores.parking.queue("triage", [("t0", record), ("t1", record)]) == [False, False]
        running.cancel()
        await asyncio.wait({running})
