"""The PostgreSQL side of the contract tests: a pool on a fresh, migrated database."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from state.migrate import migrate
from state.pool import open_pool


@asynccontextmanager
async def migrated_pool(dsn: str, max_size: int = 20) -> AsyncIterator[asyncpg.Pool]:
    await migrate(dsn)
    async with open_pool(dsn, max_size=max_size) as pool:
        yield pool


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 10) -> None:
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
