"""The publisher on a real Kafka, some of it behind a proxy."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.publisher import Publisher, Sent
from contracts.errors import BusUnavailable, ContractBroken
from contracts.ports import OutgoingRecord, Position
from contracts.topics import Topic
from tests.contract.backends import until
from tests.contract.kafka_way import KafkaWay, way_to
from tests.contract.worker.bench import reader
from tests.drill.taps import PRODUCE

pytestmark = pytest.mark.kafka

TIMEOUT_S = 2.0
NOT_ENOUGH_REPLICAS = 19
OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID = 45, 47, 59


@pytest.fixture
def connection(kafka_bootstrap: str) -> KafkaConnection:
    return KafkaConnection(kafka_bootstrap)


@pytest.fixture
async def topic(connection: KafkaConnection) -> str:
    return await new_topic(connection)


@pytest.fixture
async def publisher(connection: KafkaConnection) -> AsyncIterator[Publisher]:
    async with Publisher(connection, timeout_s=TIMEOUT_S) as publisher:
        yield publisher


@pytest.fixture
async def way(kafka_bootstrap: str) -> AsyncIterator[KafkaWay]:
    async with way_to(kafka_bootstrap) as way:
        yield way


@pytest.fixture
async def far(way: KafkaWay) -> AsyncIterator[Publisher]:
    """A publisher that reaches Kafka by the way, and is closed before that is."""
    async with Publisher(way.connection, timeout_s=TIMEOUT_S) as publisher:
        yield publisher


async def new_topic(connection: KafkaConnection, partitions: int = 3) -> str:
    topic = Topic(f"published-{uuid.uuid4().hex[:12]}", (), partitions=partitions)
    await apply_topics(connection, [topic])
    return topic.name


def record(topic: str, event_id: str, ticket_id: str = "t1", *, value: bytes = b"{}") -> OutgoingRecord:
    return OutgoingRecord(event_id, "TicketResolved", ticket_id, topic, value, (("ce_id", event_id.encode()),))


def many(topic: str, count: int, tickets: int = 1, *, value: bytes = b"{}") -> list[OutgoingRecord]:
    return [record(topic, f"e{n}", f"t{1 + n % tickets}", value=value) for n in range(count)]


async def on_topic(connection: KafkaConnection, topic: str) -> Sequence[ConsumerRecord[bytes, bytes]]:
    """All that stands on a topic, each partition in order."""
    async with reader(connection, topic) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        found: list[ConsumerRecord[bytes, bytes]] = []
        async with asyncio.timeout(20):
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
    return found


async def ids_on(connection: KafkaConnection, topic: str) -> list[str]:
    return [str(dict(one.headers)["ce_id"], "ascii") for one in await on_topic(connection, topic)]


async def is_so(condition: bool) -> bool:
    return condition


def positions(sent: Sequence[Sent]) -> list[Position]:
    assert all(isinstance(one, Position) for one in sent), sent
    return [one for one in sent if isinstance(one, Position)]


async def took_s(call: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await call()
    return time.monotonic() - began


async def test_a_batch_lies_where_other_clients_put_it_and_each_ticket_in_order(
    connection: KafkaConnection, publisher: Publisher
) -> None:
    topics = [await new_topic(connection), await new_topic(connection, partitions=7)]
    records = [record(topics[n % 2], f"e{n}", f"ticket-{n % 40}") for n in range(400)]
    places = positions(await publisher.publish_batch(records))
    async with AIOKafkaProducer(**connection.client_options()) as theirs:
        for one, place in zip(records[:80], places, strict=False):
            assert (await theirs.send_and_wait(one.topic, b"", key=one.ticket_id.encode())).partition == place.partition
    for topic in topics:
        found = [one for one in await on_topic(connection, topic) if one.headers]
        assert {(one.partition, one.offset): dict(one.headers)["ce_id"].decode() for one in found} == {
            (place.partition, place.offset): one.event_id
            for one, place in zip(records, places, strict=True)
            if one.topic == topic
        }
        by_ticket: dict[bytes | None, list[int]] = {}
        for one in found:
            by_ticket.setdefault(one.key, []).append(int(dict(one.headers)["ce_id"][1:]))
        assert all(numbers == sorted(numbers) for numbers in by_ticket.values())


async def test_nothing_to_publish_is_nothing(publisher: Publisher) -> None:
    assert await publisher.publish_batch([]) == []


async def test_a_record_of_two_megabytes_is_published(
    connection: KafkaConnection, publisher: Publisher, topic: str
) -> None:
    large = record(topic, "large", value=b"x" * (2 * 1024 * 1024 - 1000))
    positions(await publisher.publish_batch([record(topic, "a"), large, record(topic, "b")]))
    assert await ids_on(connection, topic) == ["a", "large", "b"]


@pytest.mark.parametrize("size_bytes", [3 * 1024 * 1024, 5 * 1024 * 1024])
async def test_a_record_that_is_too_large_is_refused_alone(
    connection: KafkaConnection, publisher: Publisher, topic: str, size_bytes: int
) -> None:
    """Refused by the broker, it leaves a gap in the producer's sequence; refused by ourselves it must not get there."""
    too_large = record(topic, "too large", value=b"x" * size_bytes)
    first, refused, last = await publisher.publish_batch([record(topic, "a"), too_large, record(topic, "b")])
    assert isinstance(refused, ContractBroken)
    positions([first, last, *await publisher.publish_batch([record(topic, "c")])])
    assert await ids_on(connection, topic) == ["a", "b", "c"]


