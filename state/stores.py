"""What the engine keeps, put together: on PostgreSQL, or in memory under the same promises."""

import time
from collections.abc import Callable

import asyncpg

from contracts.ports import Stores
from state.controls import MemoryControls, PostgresControls
from state.leases import MemoryLeases, PostgresLeases
from state.memory_parking import MemoryParking
from state.memory_tickets import MemoryTickets
from state.outbox import MemoryOutbox, PostgresOutbox
from state.postgres_parking import PostgresParking
from state.postgres_tickets import PostgresTickets


def postgres_stores(pool: asyncpg.Pool) -> Stores:
    """The stores on a migrated database."""
    return Stores(
        tickets=PostgresTickets(pool),
        outbox=PostgresOutbox(pool),
        parking=PostgresParking(pool),
        leases=PostgresLeases(pool),
        controls=PostgresControls(pool),
    )


def memory_stores(clock: Callable[[], float] = time.monotonic) -> Stores:
    """Stores that know of each other, and of nobody else. `clock` counts seconds and stands for the database's."""
    leases, parking = MemoryLeases(clock), MemoryParking(clock)
    outbox = MemoryOutbox(leases, clock)
    return Stores(
        tickets=MemoryTickets(outbox=outbox, parked_of=parking.parked_of),
        outbox=outbox,
        parking=parking,
        leases=leases,
        controls=MemoryControls(clock, leases),
    )
