"""Following a topic, on the embedded broker and on Apache Kafka."""

import uuid
from collections.abc import Sequence

import pytest

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.follow import follow
from bus.publisher import Publisher
from contracts.topics import Topic

RECORDS = 200


@pytest.fixture
async def topic(connection: KafkaConnection) -> str:
    """A topic of several partitions that holds some records."""
    name = f"follow-{uuid.uuid4().hex[:12]}"
    await apply_topics(connection, [Topic(name, (), partitions=8)])
    await put(connection, name, [f"old-{n}" for n in range(RECORDS)])
    return name


async def put(connection: KafkaConnection, topic: str, values: Sequence[str]) -> None:
    async with Publisher(connection) as publisher:
        for value in values:
            await publisher.put(topic, key=value.encode(), value=value.encode())


@pytest.mark.parametrize("attempt", range(3))  # where to begin is found in the background: a race, if anything
async def test_from_the_end_only_what_comes_is_seen(connection: KafkaConnection, topic: str, attempt: int) -> None:
    async with follow(connection, topic, from_start=False) as follower:
        await put(connection, topic, ["new-1", "new-2"])
        seen = [record.value for record in await follower.rest()]
    assert sorted(seen) == [b"new-1", b"new-2"]


async def test_from_the_start_everything_is_seen_once(connection: KafkaConnection, topic: str) -> None:
    async with follow(connection, topic, from_start=True) as follower:
        first = [record.value for record in await follower.rest()]
        await put(connection, topic, ["new-1"])
        then = [record.value for record in await follower.rest()]
    assert sorted(first) == sorted(f"old-{n}".encode() for n in range(RECORDS))
    assert then == [b"new-1"]
