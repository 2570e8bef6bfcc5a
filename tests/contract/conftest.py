from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from bus.connection import KafkaConnection
from tests.contract.backends import embedded_kafka, migrated_pool


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """A fresh database with our schema."""
    async with migrated_pool(postgres_dsn) as pool:
        yield pool


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def connection(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    """Kafka, once as the embedded broker and once as Apache Kafka."""
    if request.param == "kafka":
        yield KafkaConnection(request.getfixturevalue("kafka_bootstrap"))
        return
    async with embedded_kafka(tmp_path) as connection:
        yield connection
