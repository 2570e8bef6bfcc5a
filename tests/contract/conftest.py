from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.contract.backends import migrated_pool


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """A fresh database with our schema."""
    async with migrated_pool(postgres_dsn) as pool:
        yield pool
