"""What the contract tests run on: stores in memory, and on a fresh, migrated database."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bus.connection import KafkaConnection
from contracts.ports import Stores, TimelineEntry, worker_lease
from ops.broker.server import EmbeddedBroker
from state.memory_tickets import MemoryTickets
from state.migrate import migrate
from state.pool import open_pool
from state.postgres_tickets import PostgresTickets
from state.stores import memory_stores, postgres_stores


@asynccontextmanager
async def migrated_pool(dsn: str, max_size: int = 20) -> AsyncIterator[asyncpg.Pool]:
    await migrate(dsn)
    async with open_pool(dsn, max_size=max_size) as pool:
        yield pool


@dataclass(frozen=True)
class Backend:
    """Stores, and a way to let time go by for them."""

    stores: Stores
    let_pass: Callable[[float], Awaitable[None]]  # seconds

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """What is told of a ticket."""
        assert isinstance(self.stores.tickets, MemoryTickets | PostgresTickets)
        return await self.stores.tickets.timeline(ticket_id)

    async def live(self, *owners: str, lease_s: float = 60) -> None:
        """Give workers their leases."""
        for owner in owners:
            assert await self.stores.leases.hold(worker_lease(owner), owner, lease_s=lease_s)


def in_memory() -> Backend:
    now = 0.0

    async def let_pass(seconds: float) -> None:
        nonlocal now
        now += seconds

    return Backend(memory_stores(lambda: now), let_pass)


def on_postgres(pool: asyncpg.Pool) -> Backend:
    async def let_pass(seconds: float) -> None:
        """The server's clock cannot be moved: what it wrote down is, the other way."""
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE leases SET expires_at = expires_at - make_interval(secs => $1)", seconds)
            await connection.execute("UPDATE workers SET seen_at = seen_at - make_interval(secs => $1)", seconds)
            await connection.execute("UPDATE outbox SET created_at = created_at - make_interval(secs => $1)", seconds)

    return Backend(postgres_stores(pool), let_pass)


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 60) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < limit_s, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def until_one_waits(connection: asyncpg.Connection) -> None:
    """Return when another session of this database waits for a lock."""

    async def one_waits() -> bool:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await until(one_waits)


@asynccontextmanager
async def embedded_kafka(folder: Path) -> AsyncIterator[KafkaConnection]:
    """An embedded broker whose data lies in the folder."""
    broker = EmbeddedBroker(folder)
    await broker.start()
    try:
        yield KafkaConnection(broker.bootstrap_servers)
    finally:
        await broker.stop()
