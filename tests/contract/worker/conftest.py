import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from contracts.events import CustomerReplied, LookupRequested, TicketSubmitted
from contracts.topics import CATALOGUE, Topic, dead_letters_of
from tests.contract.worker.bench import LIMIT_S, Answering, Bench


@pytest.fixture
async def bench(kafka_bootstrap: str) -> AsyncIterator[Bench]:
    async with bench_on(KafkaConnection(kafka_bootstrap)) as bench:
        yield bench


@contextlib.asynccontextmanager
async def bench_on(connection: KafkaConnection) -> AsyncIterator[Bench]:
    name = uuid.uuid4().hex[:12]
    topic = Topic(f"worker-{name}", (TicketSubmitted, CustomerReplied, LookupRequested), partitions=4, bare_json=True)
    group = f"group-{name}"
    await apply_topics(connection, [*CATALOGUE, topic, dead_letters_of(topic, group)])
    async with Publisher(connection, timeout_s=LIMIT_S) as publisher:
        yield Bench(connection, publisher, topic, Answering(group))
