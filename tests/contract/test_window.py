"""Reading a window of a topic, on the embedded broker and on Apache Kafka."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from bus.window import Bound, read_window
from contracts.errors import Misconfigured
from contracts.topics import Topic

RECORDS = 60


@pytest.fixture
async def topic(connection: KafkaConnection) -> str:
    name = f"window-{uuid.uuid4().hex[:12]}"
    await apply_topics(connection, [Topic(name, (), partitions=3)])
    await put(connection, name, range(RECORDS))
    return name


async def put(connection: KafkaConnection, topic: str, numbers: Sequence[int]) -> None:
    async with Publisher(connection) as publisher:
        for number in numbers:
            await publisher.put(topic, key=f"k{number % 12}".encode(), value=str(number).encode(), headers=())


async def read(connection: KafkaConnection, topic: str, start: Bound, end: Bound) -> list[tuple[int, int, int]]:
    """(number, partition, offset) of each record, by number."""
    return sorted(
        [(int(r.value or b""), r.partition, r.offset) async for r in read_window(connection, topic, start, end)]
    )


async def test_all_of_a_topic_is_read_once_and_to_its_present_end(connection: KafkaConnection, topic: str) -> None:
    found = await read(connection, topic, Bound(), Bound(latest=True))
    assert [number for number, *_ in found] == list(range(RECORDS))
    assert await read(connection, topic, Bound(latest=True), Bound(latest=True)) == []


async def test_times_divide_a_topic(connection: KafkaConnection, topic: str) -> None:
    between = datetime.now(UTC) + timedelta(milliseconds=1)
    await put(connection, topic, range(RECORDS, RECORDS + 9))
    before = await read(connection, topic, Bound(), Bound(time=between))
    after = await read(connection, topic, Bound(time=between), Bound(latest=True))
    assert [number for number, *_ in before + after] == list(range(RECORDS + 9))
    assert {number for number, *_ in after} <= set(range(RECORDS - 1, RECORDS + 9))


async def test_offsets_begin_and_end_it_by_partition(connection: KafkaConnection, topic: str) -> None:
    everything = await read(connection, topic, Bound(), Bound(latest=True))
    found = await read(connection, topic, Bound(offsets={0: 3, 1: 0}), Bound(offsets={0: 7, 1: 2}))
    wanted = {0: range(3, 7), 1: range(2)}
    assert found == [one for one in everything if one[1] in wanted and one[2] in wanted[one[1]]]


async def test_an_unknown_topic_is_told_with_the_way_out(connection: KafkaConnection) -> None:
    with pytest.raises(Misconfigured, match="there is no topic nowhere; `switchyard topics apply`"):
        await read(connection, "nowhere", Bound(), Bound(latest=True))