async def test_of_a_batch_that_is_refused_as_a_whole_only_what_is_too_large_is_left_out(
    connection: KafkaConnection, publisher: Publisher
) -> None:
    topic = Topic(f"small-{uuid.uuid4().hex[:12]}", (), partitions=1, max_message_bytes=4000)
    await apply_topics(connection, [topic])
    records = many(topic.name, 10, value=b"x" * 900)
    records[4] = record(topic.name, "too large", value=b"x" * 5000)
    sent = await publisher.publish_batch(records)
    assert [n for n, one in enumerate(sent) if isinstance(one, ContractBroken)] == [4]
    positions([*sent[:4], *sent[5:]])
    assert await ids_on(connection, topic.name) == [f"e{n}" for n in range(10) if n != 4]


async def test_a_topic_that_is_not_there_fails_alone_and_within_its_bound(
    connection: KafkaConnection, publisher: Publisher, topic: str
) -> None:
    lost, *found = await publisher.publish_batch([record(f"no-{topic}", "a"), *many(topic, 3)])
    assert isinstance(lost, BusUnavailable)
    positions(found)
    assert await took_s(lambda: publisher.publish_batch([record(f"no-{topic}", "a")])) < TIMEOUT_S * 1.5
    assert await took_s(lambda: publisher.publish_batch(many(topic, 3))) < TIMEOUT_S


async def test_a_dead_letter_that_cannot_be_written_slows_no_batch(
    connection: KafkaConnection, way: KafkaWay, far: Publisher, topic: str
) -> None:
    """A producer that tries again and again holds its broker's next request back for a tenth of a second each time."""
    letters = await new_topic(connection)
    await far.publish_batch(many(topic, 1))
    await far.put(letters, key=b"k", value=b"v")
    way.meddle(PRODUCE, NOT_ENOUGH_REPLICAS, times=1000, topic=letters)
    letter = asyncio.create_task(far.put(letters, key=b"k", value=b"v"))
    await until(lambda: is_so(way.mischief.done > 0))
    spans = sorted([await took_s(lambda: far.publish_batch(many(topic, 1))) for _ in range(11)])
    assert spans[5] < 0.05, spans
    assert not letter.done()
    with pytest.raises(BusUnavailable):
        await letter


async def test_a_broker_that_falls_silent_is_given_up_in_time(
    connection: KafkaConnection, way: KafkaWay, far: Publisher, topic: str
) -> None:
    """aiokafka#1101: an idempotent producer waits for ever for a broker that is gone, and so does its `stop`."""
    positions(await far.publish_batch(many(topic, 1)))
    way.proxy.weather.silent = True
    began = time.monotonic()
    sent = await far.publish_batch([record(topic, "a"), record(topic, "b", "t2")])
    assert all(isinstance(one, BusUnavailable) for one in sent)
    assert time.monotonic() - began < TIMEOUT_S * 2
    way.proxy.clear()
    positions(await far.publish_batch([record(topic, "a"), record(topic, "b", "t2")]))
    way.proxy.weather.silent = True
    assert await took_s(far.close) < 12


async def test_a_producer_whose_sequence_broke_is_replaced(
    connection: KafkaConnection, publisher: Publisher, topic: str
) -> None:
    """aiokafka#1017: after OutOfOrderSequence every later batch fails too, until there is a new producer."""
    [place] = positions(await publisher.publish_batch([record(topic, "a")]))
    producer = await publisher._batched.current()
    producer._txn_manager.increment_sequence_number(TopicPartition(topic, place.partition), 5)
    [failed] = await publisher.publish_batch([record(topic, "b")])
    assert isinstance(failed, BusUnavailable)
    positions(await publisher.publish_batch([record(topic, "b")]))
    assert await ids_on(connection, topic) == ["a", "b"]


@pytest.mark.parametrize("error", [INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID])
async def test_a_producer_that_kafka_knows_no_more_is_replaced(
    way: KafkaWay, far: Publisher, topic: str, error: int
) -> None:
    positions(await far.publish_batch(many(topic, 3)))
    before = await far._batched.current()
    way.meddle(PRODUCE, error)
    [failed] = await far.publish_batch([record(topic, "a")])
    assert isinstance(failed, BusUnavailable)
    positions(await far.publish_batch([record(topic, "a")]))
    assert await far._batched.current() is not before


async def test_an_answer_that_gets_lost_is_no_second_copy(
    connection: KafkaConnection, way: KafkaWay, far: Publisher, topic: str
) -> None:
    """A producer that is not idempotent writes the batch again."""
    positions(await far.publish_batch(many(topic, 1)))
    way.meddle(PRODUCE, None, times=2)
    positions(await far.publish_batch([record(topic, "a"), record(topic, "b")]))
    assert way.mischief.done == 2
    assert await ids_on(connection, topic) == ["e0", "a", "b"]


async def test_what_follows_a_batch_that_failed_is_not_sent(
    connection: KafkaConnection, way: KafkaWay, far: Publisher, topic: str
) -> None:
    """Sent all the same, it may stand before its forerunners, which are sent again."""
    positions(await far.publish_batch(many(topic, 1)))
    several_batches = many(topic, 10, value=b"x" * 50_000)
    way.meddle(PRODUCE, OUT_OF_ORDER_SEQUENCE)
    sent = await far.publish_batch(several_batches)
    assert all(isinstance(one, BusUnavailable) for one in sent)
    assert 1 < len(await ids_on(connection, topic)) < 10  # the answer to the first batch was falsified, it is there
    positions(await far.publish_batch(several_batches))
    assert list(dict.fromkeys((await ids_on(connection, topic))[1:])) == [f"e{n}" for n in range(10)]
